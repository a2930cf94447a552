//! [`Failure`]: why an invocation failed, as the component reports it.

use crate::protocol::prefix::RangeName;
use crate::protocol::text::escaped_within;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the message of a failure says if a server's certificate is the reason.
pub const CERTIFICATE_NOT_TRUSTED: &str = "its TLS certificate is not trusted";

/// How a message says that the component's host refuses a request.
pub const REQUEST_DENIED: &str =
    "the component's host does not allow it; check its allowed outbound hosts";

/// How a message says that what is between the component and a server does not reach the server.
pub const SERVER_UNAVAILABLE: &str = "the server is not available";

/// The message of a failure that another program sent, in characters. Ours have fewer than 300.
const MESSAGE_CHARS_MAX: usize = 1024;

/// The kind of a failure, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request is not a valid job: wrong method, content type, size or JSON, or an upload URL
    /// that the component may not write to.
    BadJob,
    /// The request does not carry the token.
    Unauthorized,
    /// The component's own configuration is incomplete or invalid.
    Configuration,
    /// The connection to the source failed or was lost.
    SourceUnreachable,
    /// The source did not answer in time.
    SourceTimeout,
    /// The source answered with a status other than 200.
    SourceStatus,
    /// The source's answer is not a valid range.
    RangeInvalid,
    /// A range is longer than 256 KiB.
    RangeTooLarge,
    /// The data exceed the declared length; `content_length` is the length needed.
    LengthExceeded,
    /// The connection to the store failed or was lost.
    StoreUnreachable,
    /// The store did not answer in time.
    StoreTimeout,
    /// The store does not accept this signed URL: 401 or 403.
    StoreDenied,
    /// The object's generation is not the one that the URL was signed for: 412.
    StorePrecondition,
    /// The store answered with another status than 200.
    StoreStatus,
    /// The store's checksum differs from the checksum of the bytes sent.
    StoreChecksum,
    /// The store took the object but stated no checksum.
    StoreUnconfirmed,
    /// The invocation ended without a final event: it trapped, or its host ended it.
    Died,
    /// The invocation was stopped at its deadline.
    Deadline,
    /// The component could not be reached. Set by the orchestrator only.
    HostUnreachable,
    /// The destination could not be prepared, or did not take the report. Set by the orchestrator
    /// only.
    Destination,
    /// The report of an invocation is not valid or not true: the store does not have what it says.
    /// Set by the orchestrator only.
    ReportInvalid,
    /// Another run has taken over the archive. Set by the orchestrator only.
    Superseded,
}

impl FailureKind {
    /// The kind as written in JSON.
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
            Self::StoreUnconfirmed => "store_unconfirmed",
            Self::Died => "died",
            Self::Deadline => "deadline",
            Self::HostUnreachable => "host_unreachable",
            Self::Destination => "destination",
            Self::ReportInvalid => "report_invalid",
            Self::Superseded => "superseded",
        }
    }
}

/// Why an invocation failed. `message` contains neither the range, which has its own field, nor a
/// signed URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The kind, for programs.
    pub kind: FailureKind,
    /// What was tried, on what, and what came back, for people.
    pub message: String,
    /// The range concerned, if it is a single one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<RangeName>,
    /// Whether the same job may succeed later.
    pub retryable: bool,
    /// The HTTP status of the answer from the source or the store that caused the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// With `length_exceeded`: the Content-Length that the data need, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_length: Option<u64>,
    /// The `Retry-After` of the last answer, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
    /// If a cache gave the answer that caused the failure: for how long it has had it, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_age_seconds: Option<u64>,
}

impl Failure {
    /// A failure that the same job would meet again.
    pub fn permanent(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            range: None,
            retryable: false,
            status: None,
            content_length: None,
            retry_after_seconds: None,
            cache_age_seconds: None,
        }
    }

    /// A failure that another attempt may not meet.
    pub fn transient(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            retryable: true,
            ..Self::permanent(kind, message)
        }
    }

    /// Adds the range that the failure concerns.
    #[must_use]
    pub fn at(self, range: RangeName) -> Self {
        Self {
            range: Some(range),
            ..self
        }
    }

    /// Adds the HTTP status that the source or the store answered.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        Self {
            status: Some(status),
            ..self
        }
    }

    /// Makes the message of a failure that another program sent safe to show: one line, without
    /// control characters, of a bounded length.
    #[must_use]
    pub fn sanitized(self) -> Self {
        Self {
            message: escaped_within(&self.message, MESSAGE_CHARS_MAX),
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
    fn a_failure_prints_its_range_and_survives_a_round_trip() {
        let range = "AB7FF".parse().expect("a range");
        let failure = Failure::transient(
            FailureKind::SourceStatus,
            "GET http://127.0.0.1:8080 answered 503",
        )
        .at(range)
        .with_status(503);
        assert_eq!(
            failure.to_string(),
            "range AB7FF: GET http://127.0.0.1:8080 answered 503"
        );
        let wire = serde_json::to_string(&failure).expect("JSON");
        assert_eq!(
            wire,
            r#"{"kind":"source_status","message":"GET http://127.0.0.1:8080 answered 503","range":"AB7FF","retryable":true,"status":503}"#
        );
        assert_eq!(serde_json::from_str::<Failure>(&wire).ok(), Some(failure));
    }

    #[test]
    fn a_sanitized_failure_differs_in_its_message_only() {
        let failure = Failure::transient(FailureKind::Died, "up\n\u{1b}[2Jerror: forged")
            .at("AB7FF".parse().expect("a range"))
            .with_status(500);
        let sanitized = failure.clone().sanitized();
        assert_eq!(sanitized.message, "up\\u{a}\\u{1b}[2Jerror: forged");
        let message = failure.message.clone();
        assert_eq!(
            Failure {
                message,
                ..sanitized
            },
            failure
        );
        let long = Failure::permanent(FailureKind::Died, "x".repeat(2 * MESSAGE_CHARS_MAX));
        let message = long.sanitized().message;
        assert_eq!(message.chars().count(), MESSAGE_CHARS_MAX);
        assert!(message.ends_with('…'));
    }

    #[test]
    fn a_failure_without_a_status_is_readable() {
        let wire = r#"{"kind":"died","message":"it trapped","retryable":true}"#;
        let failure: Failure = serde_json::from_str(wire).expect("a failure");
        assert_eq!(failure.status, None);
        assert_eq!(serde_json::to_string(&failure).expect("JSON"), wire);
    }
}
