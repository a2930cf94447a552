//! Answers GET and HEAD with an object, or with a byte range of it.

use crate::conditions::{self, Verdict};
use crate::error::{Access, StoreError, file_name};
use crate::headers::{describe, insert, text};
use crate::objects::{ObjectMetadata, Objects};
use crate::{StoreBody, empty, on_disk};
use futures::TryStreamExt as _;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue,
    LAST_MODIFIED, RANGE,
};
use http::{Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

/// The size of one read from an object's file, in bytes.
const READ_BYTES: usize = 128 * 1024;

/// The last second that an HTTP date can express, since 1970: the end of the year 9999. A file can
/// be dated later.
const HTTP_DATE_SECONDS_MAX: u64 = 253_402_300_799;

/// Answers with an object, or with the byte range that the `Range` header requests, if the
/// preconditions hold. If the URL addresses a generation, no other one is an answer. The HTTP server
/// omits the body for a HEAD, so a HEAD of an object whose content was discarded is answered, too.
pub(crate) async fn get(
    objects: Arc<Objects>,
    path: PathBuf,
    method: &Method,
    headers: &HeaderMap,
    addressed: Option<u64>,
) -> Result<Response<StoreBody>, StoreError> {
    let (path, metadata, file) = on_disk(move || {
        let (metadata, file) = objects.open_object(&path)?.ok_or(StoreError::NoSuchKey)?;
        Ok((path, metadata, file))
    })
    .await?;
    if addressed.is_some_and(|addressed| addressed != metadata.generation) {
        return Err(StoreError::NoSuchKey);
    }
    let modified = modified(metadata.generation);
    if conditions::evaluate(headers, &metadata, modified)? == Verdict::NotModified {
        let mut response = empty(StatusCode::NOT_MODIFIED);
        describe_all(response.headers_mut(), &metadata, &path)?;
        return Ok(response);
    }
    let total = metadata.content_length;
    let requested = match text(headers, RANGE.as_str()) {
        Some(range) if conditions::allows_range(headers, &metadata, modified)? => {
            byte_range(range, total)?
        }
        _ => None,
    };
    let bytes = requested.clone().unwrap_or(0..total);
    let length = bytes.end - bytes.start;
    let mut response = match file {
        Some(file) => Response::new(content(file, bytes, &path).await?),
        None if method == Method::HEAD => empty(StatusCode::OK),
        None => {
            let file = file_name(&path);
            return Err(StoreError::ContentDiscarded { file });
        }
    };
    describe_all(response.headers_mut(), &metadata, &path)?;
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    if let Some(range) = requested {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let (first, last) = (range.start, range.end - 1);
        let content_range = format!("bytes {first}-{last}/{total}");
        insert(response.headers_mut(), CONTENT_RANGE, &content_range)?;
    }
    Ok(response)
}

/// A part of an object's file.
async fn content(file: File, bytes: Range<u64>, path: &Path) -> Result<StoreBody, StoreError> {
    let mut file = tokio::fs::File::from_std(file);
    file.seek(io::SeekFrom::Start(bytes.start))
        .await
        .map_err(|error| StoreError::of_io(Access::Read, path, &error))?;
    let part = file.take(bytes.end - bytes.start);
    let stream = ReaderStream::with_capacity(part, READ_BYTES).map_ok(Frame::data);
    Ok(StreamBody::new(stream).boxed_unsync())
}

/// Adds the headers that describe an object to a reader.
fn describe_all(
    headers: &mut HeaderMap,
    metadata: &ObjectMetadata,
    path: &Path,
) -> Result<(), StoreError> {
    describe(headers, metadata)?;
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(path)));
    let modified = modified(metadata.generation);
    insert(headers, LAST_MODIFIED, &httpdate::fmt_http_date(modified))
}

/// When an object was written, or the last moment that an HTTP date can express.
fn modified(generation: u64) -> SystemTime {
    let since = Duration::from_micros(generation);
    UNIX_EPOCH + since.min(Duration::from_secs(HTTP_DATE_SECONDS_MAX))
}

/// Parses a `Range` header for an object of `length` bytes. `None` means the whole object: a
/// malformed header is ignored, and so are several ranges at once (RFC 9110, 14.2).
fn byte_range(value: &str, length: u64) -> Result<Option<Range<u64>>, StoreError> {
    let parsed = value.strip_prefix("bytes=").and_then(|range| {
        let (first, last) = range.trim().split_once('-')?;
        match (first.parse::<u64>().ok(), last.parse::<u64>().ok()) {
            (Some(first), Some(last)) if first <= last => {
                Some(first..last.saturating_add(1).min(length))
            }
            (Some(first), None) if last.is_empty() => Some(first..length),
            (None, Some(count)) if first.is_empty() => Some(length.saturating_sub(count)..length),
            _ => None,
        }
    });
    match parsed {
        Some(range) if range.start < range.end => Ok(Some(range)),
        Some(_) => Err(StoreError::InvalidRange),
        None => Ok(None),
    }
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(std::ffi::OsStr::to_str) {
        Some("tar") => "application/x-tar",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_generation_has_an_http_date() {
        for (generation, date) in [
            (1, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777_000_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (253_402_300_799_999_999, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (253_402_300_800_000_000, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(httpdate::fmt_http_date(modified(generation)), date);
        }
    }

    #[test]
    fn byte_ranges_follow_rfc_9110() {
        for (value, range) in [
            ("bytes=0-0", Ok(Some(0..1))),
            ("bytes=5-", Ok(Some(5..10))),
            ("bytes=-3", Ok(Some(7..10))),
            ("bytes=-30", Ok(Some(0..10))),
            ("bytes=8-99", Ok(Some(8..10))),
            ("bytes=10-", Err(StoreError::InvalidRange)),
            ("bytes=-0", Err(StoreError::InvalidRange)),
            ("bytes=5-2", Ok(None)),
            ("bytes=0-1,3-4", Ok(None)),
            ("lines=0-1", Ok(None)),
        ] {
            assert_eq!(byte_range(value, 10), range, "{value}");
        }
    }
}
