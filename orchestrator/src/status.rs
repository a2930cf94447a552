//! Tells how old, complete and large an archive is, and whether its source has anything new.
//!
//! Whether there is anything new is found out from a random sample of ranges, so the answer has a probability: see
//! [`verdict`]. A range counts as different only if its body is.

pub mod ask;
pub mod compare;
pub mod inventory;
pub mod record;
pub mod sample;
pub mod text;
pub mod verdict;

use crate::archive::Archive;
use crate::archive::ranges::RangeArchive;
use crate::range_client::RangeClient;
use crate::verify::UnfinishedRun;
use crate::verify::text::one_line;
use ask::ask_all;
use inventory::{Inventory, Look, look};
use jiff::Timestamp;
use prefix_tar::protocol::source::SourceUrl;
use record::{Holdings, SampleRecord, StatusRecord};
use std::path::PathBuf;
use std::sync::Arc;
use verdict::Verdict;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Question {
    /// The source to ask, if not the one that the manifest names.
    pub source: Option<SourceUrl>,
    /// How many ranges to compare.
    pub samples: u32,
    /// Certificates to trust besides the platform's.
    pub ca_file: Option<PathBuf>,
    /// The present time.
    pub now: Timestamp,
}

/// Looks at an archive and, if it is complete, asks its source. `name` is the archive's for people.
///
/// # Errors
/// The CA file is not usable.
pub async fn status(
    archive: Arc<dyn Archive>,
    name: &str,
    question: &Question,
) -> anyhow::Result<StatusRecord> {
    let record = StatusRecord::new(name);
    let inventory = match look(&*archive).await {
        Ok(Look::Found(inventory)) => inventory,
        Ok(Look::Denied) => return Ok(record.unknown("the account may not read the archive")),
        Ok(Look::Unfinished(run)) => {
            return Ok(record.incomplete(&inventory::unfinished(&run), Some(run)));
        }
        Ok(Look::Nothing) => return Ok(record.no_archive()),
        Err(error) => return Ok(record.unknown(&error.to_string())),
    };
    let record = StatusRecord {
        holds: Some(Holdings::new(&inventory, question.now)),
        failures: inventory.failures.clone(),
        ..record
    };
    if let Some(reason) = inventory.incomplete() {
        return Ok(record.incomplete(&reason, inventory.unfinished_run));
    }
    let source = match source_of(&inventory, question) {
        Ok(source) => source,
        Err(reason) => return Ok(record.unknown(&reason)),
    };
    let ranges = match RangeArchive::open(archive).await {
        Ok(ranges) => ranges,
        Err(error) => return Ok(record.unknown(&error.to_string())),
    };
    let mode = inventory.manifest.mode;
    let client = RangeClient::new(source.clone(), mode, question.ca_file.as_deref())?;
    let sampled = sample::draw(
        &inventory.prefixes(),
        question.samples,
        &mut fastrand::Rng::new(),
    );
    let tally = Box::pin(ask_all(&ranges, &client, sampled)).await;
    let verdict = tally.verdict();
    Ok(StatusRecord {
        verdict,
        summary: tally.summary(inventory.ranges()),
        sample: Some(SampleRecord::new(&source, &tally)),
        ..record
    })
}

fn source_of(inventory: &Inventory, question: &Question) -> Result<SourceUrl, String> {
    if let Some(source) = &question.source {
        return Ok(source.clone());
    }
    let source = &inventory.manifest.source;
    source.parse().map_err(|error| {
        format!(
            "the archive's source, `{}`, cannot be asked: {error}; name another one with --source",
            one_line(source)
        )
    })
}

impl StatusRecord {
    /// Whether there is anything new cannot be told.
    pub fn unknown(self, reason: &str) -> Self {
        self.concluded(Verdict::Unknown, &format!("could not tell: {reason}"))
    }

    /// There is no archive.
    pub fn no_archive(self) -> Self {
        let summary = "no archive yet: there is no manifest, and no run has begun";
        self.concluded(Verdict::NoArchive, summary)
    }

    fn incomplete(self, reason: &str, unfinished: Option<UnfinishedRun>) -> Self {
        Self {
            unfinished_run: unfinished,
            ..self.concluded(Verdict::Incomplete, &format!("incomplete: {reason}"))
        }
    }

    fn concluded(self, verdict: Verdict, summary: &str) -> Self {
        Self {
            verdict,
            summary: one_line(summary),
            ..self
        }
    }
}
