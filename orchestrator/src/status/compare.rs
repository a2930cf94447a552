//! Compares a stored range with what its source states of it, or with its body.

use crate::archive::ranges::StoredRange;
use prefix_tar::engine::content_md5::Md5Check;
use prefix_tar::engine::head::Head;
use prefix_tar::protocol::etag::opaque;
use schemars::JsonSchema;
use serde::Serialize;

/// What separates lines. One may follow the last line of a body, or not: a server that repeats ranges may leave it out.
const LINE_END: &[u8] = b"\r\n";

/// What shows that a range is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Its ETag.
    Etag,
    /// The MD5 that the source states.
    ContentMd5,
    /// The time of its last change.
    LastModified,
    /// Its body.
    Body,
}

/// What the head of an answer shows to be the same. If nothing does, the body decides: ETags change with a server, and
/// dates with a copy.
pub fn same_by_head(stored: &StoredRange, head: &Head) -> Option<Evidence> {
    let have_etags = !stored.etag.is_empty() && !head.etag.is_empty();
    if have_etags && opaque(&stored.etag) == opaque(&head.etag) {
        return Some(Evidence::Etag);
    }
    if let Some(stated) = head.content_md5 {
        let mut check = Md5Check::new(stated);
        check.push(&stored.body);
        return check.matches().then_some(Evidence::ContentMd5);
    }
    // With ETags that differ, the same date means nothing: it has a resolution of a second.
    let is_same_date =
        stored.modified_seconds != 0 && stored.modified_seconds == head.modified_seconds;
    (!have_etags && is_same_date).then_some(Evidence::LastModified)
}

/// Whether two valid bodies have the same lines.
pub fn is_same_body(stored: &[u8], served: &[u8]) -> bool {
    let lines = |body: &'_ [u8]| body.strip_suffix(LINE_END).map_or(body.len(), <[u8]>::len);
    stored.get(..lines(stored)) == served.get(..lines(served))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use md5::{Digest as _, Md5};
    use prefix_tar::protocol::crc32c::Crc32c;
    use proptest::prelude::*;

    const BODY: &str = "0018A45C4D1DEF81644B54AB7F969B88D65:10";
    const OTHER: &str = "0018A45C4D1DEF81644B54AB7F969B88D65:11";

    fn stored(etag: &str, modified_seconds: u64) -> StoredRange {
        StoredRange {
            body: Bytes::from_static(BODY.as_bytes()),
            modified_seconds,
            etag: etag.to_owned(),
            crc32c: Crc32c(crc32c::crc32c(BODY.as_bytes())),
            is_listed: true,
        }
    }

    fn head(etag: &str, md5_of: Option<&str>, modified_seconds: u64) -> Head {
        let md5 = md5_of.map(|body| STANDARD.encode(Md5::digest(body)));
        Head {
            content_length: None,
            is_gzip: false,
            content_md5: md5.map(|md5| md5.parse().expect("an MD5")),
            etag: etag.to_owned(),
            modified_seconds,
        }
    }

    #[test]
    fn the_etag_decides_then_the_md5_then_the_date() {
        use Evidence::{ContentMd5, Etag, LastModified};
        for (stored, head, expected) in [
            (stored("\"a\"", 5), head("\"a\"", None, 9), Some(Etag)),
            (stored("\"a\"", 5), head("W/\"a\"", None, 9), Some(Etag)),
            (
                stored("W/\"a\"", 0),
                head("\"a\"", Some(OTHER), 0),
                Some(Etag),
            ),
            (stored("W/\"a\"", 0), head("W/\"a\"", None, 0), Some(Etag)),
            // ETags that differ, or are not there.
            (stored("\"a\"", 5), head("\"b\"", None, 5), None),
            (stored("\"a\"", 5), head("\"A\"", None, 5), None),
            (
                stored("\"a\"", 5),
                head("\"b\"", Some(BODY), 6),
                Some(ContentMd5),
            ),
            (
                stored("", 5),
                head("\"b\"", Some(BODY), 6),
                Some(ContentMd5),
            ),
            (stored("\"a\"", 5), head("", Some(OTHER), 5), None),
            (stored("\"a\"", 5), head("", None, 5), Some(LastModified)),
            (stored("", 5), head("\"b\"", None, 5), Some(LastModified)),
            (stored("", 5), head("", None, 6), None),
            // Nothing is stated, on both sides.
            (stored("", 0), head("", None, 0), None),
        ] {
            assert_eq!(
                same_by_head(&stored, &head),
                expected,
                "{stored:?} {head:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn etags_are_the_same_whatever_their_strength(etag in "\"[!#-~]{0,20}\"", other in "\"[!#-~]{0,20}\"") {
            let forms = |etag: &str| [etag.to_owned(), format!("W/{etag}")];
            for ours in forms(&etag) {
                for theirs in forms(&etag) {
                    let found = same_by_head(&stored(&ours, 0), &head(&theirs, None, 0));
                    prop_assert_eq!(found, Some(Evidence::Etag));
                }
                for theirs in forms(&other) {
                    let found = same_by_head(&stored(&ours, 0), &head(&theirs, None, 0));
                    prop_assert_eq!(found.is_some(), etag == other);
                }
            }
        }

        #[test]
        fn bodies_are_the_same_if_their_lines_are(
            ours in proptest::collection::vec("[0-9A-F]{1,3}:[1-9]", 1..4),
            theirs in proptest::collection::vec("[0-9A-F]{1,3}:[1-9]", 1..4),
            ends in any::<[bool; 2]>(),
        ) {
            let body = |lines: &[String], ends| {
                lines.join("\r\n") + if ends { "\r\n" } else { "" }
            };
            let (our_body, their_body) = (body(&ours, ends[0]), body(&theirs, ends[1]));
            let found = is_same_body(our_body.as_bytes(), their_body.as_bytes());
            prop_assert_eq!(found, ours == theirs);
            let again = body(&ours, ends[1]);
            prop_assert!(is_same_body(our_body.as_bytes(), again.as_bytes()));
        }
    }
}
