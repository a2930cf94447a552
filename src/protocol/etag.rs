//! Compares ETags weakly (RFC 9110, 8.8.3.2): a cache that compresses makes a strong ETag weak.

/// An ETag without its mark of weakness. Two ETags name the same content if this is the same of both.
///
/// ```
/// use prefix_tar::protocol::etag::opaque;
/// assert_eq!(opaque("W/\"a\""), opaque("\"a\""));
/// ```
pub fn opaque(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}
