//! The errors that the emulator answers with, as GCS's XML documents.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use quick_xml::escape::escape;
use rustix::io::Errno;
use std::io;
use std::path::Path;

/// What was to be done with a file when the system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The file was to be read or looked at.
    Read,
    /// The file was to be written, together with its folder.
    Write,
    /// The file was to be removed.
    Remove,
}

impl Access {
    const fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Remove => "remove",
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Read => "CannotRead",
            Self::Write => "CannotWrite",
            Self::Remove => "CannotRemove",
        }
    }
}

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
    /// The client sent its body too slowly.
    #[error("The client did not send its request in the time allowed.")]
    RequestTimeout,
    /// The body does not have the checksum of this algorithm in `x-goog-hash` or `Content-MD5`.
    #[error("The {0} you specified did not match what we received.")]
    BadDigest(&'static str),
    /// `x-goog-hash` or `Content-MD5` does not hold the base64 of a checksum.
    #[error("The checksum you specified was invalid.")]
    InvalidDigest,
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
    /// Something that is not a file has the object's name. Like the codes below, this one is our
    /// own: GCS has no file system.
    #[error("{file} is {kind}, not a file; move it out of the bucket's folder")]
    NotAFile {
        /// The name of what is there.
        file: String,
        /// What it is: `a symbolic link`.
        kind: &'static str,
    },
    /// The object is larger than the reader accepts.
    #[error("{file} has more than {bytes_max} bytes")]
    LargerThan {
        /// The object's file name.
        file: String,
        /// The reader's limit.
        bytes_max: u64,
    },
    /// Only the object's metadata were kept.
    #[error(
        "the content of {file} was discarded, as `store --discard` does; only its metadata are kept"
    )]
    ContentDiscarded {
        /// The object's file name.
        file: String,
    },
    /// The object's content is kept, and replacing it would lose it.
    #[error(
        "{file} was stored without `store --discard`; with it, replacing {file} would lose its content: use another folder"
    )]
    ContentKept {
        /// The object's file name.
        file: String,
    },
    /// No more objects can be remembered whose content is discarded.
    #[error("too many objects were discarded; restart the store, which forgets them")]
    TooManyDiscarded,
    /// The disk is full.
    #[error("no space is left on the store's disk; free some, then repeat the request")]
    NoSpaceLeft,
    /// The quota of the disk is used up.
    #[error("the disk quota of the store's user is used up; free some space or raise the quota")]
    QuotaExceeded,
    /// The file system is mounted read-only.
    #[error("the store's file system is read-only; remount it, or choose another folder")]
    ReadOnlyFileSystem,
    /// The process, or the system, has no file descriptors left.
    #[error("no file descriptors are left; lower --parallel, or raise the limit with ulimit -n")]
    NoFileDescriptors,
    /// The system denies the emulator's user access to a file.
    #[error(
        "no permission to {verb} {file}; give the store's user access to it and to its folder",
        verb = access.verb()
    )]
    FileAccessDenied {
        /// What was to be done.
        access: Access,
        /// The object's file name.
        file: String,
    },
    /// A file cannot be read or written for any other reason.
    #[error("cannot {verb} {file}: {cause}", verb = access.verb())]
    File {
        /// What was to be done.
        access: Access,
        /// The object's file name.
        file: String,
        /// What the system answered.
        cause: String,
    },
    /// The emulator failed in any other way.
    #[error("We encountered an internal error. Please try again.")]
    InternalError,
}

impl StoreError {
    /// The error for what the system answered to an operation on the file at `path`.
    pub(crate) fn of_io(access: Access, path: &Path, error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        if let Some(inner) = inner {
            return Self::clone(inner);
        }
        let file = file_name(path);
        tracing::warn!(%file, %error, "cannot {} a file of a bucket", access.verb());
        match error.kind() {
            io::ErrorKind::StorageFull => Self::NoSpaceLeft,
            io::ErrorKind::QuotaExceeded => Self::QuotaExceeded,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnlyFileSystem,
            io::ErrorKind::PermissionDenied => Self::FileAccessDenied { access, file },
            _ if lacks_file_descriptors(error) => Self::NoFileDescriptors,
            _ => Self::File {
                access,
                file,
                cause: error.to_string(),
            },
        }
    }

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
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "RequestTimeout"),
            Self::BadDigest(_) => (StatusCode::BAD_REQUEST, "BadDigest"),
            Self::InvalidDigest => (StatusCode::BAD_REQUEST, "InvalidDigest"),
            Self::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "PreconditionFailed"),
            Self::InvalidArgument(_) => (StatusCode::BAD_REQUEST, "InvalidArgument"),
            Self::NoSuchBucket => (StatusCode::NOT_FOUND, "NoSuchBucket"),
            Self::NoSuchKey => (StatusCode::NOT_FOUND, "NoSuchKey"),
            Self::InvalidRange => (StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            // A client that retries 5xx except 507 does not repeat what cannot succeed.
            Self::NotAFile { .. } => (StatusCode::CONFLICT, "NotAFile"),
            Self::ContentDiscarded { .. } => (StatusCode::CONFLICT, "ContentDiscarded"),
            Self::ContentKept { .. } => (StatusCode::CONFLICT, "ContentKept"),
            Self::TooManyDiscarded => (StatusCode::INSUFFICIENT_STORAGE, "TooManyDiscarded"),
            Self::NoSpaceLeft => (StatusCode::INSUFFICIENT_STORAGE, "NoSpaceLeft"),
            Self::QuotaExceeded => (StatusCode::INSUFFICIENT_STORAGE, "QuotaExceeded"),
            Self::ReadOnlyFileSystem => (StatusCode::INSUFFICIENT_STORAGE, "ReadOnlyFileSystem"),
            Self::NoFileDescriptors => (StatusCode::SERVICE_UNAVAILABLE, "NoFileDescriptors"),
            Self::FileAccessDenied { .. } => (StatusCode::FORBIDDEN, "FileAccessDenied"),
            Self::File { access, .. } => (StatusCode::INTERNAL_SERVER_ERROR, access.code()),
            Self::LargerThan { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "LargerThan"),
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

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        Self::other(error)
    }
}

/// Whether the system refused because the process, or the system, has no file descriptors left.
pub fn lacks_file_descriptors(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

/// The name under which messages mention a file: the last part of its path. The rest of the path
/// is none of a client's business.
pub(crate) fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_message_is_escaped_in_the_document() {
        let error = StoreError::File {
            access: Access::Write,
            file: "x".to_owned(),
            cause: "</Message><Code>x".to_owned(),
        };
        let document = error.to_document();
        assert_eq!(document.status(), 500);
        let text = String::from_utf8_lossy(document.body()).into_owned();
        assert!(text.contains("<Code>CannotWrite</Code>"), "{text}");
        assert!(text.contains("&lt;/Message&gt;&lt;Code&gt;x"), "{text}");
    }

    #[test]
    fn what_the_system_refuses_is_said_with_what_to_do() {
        let path = Path::new("/secret/folder/00.tar");
        for (errno, status, code, message) in [
            (
                Errno::NOSPC,
                507,
                "NoSpaceLeft",
                "no space is left on the store's disk; free some",
            ),
            (Errno::DQUOT, 507, "QuotaExceeded", "raise the quota"),
            (
                Errno::ROFS,
                507,
                "ReadOnlyFileSystem",
                "read-only; remount it",
            ),
            (
                Errno::MFILE,
                503,
                "NoFileDescriptors",
                "no file descriptors are left; lower --parallel, or raise the limit with ulimit -n",
            ),
            (Errno::NFILE, 503, "NoFileDescriptors", "ulimit -n"),
            (
                Errno::ACCESS,
                403,
                "FileAccessDenied",
                "no permission to write 00.tar; give",
            ),
            (
                Errno::IO,
                500,
                "CannotWrite",
                "cannot write 00.tar: Input/output error",
            ),
        ] {
            let error = StoreError::of_io(Access::Write, path, &errno.into());
            let answered = error.status_and_code();
            assert_eq!((answered.0.as_u16(), answered.1), (status, code));
            let shown = error.to_string();
            assert!(shown.contains(message), "{shown}");
            assert!(!shown.contains("/secret"), "{shown}");
        }
    }

    #[test]
    fn an_error_that_went_through_io_is_still_itself() {
        let error = StoreError::NotAFile {
            file: "00.tar".to_owned(),
            kind: "a symbolic link",
        };
        let through = io::Error::from(error.clone());
        assert_eq!(
            through.to_string(),
            "00.tar is a symbolic link, not a file; move it out of the bucket's folder"
        );
        let path = Path::new("other");
        assert_eq!(StoreError::of_io(Access::Read, path, &through), error);
    }
}
