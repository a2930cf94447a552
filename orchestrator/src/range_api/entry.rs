//! [`Entry`]: a range as it is sent, with its headers. It is made once and then sent from the cache.

use super::coding::Coding;
use super::digests::{Digest, StoredBody};
use super::response::PLAIN_TEXT;
use crate::archive::ranges::StoredRange;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, CONTENT_ENCODING,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED, VARY,
};
use prefix_tar::protocol::etag::opaque;
use std::time::{Duration, UNIX_EPOCH};

/// How long caches may keep a range: a day. The public API says 31 days; a mirror may be replaced at any time.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=86400");

/// A padded body is different every time.
pub(super) const NOT_CACHED: HeaderValue = HeaderValue::from_static("no-store");

/// The request headers that change an answer.
const VARIES: HeaderValue = HeaderValue::from_static("Accept-Encoding, Add-Padding");

const EXPOSED: HeaderValue = HeaderValue::from_static("Content-MD5, ETag");

pub(super) const EVERY_ORIGIN: HeaderValue = HeaderValue::from_static("*");

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// What separates lines. None follows the last: clients split here and take every piece for a line.
const SEPARATOR: &[u8] = b"\r\n";

/// The last second that an HTTP date can name, the end of the year 9999, since 1970.
const HTTP_DATE_MAX: u64 = 253_402_300_799;

/// What an entry takes besides its body, in bytes: the headers, and what the cache needs.
const OVERHEAD_BYTES: usize = 1536;

/// A range in one coding.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) head: HeaderMap,
    pub(super) body: Bytes,
    /// Whether it is from the tar that the manifest lists.
    pub(super) is_listed: bool,
}

impl Entry {
    /// A range as it was stored. `digest_of` is given what is stored and what is sent of it.
    pub(super) fn of(
        range: StoredRange,
        digest_of: impl FnOnce(StoredBody, &[u8]) -> Digest,
    ) -> Self {
        let stored = StoredBody::of(&range);
        let mut body = range.body;
        while body.ends_with(SEPARATOR) {
            body.truncate(body.len() - SEPARATOR.len());
        }
        let md5 = digest_of(stored, &body);
        let mut head = shared_head();
        head.insert(CACHE_CONTROL, CACHE);
        // base64 and hex are always valid in a header.
        if let Ok(value) = HeaderValue::try_from(STANDARD.encode(md5)) {
            head.insert(CONTENT_MD5, value);
        }
        let etag = of_source(&range.etag)
            .or_else(|| HeaderValue::try_from(format!("\"{}\"", hex::encode(md5))).ok());
        if let Some(etag) = etag {
            head.insert(ETAG, etag);
        }
        if let Some(modified) = http_date(range.modified_seconds) {
            head.insert(LAST_MODIFIED, modified);
        }
        Self {
            head,
            body,
            is_listed: range.is_listed,
        }
    }

    /// The entry in another coding, in which it has this body. Its ETag is weak: the content is the same, the bytes are
    /// not.
    pub(super) fn in_coding(&self, coding: Coding, body: Bytes) -> Self {
        let mut head = self.head.clone();
        if let Some(name) = coding.name() {
            head.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        if let Some(etag) = head.get_mut(ETAG)
            && !etag.as_bytes().starts_with(b"W/")
            && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat())
        {
            *etag = weak;
        }
        Self {
            head,
            body,
            is_listed: self.is_listed,
        }
    }

    /// The ETag, in quotes.
    pub(super) fn etag(&self) -> &str {
        let etag = self.head.get(ETAG).and_then(|etag| etag.to_str().ok());
        etag.unwrap_or_default()
    }

    /// The head of the answer to a client that has the body.
    pub(super) fn not_modified_head(&self) -> HeaderMap {
        let mut head = self.head.clone();
        for of_body in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_MD5] {
            head.remove(of_body);
        }
        head
    }

    /// About how much memory it takes, in bytes.
    pub(super) fn weight(&self) -> u64 {
        (self.body.len() + OVERHEAD_BYTES) as u64
    }
}

/// What every answer with a range has.
pub(super) fn shared_head() -> HeaderMap {
    let mut head = HeaderMap::with_capacity(16);
    head.insert(CONTENT_TYPE, PLAIN_TEXT);
    head.insert(VARY, VARIES);
    head.insert(ACCESS_CONTROL_ALLOW_ORIGIN, EVERY_ORIGIN);
    head.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    head
}

/// The source's ETag, if it is one.
fn of_source(etag: &str) -> Option<HeaderValue> {
    let inside = opaque(etag).strip_prefix('"')?.strip_suffix('"')?;
    // A comma would split it in the lists that clients send.
    inside
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b','))
        .then(|| HeaderValue::from_str(etag).ok())
        .flatten()
}

/// A date for a header; `None` for 0, which means that the date is not known.
fn http_date(seconds: u64) -> Option<HeaderValue> {
    if !(1..=HTTP_DATE_MAX).contains(&seconds) {
        return None;
    }
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    HeaderValue::try_from(httpdate::fmt_http_date(time)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prefix_tar::protocol::crc32c::Crc32c;

    const LINES: &str =
        "0018A45C4D1DEF81644B54AB7F969B88D65:1\r\n00D4F6E8FA6EECAD2A3AA415EEC418D38EC:2";

    fn entry(body: &str, modified_seconds: u64, etag: &str) -> Entry {
        let stored = StoredRange {
            body: Bytes::copy_from_slice(body.as_bytes()),
            modified_seconds,
            etag: etag.to_owned(),
            crc32c: Crc32c(0),
            is_listed: true,
        };
        Entry::of(stored, |_, body| {
            <md5::Md5 as md5::Digest>::digest(body).into()
        })
    }

    fn header<'entry>(entry: &'entry Entry, name: &str) -> Option<&'entry str> {
        entry
            .head
            .get(name)
            .map(|value| value.to_str().expect("text"))
    }

    #[test]
    fn a_body_is_as_stored_and_never_ends_with_a_line_break() {
        for stored in [
            LINES.to_owned(),
            format!("{LINES}\r\n"),
            format!("{LINES}\r\n\r\n"),
        ] {
            assert_eq!(entry(&stored, 0, "").body, LINES);
        }
        assert_eq!(entry("\r\n", 0, "").body, "");
        assert_eq!(entry("", 0, "").body, "");
    }

    #[test]
    fn the_headers_are_those_of_the_public_api() {
        let entry = entry(LINES, 1_767_225_600, "\"0x8DC\"");
        for (name, value) in [
            ("content-type", "text/plain"),
            ("etag", "\"0x8DC\""),
            ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
            ("cache-control", "public, max-age=86400"),
            ("vary", "Accept-Encoding, Add-Padding"),
            ("access-control-allow-origin", "*"),
            ("access-control-expose-headers", "Content-MD5, ETag"),
            ("content-md5", "IkeqwJDQ75pAm+WD0rbXag=="),
        ] {
            assert_eq!(header(&entry, name), Some(value), "{name}");
        }
        assert_eq!(header(&entry, "content-encoding"), None);
    }

    #[test]
    fn a_source_without_an_etag_gets_one_that_names_the_bytes() {
        let first = entry(LINES, 0, "");
        assert_eq!(header(&first, "last-modified"), None);
        let etag = header(&first, "etag").expect("an ETag");
        assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() == 34);
        assert_eq!(header(&entry(LINES, 5, ""), "etag"), Some(etag));
        assert_ne!(header(&entry("", 0, ""), "etag"), Some(etag));
        for invalid in [
            "x",
            "\"",
            "\"a\"b\"",
            "\"a,b\"",
            "\"a b\"",
            "\"\u{e4}\"",
            "w/\"a\"",
        ] {
            assert_eq!(
                header(&entry(LINES, 0, invalid), "etag"),
                Some(etag),
                "{invalid}"
            );
        }
    }

    #[test]
    fn a_compressed_body_has_a_weak_etag_and_the_digest_of_the_plain_one() {
        let plain = entry(LINES, 0, "\"a\"");
        let weak = entry(LINES, 0, "W/\"a\"");
        for coding in [Coding::Gzip, Coding::Brotli] {
            let compressed = plain.in_coding(coding, Bytes::from_static(b"compressed"));
            assert_eq!(compressed.body, "compressed");
            assert_eq!(header(&compressed, "content-encoding"), coding.name());
            assert_eq!(compressed.etag(), "W/\"a\"");
            assert_eq!(weak.in_coding(coding, Bytes::new()).etag(), "W/\"a\"");
            assert_eq!(
                header(&compressed, "content-md5"),
                header(&plain, "content-md5")
            );
        }
    }

    #[test]
    fn the_answer_that_nothing_has_changed_has_no_header_of_a_body() {
        let entry = entry(LINES, 0, "\"a\"");
        let head = entry
            .in_coding(Coding::Gzip, Bytes::new())
            .not_modified_head();
        for absent in ["content-type", "content-encoding", "content-md5"] {
            assert!(!head.contains_key(absent), "{absent}");
        }
        assert_eq!(head["etag"], "W/\"a\"");
        assert_eq!(head["vary"], "Accept-Encoding, Add-Padding");
    }
}
