//! [`Answer`]: what the store says about a request, and [`RequestError`]: why there is nothing to use.

use crate::sign::SignError;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use prefix_tar::protocol::store_answer::{error_code, is_expired, is_transient_status, refusal};
use std::fmt;

/// The store's answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    pub(super) operation: Operation,
}

impl Answer {
    /// The error for an answer that the caller cannot use. It has the store's `<Code>`, never the URL.
    pub fn into_error(self) -> RequestError {
        RequestError::Refused {
            message: refusal(
                &self.operation.to_string(),
                self.operation.method.as_str(),
                self.status.as_u16(),
                self.code(),
            ),
            status: self.status,
            is_transient: self.is_transient() || self.is_expired(),
        }
    }

    /// Whether another attempt may get another answer.
    pub(super) fn is_transient(&self) -> bool {
        is_transient_status(self.status.as_u16())
    }

    /// Whether the signature is too old or from the future, so that a new one may be accepted.
    pub(super) fn is_expired(&self) -> bool {
        !self.status.is_success() && is_expired(self.code())
    }

    /// Whether the account lacks a permission. Any other code concerns the signature, and would be the same for every
    /// object.
    pub(super) fn is_denied(&self) -> bool {
        self.status == StatusCode::FORBIDDEN
            && self.code().is_none_or(|code| code == "AccessDenied")
    }

    /// The answer to a GET or HEAD; `None` if there is no such file.
    pub(super) fn found(self, is_partial: bool) -> Result<Option<Self>, RequestError> {
        match self.status {
            StatusCode::OK if !is_partial => Ok(Some(self)),
            StatusCode::PARTIAL_CONTENT if is_partial => Ok(Some(self)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.into_error()),
        }
    }

    /// The store's `<Code>`. An answer to HEAD has none.
    pub fn code(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok().and_then(error_code)
    }
}

/// A method and the object that it is for, as messages show them.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) object: String,
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {}", self.method, self.object)
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The URL could not be signed. The signer has already retried.
    #[error(transparent)]
    NotSigned(#[from] SignError),
    /// No attempt was answered.
    #[error("{0}")]
    Lost(String),
    /// The answer is longer than any file that is read whole.
    #[error("the answer to {operation} has more than {bytes_max} bytes")]
    TooLong {
        /// What was tried.
        operation: String,
        /// The most bytes that are read.
        bytes_max: usize,
    },
    /// The store refused the request, or its last attempt.
    #[error("{message}")]
    Refused {
        /// What was tried, the answer, and what to do.
        message: String,
        /// The status.
        status: StatusCode,
        /// Whether a later attempt may succeed.
        is_transient: bool,
    },
}

impl RequestError {
    /// Whether a later attempt may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NotSigned(error) => error.is_transient(),
            Self::Lost(_) => true,
            Self::TooLong { .. } => false,
            Self::Refused { is_transient, .. } => *is_transient,
        }
    }
}
