//! [`RunRecord`]: the run that may write to an archive, and what it found there when it began.
//!
//! It is written before anything else and never removed. A run is unfinished as long as the manifest
//! does not name it.

use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use prefix_tar::protocol::run_id::RunId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A run record, in bytes. With 256 prefixes it has about 20 KB.
pub const RUN_RECORD_BYTES_MAX: usize = 128 * 1024;

/// One prefix of a run, as the run found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedPrefix {
    /// The prefix.
    pub prefix: Prefix,
    /// The generation of its tar when the run began; null if there was none. The run replaces this
    /// generation and no other, so each tar is written once per run.
    pub base: Option<String>,
    /// Whether the run keeps this tar, because an earlier run has stored it whole.
    pub kept: bool,
}

/// The latest run of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunRecord {
    /// Always `prefix-tar`.
    pub tool: String,
    /// The version that wrote it.
    pub version: String,
    /// The run.
    pub run: RunId,
    /// The source's base URL.
    pub source: String,
    /// Which hashes it mirrors; SHA-1 if absent.
    #[serde(default, skip_serializing_if = "Mode::is_default")]
    pub mode: Mode,
    /// When the run began, in RFC 3339.
    pub started: String,
    /// Whether the run mirrors every prefix again.
    pub force: bool,
    /// How many seconds an upload URL of this run is valid after its signature.
    pub upload_seconds: u64,
    /// Set while the run waits until no upload of an earlier, unfinished run can arrive any more:
    /// the end of the wait, in RFC 3339. The prefixes' `base` and `kept` are not known until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_until: Option<String>,
    /// Whether the run has ended with every upload answered, so that none can arrive any more.
    pub closed: bool,
    /// The run's prefixes, in order.
    pub prefixes: Vec<PlannedPrefix>,
}

impl RunRecord {
    /// The entry of a prefix.
    pub fn prefix(&self, prefix: Prefix) -> Option<&PlannedPrefix> {
        self.prefixes
            .iter()
            .find(|planned| planned.prefix == prefix)
    }

    /// Whether a report is about what the run mirrors: the same hashes of the same source.
    pub fn mirrors(&self, report: &Report) -> bool {
        self.source == report.source && self.mode == report.mode
    }

    /// Whether the run has this source and mode, and exactly these prefixes.
    pub fn is_about(
        &self,
        source: &str,
        mode: Mode,
        prefixes: impl ExactSizeIterator<Item = Prefix>,
    ) -> bool {
        self.source == source
            && self.mode == mode
            && self.prefixes.len() == prefixes.len()
            && prefixes
                .zip(&self.prefixes)
                .all(|(prefix, planned)| prefix == planned.prefix)
    }
}
