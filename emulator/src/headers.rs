//! Reads and writes the headers that PUT, GET and DELETE share.

use crate::error::StoreError;
use crate::objects::{GenerationMatch, ObjectMetadata};
use http::header::{ETAG, HeaderMap, HeaderName, HeaderValue};

/// An object's checksums.
pub(crate) const HASH: HeaderName = HeaderName::from_static("x-goog-hash");

const GENERATION: HeaderName = HeaderName::from_static("x-goog-generation");
const STORED_LENGTH: HeaderName = HeaderName::from_static("x-goog-stored-content-length");

/// The text of a header, or `None` if it is absent or not visible ASCII.
pub(crate) fn text<'headers>(headers: &'headers HeaderMap, name: &str) -> Option<&'headers str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The precondition in `x-goog-if-generation-match`.
pub(crate) fn generation_match(headers: &HeaderMap) -> Result<GenerationMatch, StoreError> {
    match text(headers, "x-goog-if-generation-match").map(str::parse) {
        None => Ok(GenerationMatch::Any),
        Some(Ok(0)) => Ok(GenerationMatch::Absent),
        Some(Ok(generation)) => Ok(GenerationMatch::Is(generation)),
        Some(Err(_)) => Err(StoreError::InvalidArgument(
            "x-goog-if-generation-match must be a generation.",
        )),
    }
}

/// Adds the headers that describe an object.
pub(crate) fn describe(
    headers: &mut HeaderMap,
    metadata: &ObjectMetadata,
) -> Result<(), StoreError> {
    headers.insert(GENERATION, metadata.generation.into());
    headers.insert(STORED_LENGTH, metadata.content_length.into());
    insert(headers, HASH, &format!("crc32c={}", metadata.crc32c))?;
    insert(headers, ETAG, &metadata.etag())
}

/// Sets a header to a text.
pub(crate) fn insert(
    headers: &mut HeaderMap,
    name: HeaderName,
    value: &str,
) -> Result<(), StoreError> {
    let value = HeaderValue::from_str(value).map_err(|_| StoreError::InternalError)?;
    headers.insert(name, value);
    Ok(())
}
