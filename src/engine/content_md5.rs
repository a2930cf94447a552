//! Compares a body with the Content-MD5 of its response (RFC 1864).
//!
//! The digest is of the decoded body: a proxy that compresses an answer keeps its source's header.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};

/// Bytes of an MD5.
const MD5_BYTES: usize = 16;

/// The MD5 that a response states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentMd5([u8; MD5_BYTES]);

/// The text is not the base64 of 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not the base64 of 16 bytes")]
pub struct NotMd5;

impl std::str::FromStr for ContentMd5 {
    type Err = NotMd5;

    fn from_str(text: &str) -> Result<Self, NotMd5> {
        let bytes = STANDARD.decode(text).map_err(|_| NotMd5)?;
        bytes.try_into().map(Self).map_err(|_| NotMd5)
    }
}

/// Computes the MD5 of a body, piece by piece.
///
/// ```
/// use prefix_tar::engine::content_md5::Md5Check;
/// let mut check = Md5Check::new("CY9rzUYh03PK3k6DJie09g==".parse().unwrap());
/// check.push(b"te");
/// check.push(b"st");
/// assert!(check.matches());
/// ```
#[derive(Debug)]
pub struct Md5Check {
    stated: ContentMd5,
    digest: Md5,
}

impl Md5Check {
    /// A check of a new body, which should have this MD5.
    pub fn new(stated: ContentMd5) -> Self {
        Self {
            stated,
            digest: Md5::new(),
        }
    }

    /// Adds the next piece of the body.
    pub fn push(&mut self, piece: &[u8]) {
        self.digest.update(piece);
    }

    /// Whether the body has the stated MD5.
    pub fn matches(self) -> bool {
        self.digest.finalize().as_slice() == self.stated.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(text: &str, pieces: &[&[u8]]) -> bool {
        let mut check = Md5Check::new(text.parse().expect("an MD5"));
        pieces.iter().for_each(|piece| check.push(piece));
        check.matches()
    }

    #[test]
    fn the_published_digests_match_and_others_do_not() {
        // RFC 1321, appendix A.5.
        for (text, body) in [
            ("1B2M2Y8AsgTpgAmY7PhCfg==", ""),
            ("DMF1ucDxtqgxw5niaXcmYQ==", "a"),
            ("+WtpfXy3k41SWi8xqvFh0A==", "message digest"),
        ] {
            assert!(matches(text, &[body.as_bytes()]), "{body}");
            assert!(!matches(text, &[body.as_bytes(), b"\r\n"]), "{body}");
        }
    }

    #[test]
    fn what_is_not_the_base64_of_16_bytes_is_rejected() {
        for text in [
            "",
            "CY9rzUYh03PK3k6DJie09g",
            "CY9rzUYh03PK3k6DJie09g==,CY9rzUYh03PK3k6DJie09g==",
            "098f6bcd4621d373cade4e832627b4f6",
            "CY9rzUYh03PK3k6DJie0",
            "CY9rzUYh03PK3k6DJie09gA=",
        ] {
            assert_eq!(text.parse::<ContentMd5>(), Err(NotMd5), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_division_of_a_body_does_not_matter(
            body in proptest::collection::vec(any::<u8>(), 1..2000),
            piece_bytes in 1_usize..300,
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
        ) {
            let text = STANDARD.encode(Md5::digest(&body));
            let pieces: Vec<&[u8]> = body.chunks(piece_bytes).collect();
            prop_assert!(matches(&text, &pieces));
            let mut damaged = body.clone();
            let at = at.index(damaged.len());
            damaged[at] ^= flip;
            prop_assert!(!matches(&text, &[&damaged]));
        }
    }
}
