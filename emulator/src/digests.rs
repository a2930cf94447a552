//! Reads the checksums that a client declares for its upload, and compares them with what arrived.

use crate::checksum::Crc32c;
use crate::error::StoreError;
use crate::headers::HASH;
use crate::objects::PartialObject;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use http::header::HeaderMap;

/// The checksums in `x-goog-hash` and `Content-MD5`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeclaredDigests {
    crc32c: Option<Crc32c>,
    md5: Option<[u8; 16]>,
}

impl DeclaredDigests {
    /// The checksums that these headers declare. `x-goog-hash` holds one or a list of them:
    /// `crc32c=AAAAAA==,md5=...`.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, StoreError> {
        let mut declared = Self::default();
        for value in headers.get_all("content-md5") {
            declared.add("md5", text(value)?)?;
        }
        for value in headers.get_all(HASH) {
            for part in text(value)?.split(',') {
                let (algorithm, digest) = part.split_once('=').ok_or(StoreError::InvalidDigest)?;
                declared.add(algorithm.trim(), digest.trim())?;
            }
        }
        Ok(declared)
    }

    fn add(&mut self, algorithm: &str, digest: &str) -> Result<(), StoreError> {
        match algorithm {
            "crc32c" => set_once(&mut self.crc32c, Crc32c::parse(digest)),
            "md5" => {
                let bytes = BASE64_STANDARD.decode(digest).ok();
                set_once(&mut self.md5, bytes.and_then(|bytes| bytes.try_into().ok()))
            }
            _ => Err(StoreError::InvalidDigest),
        }
    }

    /// Makes an upload compute what is to be compared.
    pub(crate) fn prepare(&self, partial: &mut PartialObject) {
        // The CRC32C is computed anyway.
        if self.md5.is_some() {
            partial.compute_md5();
        }
    }

    /// Compares the checksums with those of a complete upload.
    pub(crate) fn check(&self, partial: &PartialObject) -> Result<(), StoreError> {
        if self.crc32c.is_some_and(|sent| sent != partial.crc32c()) {
            return Err(StoreError::BadDigest("CRC32C"));
        }
        if self.md5.is_some() && self.md5 != partial.md5() {
            return Err(StoreError::BadDigest("MD5"));
        }
        Ok(())
    }
}

fn text(value: &HeaderValue) -> Result<&str, StoreError> {
    value.to_str().map_err(|_| StoreError::InvalidDigest)
}

/// Sets a checksum that parsed. Two that differ cannot both be right.
fn set_once<Digest: PartialEq>(
    slot: &mut Option<Digest>,
    parsed: Option<Digest>,
) -> Result<(), StoreError> {
    let is_new = slot.is_none();
    if parsed.is_none() || (!is_new && *slot != parsed) {
        return Err(StoreError::InvalidDigest);
    }
    *slot = parsed;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    const CRC32C: Crc32c = Crc32c(0xC994_65AA);
    const MD5: &str = "XrY7u+Ae7tCTyyK7j1rNww==";

    fn declared(headers: &[(&str, &str)]) -> Result<DeclaredDigests, StoreError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a name");
            map.append(name, value.parse().expect("a value"));
        }
        DeclaredDigests::of(&map)
    }

    #[test]
    fn checksums_are_found_in_one_header_or_several() {
        let md5 = BASE64_STANDARD.decode(MD5).expect("base64");
        let md5 = Some(md5.try_into().expect("16 bytes"));
        let crc32c = Some(CRC32C);
        let both = &format!("crc32c=yZRlqg==, md5={MD5}");
        for (headers, expected) in [
            (
                vec![],
                DeclaredDigests {
                    crc32c: None,
                    md5: None,
                },
            ),
            (
                vec![("x-goog-hash", &both[..])],
                DeclaredDigests { crc32c, md5 },
            ),
            (
                vec![("content-md5", MD5), ("x-goog-hash", "crc32c=yZRlqg==")],
                DeclaredDigests { crc32c, md5 },
            ),
            (
                vec![("content-md5", MD5), ("x-goog-hash", &both[..])],
                DeclaredDigests { crc32c, md5 },
            ),
        ] {
            assert_eq!(declared(&headers), Ok(expected), "{headers:?}");
        }
    }

    #[test]
    fn a_malformed_or_contradictory_checksum_is_refused() {
        for headers in [
            vec![("content-md5", "XrY7u+Ae7tCTyyK7j1rNww")],
            vec![("content-md5", "")],
            vec![("content-md5", "yZRlqg==")],
            vec![("x-goog-hash", "crc32c=yZRl")],
            vec![("x-goog-hash", "crc32c=yZRlqg==,")],
            vec![("x-goog-hash", "md5=yZRlqg==")],
            vec![("x-goog-hash", "sha1=yZRlqg==")],
            vec![("x-goog-hash", "yZRlqg==")],
            vec![("x-goog-hash", "crc32c=yZRlqg==,crc32c=AAAAAA==")],
            vec![
                ("content-md5", MD5),
                ("content-md5", "AAAAAAAAAAAAAAAAAAAAAA=="),
            ],
        ] {
            assert_eq!(
                declared(&headers),
                Err(StoreError::InvalidDigest),
                "{headers:?}"
            );
        }
    }
}
