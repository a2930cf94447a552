//! [`Event`]: one line of the component's answer.

use crate::protocol::failure::Failure;
use crate::protocol::recording::Recording;
use crate::protocol::report::Report;
use serde::{Deserialize, Serialize};

/// The content type of the answer: newline-delimited JSON, one event per line.
pub const EVENTS_CONTENT_TYPE: &str = "application/x-ndjson";

/// One line of the answer. An answer that ends without `done` or `failed` counts as failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The invocation is under way.
    Progress {
        /// Ranges in the tar so far.
        ranges: u32,
        /// Their data, in bytes.
        bytes: u64,
        /// Linear memory, in bytes.
        linear_memory: u64,
    },
    /// The object is stored, and its checksum matches.
    Done {
        /// What was stored.
        report: Box<Report>,
        /// What the invocation measured of itself. Components of version 0.1.0 send none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recording: Option<Box<Recording>>,
    },
    /// The invocation failed. It left no object, unless `sent` is present.
    Failed {
        /// Why.
        error: Failure,
        /// The report of the upload, if all of it was sent and only the store's answer is missing
        /// or wrong: the store may have the object. `generation` is the one in the answer, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sent: Option<Box<Report>>,
        /// What the invocation measured of itself, if it began.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recording: Option<Box<Recording>>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progress_event_has_its_documented_json() {
        let progress = Event::Progress {
            ranges: 512,
            bytes: 17_203_200,
            linear_memory: 2_818_048,
        };
        assert_eq!(
            serde_json::to_string(&progress).expect("JSON"),
            r#"{"event":"progress","ranges":512,"bytes":17203200,"linear_memory":2818048}"#
        );
    }

    #[cfg(feature = "schema")]
    #[test]
    fn the_schema_restricts_names_and_checksums_to_their_patterns() {
        let schema = schemars::schema_for!(Event).to_value();
        for (name, pattern) in [
            ("Prefix", "^[0-9A-F]{2}$"),
            ("RangeName", "^[0-9A-F]{5}$"),
            ("Crc32c", "^[A-Za-z0-9+/]{5}[AQgw]==$"),
        ] {
            let definition = &schema["$defs"][name];
            assert_eq!(definition["type"], "string", "{name}");
            assert_eq!(definition["pattern"], pattern, "{name}");
        }
    }
}
