//! Interprets a store's answer: its checksum, its error code, and whether a retry may help.

use crate::protocol::crc32c::Crc32c;

/// Finds the CRC32C in the values of the `x-goog-hash` headers. A value may be a list:
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

/// The `<Code>` of a store's XML error document, if it has one.
pub fn error_code(document: &str) -> Option<&str> {
    let (_, rest) = document.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_code.then_some(code)
}

/// The permissions that the signing account needs for a request with this method, see
/// <https://cloud.google.com/storage/docs/access-control/iam-xml>.
fn permissions_needed(method: &str) -> &'static str {
    match method {
        "PUT" => "storage.objects.create, and storage.objects.delete to replace an object",
        "DELETE" => "storage.objects.delete",
        _ => "storage.objects.get",
    }
}

/// The message for a request that the store rejected: the operation, the status, the store's
/// `<Code>` and what to do.
pub fn refusal(operation: &str, method: &str, status: u16, code: Option<&str>) -> String {
    let code = code.unwrap_or_default();
    let answered = format!("{operation} was answered {status} {code}");
    let answered = answered.trim_end();
    match (status, code) {
        (403, "AccessDenied") => format!(
            "{answered}; the signing account needs {}",
            permissions_needed(method)
        ),
        (400..=403, "ExpiredToken" | "RequestTimeTooSkewed") => {
            format!("{answered}; is the clock of the signing machine correct?")
        }
        (412, _) => format!(
            "{answered}; another run writes there, or the signing account may not read the object"
        ),
        _ => answered.to_owned(),
    }
}

/// Whether a `<Code>` says that a signature is too old or from the future, so that a new one may be
/// accepted.
pub fn is_expired(code: Option<&str>) -> bool {
    matches!(code, Some("ExpiredToken" | "RequestTimeTooSkewed"))
}

/// Whether a retry may get another status, from a store or a source: 408, 429, and server errors
/// except 507, since a full disk stays full.
pub const fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=506 | 508..=599)
}

/// For how long a cache has had the server error that it answered, in seconds; 0 if it does not say. `None` if it is not
/// a server error, or does not come from a cache: `Age` (RFC 9111, 5.1) or Cloudflare's `CF-Cache-Status` would show that.
pub fn cache_age_seconds(
    status: u16,
    header: impl Fn(&'static str) -> Option<String>,
) -> Option<u64> {
    if !(500..=599).contains(&status) {
        return None;
    }
    let age: Option<u64> = header("age").and_then(|age| age.trim().parse().ok());
    let is_hit = header("cf-cache-status").is_some_and(|value| {
        let hits = ["HIT", "STALE", "UPDATING"];
        hits.iter()
            .any(|hit| value.trim().eq_ignore_ascii_case(hit))
    });
    match age {
        Some(age) if age > 0 || is_hit => Some(age),
        _ => is_hit.then_some(0),
    }
}

/// Whether another attempt at a range may get another status. Besides [`is_transient_status`], that is whatever no source
/// answers to a plain GET: an interim status, a success without a range, and 304. A cache or a proxy gave it.
pub const fn is_transient_source_status(status: u16) -> bool {
    is_transient_status(status) || matches!(status, 100..=299 | 304)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_from_a_cache_if_its_headers_say_so() {
        let age = |status, headers: &[(&str, &str)]| {
            cache_age_seconds(status, |name| {
                let found = headers.iter().find(|(header, _)| *header == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let hit = ("cf-cache-status", "hit");
        assert_eq!(age(502, &[("age", "689562"), hit]), Some(689_562));
        assert_eq!(age(502, &[("age", " 7")]), Some(7));
        assert_eq!(age(520, &[hit]), Some(0));
        assert_eq!(age(502, &[("age", "soon"), hit]), Some(0));
        for headers in [&[][..], &[("age", "0")], &[("cf-cache-status", "MISS")]] {
            assert_eq!(age(502, headers), None, "{headers:?}");
        }
        assert_eq!(age(429, &[("age", "7"), hit]), None);
    }

    #[test]
    fn a_checksum_is_found_in_one_header_or_several() {
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
    fn a_refusal_names_the_remedy_only_if_its_code_is_known() {
        let operation = "PUT of /b/AB.tar";
        for (method, status, code, message) in [
            (
                "PUT",
                403,
                Some("AccessDenied"),
                "PUT of /b/AB.tar was answered 403 AccessDenied; the signing account needs storage.objects.create, and storage.objects.delete to replace an object",
            ),
            ("GET", 401, None, "PUT of /b/AB.tar was answered 401"),
            (
                "PUT",
                403,
                Some("ExpiredToken"),
                "PUT of /b/AB.tar was answered 403 ExpiredToken; is the clock of the signing machine correct?",
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
                "PUT of /b/AB.tar was answered 403 AccessDenied; the signing account needs storage.objects.get",
            ),
            (
                "PUT",
                412,
                Some("PreconditionFailed"),
                "PUT of /b/AB.tar was answered 412 PreconditionFailed; another run writes there, or the signing account may not read the object",
            ),
            ("PUT", 500, None, "PUT of /b/AB.tar was answered 500"),
        ] {
            assert_eq!(refusal(operation, method, status, code), message);
        }
    }

    #[test]
    fn an_error_code_has_only_letters_and_digits() {
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
    fn transient_and_permanent_statuses_are_distinguished() {
        for status in [408, 429, 500, 503, 520, 599] {
            assert!(is_transient_status(status), "{status}");
        }
        for status in [200, 302, 400, 401, 403, 404, 412, 507] {
            assert!(!is_transient_status(status), "{status}");
        }
    }
}
