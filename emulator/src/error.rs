//! The errors that the emulator answers with, as GCS's XML documents.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use quick_xml::escape::escape;

/// Why a request is refused. Statuses and codes are GCS's unless a variant says otherwise.
/// `Display` gives the `<Message>` of the document.
///
/// <https://cloud.google.com/storage/docs/xml-api/reference-status>
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The request has no signature.
    #[error("Access denied.")]
    AccessDenied,
    /// The signing account lacks the permission of this name.
    #[error("The account that signed does not have {0} access to the object.")]
    PermissionDenied(&'static str),
    /// The signature does not match the request, or another account made it.
    #[error("Access denied.")]
    SignatureDoesNotMatch,
    /// The signed URL has expired.
    #[error("The provided token has expired.")]
    ExpiredToken,
    /// The signed URL is dated too far in the future.
    #[error("The difference between the request time and the server's time is too large.")]
    RequestTimeTooSkewed,
    /// A header that must be signed is not, or a signed header is missing.
    #[error("Your request has a malformed header.")]
    MalformedSecurityHeader,
    /// The request mixes `x-amz-` and `x-goog-` headers.
    #[error("Multiple HTTP header values where one was expected.")]
    ExcessHeaderValues,
    /// The upload declares no Content-Length.
    #[error("You must provide the Content-Length HTTP header.")]
    MissingContentLength,
    /// The upload is larger than an object may be, or than the signed `x-goog-content-length-range`
    /// allows.
    #[error("Your proposed upload exceeds the maximum allowed object size.")]
    EntityTooLarge,
    /// The upload is smaller than the signed `x-goog-content-length-range` allows.
    #[error("Your proposed upload is smaller than the minimum object size.")]
    EntityTooSmall,
    /// The body ended before its Content-Length.
    #[error("The request body terminated unexpectedly.")]
    IncompleteBody,
    /// The body does not have the checksum in `x-goog-hash`.
    #[error("The CRC32C you specified did not match what we received.")]
    BadDigest,
    /// The object does not have the generation in `x-goog-if-generation-match`.
    #[error("At least one of the pre-conditions you specified did not hold.")]
    PreconditionFailed,
    /// A part of the request is invalid, for this reason.
    #[error("{0}")]
    InvalidArgument(&'static str),
    /// There is no bucket of this name.
    #[error("The specified bucket does not exist.")]
    NoSuchBucket,
    /// There is no object of this name.
    #[error("The specified key does not exist.")]
    NoSuchKey,
    /// The requested byte range lies outside the object.
    #[error("The requested range cannot be satisfied.")]
    InvalidRange,
    /// The emulator does not support the method.
    #[error("The specified method is not allowed against this resource.")]
    MethodNotAllowed,
    /// The disk is full. This code is our own: GCS has no disk to fill.
    #[error("No space is left on the store's disk.")]
    NoSpaceLeft,
    /// The object cannot be written to its folder, for this reason. This code is our own, too.
    #[error("The store cannot write: {0}")]
    CannotWrite(String),
    /// The emulator failed in any other way.
    #[error("We encountered an internal error. Please try again.")]
    InternalError,
}

impl StoreError {
    /// The HTTP status and the `<Code>` of the document.
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

    /// The response that carries the error, with its XML document as the body.
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
    fn an_error_message_is_escaped_in_the_document() {
        let error = StoreError::CannotWrite("</Message><Code>x".to_owned());
        let document = error.to_document();
        assert_eq!(document.status(), 500);
        let text = String::from_utf8_lossy(document.body()).into_owned();
        assert!(text.contains("<Code>CannotWrite</Code>"), "{text}");
        assert!(text.contains("&lt;/Message&gt;&lt;Code&gt;x"), "{text}");
    }
}
