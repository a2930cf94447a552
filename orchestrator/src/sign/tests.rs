use super::*;
use emulator::signature::Verifier;
use http::Method;
use jiff::Timestamp;
use std::sync::LazyLock;

mod google;

static KEY: LazyLock<ServiceAccountKey> =
    LazyLock::new(|| ServiceAccountKey::generate().expect("a key"));

const ENDPOINT: &str = "http://127.0.0.1:9000";

fn signer() -> UrlSigner {
    UrlSigner::new(&KEY, ENDPOINT.to_owned(), "archive".to_owned()).expect("a signer")
}

fn headers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

/// The emulator's verdict on a request with this URL and these headers.
fn verdict(
    method: &Method,
    url: &SignedUrl,
    headers: &BTreeMap<String, String>,
) -> Result<(), String> {
    let target = url.expose_path_and_query();
    let (path, query) = target.split_once('?').expect("a query");
    let mut sent = HeaderMap::new();
    let host = HeaderValue::try_from(url.authority().as_str()).expect("a value");
    sent.insert(HOST, host);
    for (name, value) in headers {
        let name = HeaderName::try_from(name).expect("a name");
        sent.insert(name, HeaderValue::try_from(value).expect("a value"));
    }
    let verifier = Verifier::trusting(&KEY).expect("a verifier");
    verifier
        .verify(method, path, query, &sent, Timestamp::now())
        .map_err(|error| format!("{error:?}"))
}

#[tokio::test]
async fn signed_urls_verify_whatever_the_object_is_called() {
    let headers = headers(&[
        ("content-type", "application/x-tar"),
        ("x-goog-if-generation-match", "0"),
        ("x-goog-meta-note", "  two \t  spaces "),
    ]);
    let signer = signer();
    for object in [
        "AB.tar",
        "a/b c/100%.tar",
        "Ä+ö~é&=?#.json",
        "a//b/../%2F/.",
        "'\"<>[]{}|\\^`!$*(),;:@_-~",
        "\u{1F980}\n\u{7F}",
    ] {
        let url = signer.sign(Method::PUT, object, &headers, EXPIRY_MAX).await;
        let url = url.expect("signed");
        assert_eq!(verdict(&Method::PUT, &url, &headers), Ok(()), "{object}");
        assert!(verdict(&Method::GET, &url, &headers).is_err(), "{object}");
    }
}

#[tokio::test]
async fn a_signature_is_in_lower_case_and_covers_exactly_the_headers_and_the_host() {
    let headers = headers(&[("X-Goog-Meta-A", "1"), ("content-type", "text/plain")]);
    let (signer, minute) = (signer(), Duration::from_secs(60));
    let url = signer.sign(Method::PUT, "a/b.tar", &headers, minute).await;
    let url = url.expect("signed");
    let url = url.expose_secret();
    assert!(
        url.starts_with("http://127.0.0.1:9000/archive/a/b.tar?"),
        "{url}"
    );
    assert!(
        url.contains("&X-Goog-SignedHeaders=content-type%3Bhost%3Bx-goog-meta-a&"),
        "{url}"
    );
    assert!(url.contains("&X-Goog-Expires=60&"), "{url}");
    let (_, signature) = url.split_once("&X-Goog-Signature=").expect("a signature");
    assert_eq!(signature.len(), 512);
    assert!(
        signature
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    );
}

#[tokio::test]
async fn what_can_never_be_signed_is_a_permanent_error() {
    let signer = signer();
    for (headers, expiry, expected) in [
        (headers(&[]), Duration::ZERO, "valid for 0 s"),
        (
            headers(&[]),
            Duration::from_secs(604_801),
            "valid for 604801 s",
        ),
        (
            headers(&[("no name", "1")]),
            EXPIRY_MAX,
            "invalid HTTP header name",
        ),
        (
            headers(&[("name", "\u{0}")]),
            EXPIRY_MAX,
            "failed to parse header value",
        ),
    ] {
        let error = signer.sign(Method::PUT, "AB.tar", &headers, expiry).await;
        let error = error.expect_err("not signed");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.is_transient());
    }
}

#[test]
fn the_error_for_an_unusable_key_does_not_quote_it() {
    let mut key = serde_json::to_value(&*KEY).expect("JSON");
    let secret = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj";
    for private_key in [
        String::new(),
        secret.to_owned(),
        format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n"),
    ] {
        key["private_key"] = private_key.into();
        let key: ServiceAccountKey = serde_json::from_value(key.clone()).expect("a key");
        let error = UrlSigner::new(&key, ENDPOINT.to_owned(), "archive".to_owned());
        let error = error.expect_err("not usable");
        assert!(matches!(error, SignError::Key), "{error}");
        assert!(!error.to_string().contains(&secret[..20]), "{error}");
    }
}

#[test]
fn debug_shows_no_credentials() {
    assert_eq!(
        format!("{:?}", signer()),
        "UrlSigner(http://127.0.0.1:9000/archive)"
    );
}
