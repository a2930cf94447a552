//! Reads and writes single headers.

use crate::error::StoreError;
use crate::objects::ObjectMetadata;
use http::header::{ETAG, HeaderMap, HeaderName, HeaderValue};

/// An object's checksums.
pub(crate) const HASH: HeaderName = HeaderName::from_static("x-goog-hash");

const GENERATION: HeaderName = HeaderName::from_static("x-goog-generation");
const STORED_LENGTH: HeaderName = HeaderName::from_static("x-goog-stored-content-length");

/// The text of a header, or `None` if it is absent or not visible ASCII.
pub(crate) fn text<'headers>(headers: &'headers HeaderMap, name: &str) -> Option<&'headers str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The text of a header that may occur once.
///
/// # Errors
/// It occurs several times, or is not visible ASCII. Ignoring it would be wrong.
pub(crate) fn single<'headers>(
    headers: &'headers HeaderMap,
    name: &str,
) -> Result<Option<&'headers str>, StoreError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(StoreError::ExcessHeaderValues);
    }
    value
        .map(HeaderValue::to_str)
        .transpose()
        .map_err(|_| StoreError::InvalidArgument("A header is not ASCII."))
}

/// Parses a generation: decimal digits without a sign.
pub(crate) fn generation(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
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
