//! What a store's answer says, whoever asked: the checksum in its headers, the code of its error and what to do about
//! it, and whether it may be another at the next attempt. Reading the answer is left to who asked.

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

/// What whoever signs has to be permitted for a request of this method, for who was denied it.
/// <https://cloud.google.com/storage/docs/access-control/iam-xml>
fn permissions_wanted(method: &str) -> &'static str {
    match method {
        "PUT" => "storage.objects.create, and storage.objects.delete where it replaces an object",
        "DELETE" => "storage.objects.delete",
        _ => "storage.objects.get",
    }
}

/// How a refused request is told: what was tried, the status, the store's `<Code>`, and what can be done about it.
pub fn refusal(tried: &str, method: &str, status: u16, code: Option<&str>) -> String {
    let code = code.unwrap_or_default();
    let answered = format!("{tried} was answered {status} {code}");
    let answered = answered.trim_end();
    match (status, code) {
        (403, "AccessDenied") => format!(
            "{answered}; the account that signs needs {}",
            permissions_wanted(method)
        ),
        (403, "ExpiredToken" | "RequestTimeTooSkewed") => {
            format!("{answered}; is the clock of this machine right?")
        }
        (412, _) => format!(
            "{answered}; another run writes there, or the account that signs may not see what is there"
        ),
        _ => answered.to_owned(),
    }
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
    fn who_is_denied_is_told_what_is_needed_and_nothing_is_guessed_of_other_refusals() {
        let tried = "PUT of /b/AB.tar";
        for (method, status, code, told) in [
            (
                "PUT",
                403,
                Some("AccessDenied"),
                "PUT of /b/AB.tar was answered 403 AccessDenied; the account that signs needs storage.objects.create, and storage.objects.delete where it replaces an object",
            ),
            ("GET", 401, None, "PUT of /b/AB.tar was answered 401"),
            (
                "PUT",
                403,
                Some("ExpiredToken"),
                "PUT of /b/AB.tar was answered 403 ExpiredToken; is the clock of this machine right?",
            ),
            (
                "PUT",
                403,
                Some("SignatureDoesNotMatch"),
                "PUT of /b/AB.tar was answered 403 SignatureDoesNotMatch",
            ),
            (
                "GET",
                403,
                Some("AccessDenied"),
                "PUT of /b/AB.tar was answered 403 AccessDenied; the account that signs needs storage.objects.get",
            ),
            (
                "PUT",
                412,
                Some("PreconditionFailed"),
                "PUT of /b/AB.tar was answered 412 PreconditionFailed; another run writes there, or the account that signs may not see what is there",
            ),
            ("PUT", 500, None, "PUT of /b/AB.tar was answered 500"),
        ] {
            assert_eq!(refusal(tried, method, status, code), told);
        }
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
