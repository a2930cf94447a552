//! What a store's answer says, whoever asked: the checksum in its headers, the code of its error, and whether it may
//! be another at the next attempt. Reading the answer is left to who asked.

use crate::job::Crc32c;

/// Finds the CRC32C in the values of a store's `x-goog-hash` headers, which come one by one or as a list:
/// `crc32c=AAAAAA==,md5=...`.
pub fn crc32c_of_goog_hash<'value>(
    values: impl IntoIterator<Item = &'value str>,
) -> Option<Crc32c> {
    values
        .into_iter()
        .flat_map(|value| value.split(','))
        .find_map(|part| part.trim().strip_prefix("crc32c="))
        .and_then(|text| text.parse().ok())
}

/// The `<Code>` of a store's XML error document, where it has one.
pub fn error_code(document: &str) -> Option<&str> {
    let (_, rest) = document.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_code.then_some(code)
}

/// Whether a status may be another one at the next attempt: 408, 429 and the server's own errors, but for
/// 507: a full disk stays full. So it is of a source, too.
pub const fn is_passing_status(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=506 | 508..=599)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_found_in_either_form_of_the_header() {
        let expected = Some(Crc32c(0xC994_65AA));
        assert_eq!(
            crc32c_of_goog_hash(["crc32c=yZRlqg==,md5=XrY7u+Ae7tCTyyK7j1rNww=="]),
            expected
        );
        assert_eq!(
            crc32c_of_goog_hash(["md5=XrY7u+Ae7tCTyyK7j1rNww==", "crc32c=yZRlqg=="]),
            expected
        );
        assert_eq!(crc32c_of_goog_hash(["md5=XrY7u+Ae7tCTyyK7j1rNww=="]), None);
        assert_eq!(crc32c_of_goog_hash(["crc32c=yZRl"]), None);
    }

    #[test]
    fn a_code_is_letters_and_digits_and_nothing_else_is_repeated() {
        for (document, code) in [
            (
                "<Error><Code>ExpiredToken</Code></Error>",
                Some("ExpiredToken"),
            ),
            ("<Error><Code></Code></Error>", None),
            ("<Code>a b</Code>", None),
            ("<Code>https://x?X-Goog-Signature=1</Code>", None),
            ("<Code>cut", None),
            ("", None),
        ] {
            assert_eq!(error_code(document), code, "{document}");
        }
    }

    #[test]
    fn what_passes_is_told_from_what_lasts() {
        for status in [408, 429, 500, 503, 520, 599] {
            assert!(is_passing_status(status), "{status}");
        }
        for status in [200, 302, 400, 401, 403, 404, 412, 507] {
            assert!(!is_passing_status(status), "{status}");
        }
    }
}
