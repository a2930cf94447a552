//! The store's errors, in GCS's XML: which status and code each has.
//! When one is answered is left to the store.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use quick_xml::escape::escape;

/// Why the store refuses a request. Codes and statuses are GCS's:
/// <https://cloud.google.com/storage/docs/xml-api/reference-status>
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The request is not signed.
    #[error("Access denied.")]
    AccessDenied,
    /// Who signed may not do this: the permission of this name is missing.
    #[error("The account that signed does not have {0} access to the object.")]
    PermissionDenied(&'static str),
    /// The signature is not the one that the request must have.
    #[error("Access denied.")]
    SignatureDoesNotMatch,
    /// The signed URL was valid until before now.
    #[error("The provided token has expired.")]
    ExpiredToken,
    /// The signed URL is valid from later than now.
    #[error("The difference between the request time and the server's time is too large.")]
    RequestTimeTooSkewed,
    /// A header that has to be signed is not, or one that was signed is not sent.
    #[error("Your request has a malformed header.")]
    MalformedSecurityHeader,
    /// `x-amz-` headers beside `x-goog-` ones.
    #[error("Multiple HTTP header values where one was expected.")]
    ExcessHeaderValues,
    /// No Content-Length.
    #[error("You must provide the Content-Length HTTP header.")]
    MissingContentLength,
    /// More than an object may have.
    #[error("Your proposed upload exceeds the maximum allowed object size.")]
    EntityTooLarge,
    /// Fewer bytes than the signed `x-goog-content-length-range` asks for.
    #[error("Your proposed upload is smaller than the minimum object size.")]
    EntityTooSmall,
    /// The body ended before its Content-Length.
    #[error("The request body terminated unexpectedly.")]
    IncompleteBody,
    /// The checksum sent with the object is not the object's.
    #[error("The CRC32C you specified did not match what we received.")]
    BadDigest,
    /// `x-goog-if-generation-match` names another generation.
    #[error("At least one of the pre-conditions you specified did not hold.")]
    PreconditionFailed,
    /// A value that is no valid one.
    #[error("{0}")]
    InvalidArgument(&'static str),
    /// No bucket of that name.
    #[error("The specified bucket does not exist.")]
    NoSuchBucket,
    /// No object of that name.
    #[error("The specified key does not exist.")]
    NoSuchKey,
    /// A byte range outside of the object.
    #[error("The requested range cannot be satisfied.")]
    InvalidRange,
    /// A method that is not served.
    #[error("The specified method is not allowed against this resource.")]
    MethodNotAllowed,
    /// The disk is full. Not a code of GCS, which has no disk to fill.
    #[error("No space is left on the store's disk.")]
    NoSpaceLeft,
    /// The folder did not take the object. Not a code of GCS either.
    #[error("The store cannot write: {0}")]
    CannotWrite(String),
    /// Anything else on our side.
    #[error("We encountered an internal error. Please try again.")]
    InternalError,
}

impl StoreError {
    /// The status and the `<Code>`.
    pub const fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::AccessDenied | Self::PermissionDenied(_) => {
                (StatusCode::FORBIDDEN, "AccessDenied")
            }
            Self::SignatureDoesNotMatch => (StatusCode::FORBIDDEN, "SignatureDoesNotMatch"),
            Self::ExpiredToken => (StatusCode::FORBIDDEN, "ExpiredToken"),
            Self::RequestTimeTooSkewed => (StatusCode::FORBIDDEN, "RequestTimeTooSkewed"),
            Self::MalformedSecurityHeader => (StatusCode::BAD_REQUEST, "MalformedSecurityHeader"),
            Self::ExcessHeaderValues => (StatusCode::BAD_REQUEST, "ExcessHeaderValues"),
            Self::MissingContentLength => (StatusCode::LENGTH_REQUIRED, "MissingContentLength"),
            Self::EntityTooLarge => (StatusCode::BAD_REQUEST, "EntityTooLarge"),
            Self::EntityTooSmall => (StatusCode::BAD_REQUEST, "EntityTooSmall"),
            Self::IncompleteBody => (StatusCode::BAD_REQUEST, "IncompleteBody"),
            Self::BadDigest => (StatusCode::BAD_REQUEST, "BadDigest"),
            Self::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "PreconditionFailed"),
            Self::InvalidArgument(_) => (StatusCode::BAD_REQUEST, "InvalidArgument"),
            Self::NoSuchBucket => (StatusCode::NOT_FOUND, "NoSuchBucket"),
            Self::NoSuchKey => (StatusCode::NOT_FOUND, "NoSuchKey"),
            Self::InvalidRange => (StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            Self::NoSpaceLeft => (StatusCode::INSUFFICIENT_STORAGE, "NoSpaceLeft"),
            Self::CannotWrite(_) => (StatusCode::INTERNAL_SERVER_ERROR, "CannotWrite"),
            Self::InternalError => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        }
    }

    /// The error document.
    pub fn to_document(&self) -> Response<Bytes> {
        let (status, code) = self.status_and_code();
        let message = self.to_string();
        let message = escape(&message);
        let document = format!(
            "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        let mut response = Response::new(Bytes::from(document));
        *response.status_mut() = status;
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/xml; charset=UTF-8"),
        );
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_break_out_of_its_element() {
        let error = StoreError::CannotWrite("</Message><Code>x".to_owned());
        let document = error.to_document();
        assert_eq!(document.status(), 500);
        let text = String::from_utf8_lossy(document.body()).into_owned();
        assert!(text.contains("<Code>CannotWrite</Code>"), "{text}");
        assert!(text.contains("&lt;/Message&gt;&lt;Code&gt;x"), "{text}");
    }
}
