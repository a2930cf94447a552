//! Interprets the head of a response that carries a range: the length and the encoding of its body,
//! and what shows that the body is complete.
//!
//! A body that only the end of its connection ends (RFC 9112, 6.3, rule 8) may have been cut
//! anywhere, and a range that was cut after a line or inside its last count is still well-formed. So
//! something must show that the body is complete: its length, its MD5, its chunks or the end of its
//! HTTP/2 stream, or the trailer of its gzip encoding.

use crate::engine::content_md5::ContentMd5;
use crate::limits::{ETAG_BYTES_MAX, RANGE_WIRE_BYTES_MAX};
use std::time::UNIX_EPOCH;

const CONTENT_ENCODING: &str = "content-encoding";
const CONTENT_LENGTH: &str = "content-length";
const CONTENT_MD5: &str = "content-md5";
const CONTENT_RANGE: &str = "content-range";
const ETAG: &str = "etag";
const LAST_MODIFIED: &str = "last-modified";

/// The parts of a response's head that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The length of the body as received, in bytes; `None` if the response does not state it.
    pub content_length: Option<usize>,
    /// Whether the body is encoded in gzip.
    pub is_gzip: bool,
    /// The MD5 of the decoded body, if the response states one.
    pub content_md5: Option<ContentMd5>,
    /// The ETag; empty if there is none, or if it is too long for the report.
    pub etag: String,
    /// Last-Modified as Unix time; 0 without one.
    pub modified_seconds: u64,
}

/// What ends a body that has no Content-Length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// A last chunk, or the end of an HTTP/2 stream. Without it, reading the body fails.
    Marked,
    /// The end of its connection.
    Connection,
    /// The host does not say.
    Unknown,
}

/// Why a response does not carry a whole range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// The body is longer than a range may be.
    #[error("its body is longer than {RANGE_WIRE_BYTES_MAX} bytes")]
    TooLarge,
    /// A header has another form than its definition.
    #[error("its {0} is malformed")]
    Malformed(&'static str),
    /// A header occurs several times, with different values.
    #[error("it has several values of {0}, which differ")]
    Differing(&'static str),
    /// A Content-Encoding other than gzip.
    #[error("its content-encoding was not requested")]
    Encoding,
    /// It has a Content-Range.
    #[error("it has a Content-Range, so it is only a part of the range")]
    Partial,
    /// Only the end of the connection ends the body.
    #[error("its body has neither a Content-Length nor chunks, so it may have been cut off")]
    Unframed,
    /// The body has no Content-Length, and the host does not say what ends it.
    #[error("its body has no Content-Length, so this host cannot tell whether it is complete")]
    LengthUnknown,
}

impl Head {
    /// Reads the head of a response. `header` returns all values of a header.
    ///
    /// # Errors
    /// The head shows that the response does not carry a whole range.
    pub fn read(mut header: impl FnMut(&'static str) -> Vec<Vec<u8>>) -> Result<Self, HeadFault> {
        let content_length = content_length(&header(CONTENT_LENGTH))?;
        if !header(CONTENT_RANGE).is_empty() {
            return Err(HeadFault::Partial);
        }
        let is_gzip = is_gzip(&header(CONTENT_ENCODING))?;
        let content_md5 = content_md5(&header(CONTENT_MD5))?;
        let modified = first_text(header(LAST_MODIFIED));
        Ok(Self {
            content_length,
            is_gzip,
            content_md5,
            etag: first_text(header(ETAG))
                .filter(|etag| etag.len() <= ETAG_BYTES_MAX)
                .unwrap_or_default(),
            modified_seconds: modified
                .and_then(|text| httpdate::parse_http_date(&text).ok())
                .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
                .map_or(0, |since| since.as_secs()),
        })
    }

    /// Checks that something shows whether a body is complete, apart from its encoding. `end` is
    /// called only if the head does not.
    ///
    /// # Errors
    /// Nothing does.
    pub fn check_framing(&self, end: impl FnOnce() -> BodyEnd) -> Result<(), HeadFault> {
        if self.content_length.is_some() || self.content_md5.is_some() {
            return Ok(());
        }
        match end() {
            BodyEnd::Marked => Ok(()),
            BodyEnd::Connection => Err(HeadFault::Unframed),
            BodyEnd::Unknown => Err(HeadFault::LengthUnknown),
        }
    }
}

/// The elements of a list header, over all its lines.
fn elements(values: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    values
        .iter()
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// The length that all values state. A proxy may repeat it, but not change it (RFC 9110, 8.6).
fn content_length(values: &[Vec<u8>]) -> Result<Option<usize>, HeadFault> {
    let mut length = None;
    for text in elements(values) {
        let text = str::from_utf8(text)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or(HeadFault::Malformed(CONTENT_LENGTH))?;
        let stated = text.parse::<u64>();
        let stated = stated.map_err(|_| HeadFault::Malformed(CONTENT_LENGTH))?;
        if length.is_some_and(|length| length != stated) {
            return Err(HeadFault::Differing(CONTENT_LENGTH));
        }
        length = Some(stated);
    }
    match length.map(usize::try_from) {
        None => Ok(None),
        Some(Ok(bytes)) if bytes <= RANGE_WIRE_BYTES_MAX => Ok(Some(bytes)),
        Some(_) => Err(HeadFault::TooLarge),
    }
}

/// Whether the body has one encoding, gzip. Names of encodings have no case (RFC 9110, 8.4.1).
fn is_gzip(values: &[Vec<u8>]) -> Result<bool, HeadFault> {
    let is = |encoding: &[u8], name: &[u8]| encoding.eq_ignore_ascii_case(name);
    let mut encodings =
        elements(values).filter(|encoding| !encoding.is_empty() && !is(encoding, b"identity"));
    match (encodings.next(), encodings.next()) {
        (None, _) => Ok(false),
        (Some(encoding), None) if is(encoding, b"gzip") || is(encoding, b"x-gzip") => Ok(true),
        _ => Err(HeadFault::Encoding),
    }
}

fn content_md5(values: &[Vec<u8>]) -> Result<Option<ContentMd5>, HeadFault> {
    let Some((value, others)) = values.split_first() else {
        return Ok(None);
    };
    if others.iter().any(|other| other != value) {
        return Err(HeadFault::Differing(CONTENT_MD5));
    }
    let text = str::from_utf8(value).unwrap_or_default();
    let digest = text.trim().parse();
    digest
        .map(Some)
        .map_err(|_| HeadFault::Malformed(CONTENT_MD5))
}

/// The first value, if it is UTF-8.
fn first_text(values: Vec<Vec<u8>>) -> Option<String> {
    values
        .into_iter()
        .next()
        .and_then(|value| String::from_utf8(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: &str = "CY9rzUYh03PK3k6DJie09g==";

    fn head(headers: &[(&str, &str)]) -> Result<Head, HeadFault> {
        Head::read(|name| {
            let named = headers.iter().filter(|(header, _)| *header == name);
            named.map(|(_, value)| value.as_bytes().to_vec()).collect()
        })
    }

    #[test]
    fn a_head_without_headers_states_nothing() {
        let empty = Head {
            content_length: None,
            is_gzip: false,
            content_md5: None,
            etag: String::new(),
            modified_seconds: 0,
        };
        assert_eq!(head(&[]), Ok(empty.clone()));
        // Those that do not matter for the data are ignored if they are malformed.
        let longest = "e".repeat(ETAG_BYTES_MAX);
        let longer = "e".repeat(ETAG_BYTES_MAX + 1);
        let ignored = [(ETAG, longer.as_str()), (LAST_MODIFIED, "today")];
        assert_eq!(head(&ignored), Ok(empty.clone()));
        let stated = [
            (ETAG, longest.as_str()),
            (LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT"),
        ];
        let stated_head = Head {
            etag: longest.clone(),
            modified_seconds: 1_767_225_600,
            ..empty
        };
        assert_eq!(head(&stated), Ok(stated_head));
    }

    #[test]
    fn one_content_length_is_read_however_often_it_is_stated() {
        let length = |values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|text| (CONTENT_LENGTH, *text)).collect();
            head(&headers).map(|head| head.content_length)
        };
        assert_eq!(length(&["0"]), Ok(Some(0)));
        assert_eq!(length(&["262144"]), Ok(Some(RANGE_WIRE_BYTES_MAX)));
        assert_eq!(length(&["12", "12"]), Ok(Some(12)));
        assert_eq!(length(&["12, 12 ", "012"]), Ok(Some(12)));
        for values in [&["12", "13"][..], &["12, 13"], &["12", "12,1"]] {
            let differing = Err(HeadFault::Differing(CONTENT_LENGTH));
            assert_eq!(length(values), differing, "{values:?}");
        }
        for value in ["", "-1", "+1", "1 2", "12,", "0x1", "99999999999999999999"] {
            let malformed = Err(HeadFault::Malformed(CONTENT_LENGTH));
            assert_eq!(length(&[value]), malformed, "{value}");
        }
        for value in ["262145", "18446744073709551615"] {
            assert_eq!(length(&[value]), Err(HeadFault::TooLarge), "{value}");
        }
    }

    #[test]
    fn gzip_in_any_case_is_the_only_encoding() {
        let encoding = |values: &[&str]| {
            let headers: Vec<_> = values
                .iter()
                .map(|text| (CONTENT_ENCODING, *text))
                .collect();
            head(&headers).map(|head| head.is_gzip)
        };
        for values in [
            &["gzip"][..],
            &["GZIP"],
            &["X-Gzip"],
            &["identity", " Gzip"],
        ] {
            assert_eq!(encoding(values), Ok(true), "{values:?}");
        }
        for values in [&[""][..], &["identity"], &["Identity, identity"]] {
            assert_eq!(encoding(values), Ok(false), "{values:?}");
        }
        for values in [&["br"][..], &["gzip, gzip"], &["gzip", "br"], &["gzipped"]] {
            assert_eq!(encoding(values), Err(HeadFault::Encoding), "{values:?}");
        }
    }

    #[test]
    fn a_content_md5_is_read_and_a_malformed_one_is_named() {
        let md5 = |values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|text| (CONTENT_MD5, *text)).collect();
            head(&headers).map(|head| head.content_md5)
        };
        let read = Ok(Some(MD5.parse().expect("an MD5")));
        assert_eq!(md5(&[MD5]), read);
        assert_eq!(md5(&[MD5, MD5]), read);
        assert_eq!(md5(&[]), Ok(None));
        for value in ["", "none", "CY9rzUYh03PK3k6DJie09g"] {
            let malformed = Err(HeadFault::Malformed(CONTENT_MD5));
            assert_eq!(md5(&[value]), malformed, "{value}");
        }
        let differing = md5(&[MD5, "1B2M2Y8AsgTpgAmY7PhCfg=="]);
        assert_eq!(differing, Err(HeadFault::Differing(CONTENT_MD5)));
    }

    #[test]
    fn a_response_with_a_content_range_is_partial() {
        for value in ["bytes 0-99/75000", "bytes 0-74999/75000", ""] {
            let headers = [(CONTENT_RANGE, value), (CONTENT_LENGTH, "75000")];
            assert_eq!(head(&headers), Err(HeadFault::Partial), "{value}");
        }
    }

    #[test]
    fn a_length_or_an_md5_or_what_ends_the_body_shows_that_it_is_complete() {
        let framing = |headers: &[_], end| head(headers).expect("a head").check_framing(|| end);
        for headers in [[(CONTENT_LENGTH, "5")], [(CONTENT_MD5, MD5)]] {
            for end in [BodyEnd::Marked, BodyEnd::Connection, BodyEnd::Unknown] {
                assert_eq!(framing(&headers, end), Ok(()));
            }
        }
        assert_eq!(framing(&[], BodyEnd::Marked), Ok(()));
        let unframed = framing(&[], BodyEnd::Connection);
        assert_eq!(unframed, Err(HeadFault::Unframed));
        let unknown = framing(&[], BodyEnd::Unknown);
        assert_eq!(unknown, Err(HeadFault::LengthUnknown));
    }
}
