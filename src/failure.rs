//! [`Failure`]: why an invocation did not end in a report, as it goes over the wire.
//! Which failures are tried again is read from it by whoever invoked, never decided here.

use crate::prefix::RangeName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The kind of a failure, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request is no job: its method, content type, size or JSON, or where it wants to write.
    BadJob,
    /// The request does not carry the token.
    Unauthorized,
    /// The component's own configuration is missing or wrong.
    Configuration,
    /// No connection to the source, or it was lost.
    SourceUnreachable,
    /// The source did not answer in time.
    SourceTimeout,
    /// The source answered another status than 200.
    SourceStatus,
    /// The source answered something that is not a valid range.
    RangeInvalid,
    /// A range is longer than 256 KiB.
    RangeTooLarge,
    /// The data outgrew the declared length; `content_length` says what is needed.
    LengthExceeded,
    /// No connection to the store, or it was lost.
    StoreUnreachable,
    /// The store did not answer in time.
    StoreTimeout,
    /// The store does not let this signed URL write: 401 or 403.
    StoreDenied,
    /// The object is of another generation than the one that the URL was signed for: 412.
    StorePrecondition,
    /// The store answered any other status than 200.
    StoreStatus,
    /// The store's checksum is not the one of what was sent.
    StoreChecksum,
    /// The invocation ended without a final event: it trapped, or its host did away with it.
    Died,
    /// The invocation was stopped at its deadline.
    Deadline,
    /// The component itself could not be reached. Never from the component.
    HostUnreachable,
    /// The destination could not be prepared, or did not take the report. Never from the component.
    Destination,
}

impl FailureKind {
    /// The kind as it stands in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadJob => "bad_job",
            Self::Unauthorized => "unauthorized",
            Self::Configuration => "configuration",
            Self::SourceUnreachable => "source_unreachable",
            Self::SourceTimeout => "source_timeout",
            Self::SourceStatus => "source_status",
            Self::RangeInvalid => "range_invalid",
            Self::RangeTooLarge => "range_too_large",
            Self::LengthExceeded => "length_exceeded",
            Self::StoreUnreachable => "store_unreachable",
            Self::StoreTimeout => "store_timeout",
            Self::StoreDenied => "store_denied",
            Self::StorePrecondition => "store_precondition",
            Self::StoreStatus => "store_status",
            Self::StoreChecksum => "store_checksum",
            Self::Died => "died",
            Self::Deadline => "deadline",
            Self::HostUnreachable => "host_unreachable",
            Self::Destination => "destination",
        }
    }
}

/// Why an invocation failed. `message` names neither the range (that is `range`) nor any signed URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The kind, for programs.
    pub kind: FailureKind,
    /// What was tried, on what, what came back, what can be done.
    pub message: String,
    /// The range that it happened at, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<RangeName>,
    /// Whether the same job may succeed later.
    pub retryable: bool,
    /// With `length_exceeded`: the Content-Length that the data need, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_length: Option<u64>,
    /// How long the source or the store asked to be left alone when it was given up, in seconds, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

impl Failure {
    /// A failure that the same job would meet again.
    pub fn lasting(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            range: None,
            retryable: false,
            content_length: None,
            retry_after_seconds: None,
        }
    }

    /// A failure that may be gone at the next attempt.
    pub fn passing(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            retryable: true,
            ..Self::lasting(kind, message)
        }
    }

    /// The same failure, said of `range`.
    #[must_use]
    pub fn at(self, range: RangeName) -> Self {
        Self {
            range: Some(range),
            ..self
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.range {
            Some(range) => write!(formatter, "range {range}: {}", self.message),
            None => formatter.write_str(&self.message),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_said_with_its_range_and_reads_back_from_the_wire() {
        let range = "AB7FF".parse().expect("a range");
        let failure = Failure::passing(
            FailureKind::SourceStatus,
            "GET http://127.0.0.1:8080 answered 503",
        )
        .at(range);
        assert_eq!(
            failure.to_string(),
            "range AB7FF: GET http://127.0.0.1:8080 answered 503"
        );
        let wire = serde_json::to_string(&failure).expect("JSON");
        assert_eq!(
            wire,
            r#"{"kind":"source_status","message":"GET http://127.0.0.1:8080 answered 503","range":"AB7FF","retryable":true}"#
        );
        assert_eq!(serde_json::from_str::<Failure>(&wire).ok(), Some(failure));
    }
}
