//! Verification of V4 signatures, from Google's description of the canonical request, independent of the
//! client that signs. What a verified request may do is left to the store.
//!
//! <https://cloud.google.com/storage/docs/authentication/canonical-requests>

use super::error::StoreError;
use http::{HeaderMap, Method};
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

const ALGORITHM: &str = "GOOG4-RSA-SHA256";

/// Seven days, the longest life of a signed URL.
const EXPIRES_SECONDS_MAX: i64 = 604_800;

/// How far ahead of ours the signer's clock may be.
const CLOCK_SKEW_SECONDS: i64 = 15 * 60;

/// Query parameters of a request.
const QUERY_PARAMETERS_MAX: usize = 64;

/// What stays as it is in a canonical query: RFC 3986's unreserved characters.
const QUERY_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// In a canonical path also the slashes.
const PATH_ESCAPED: &AsciiSet = &QUERY_ESCAPED.remove(b'/');

/// Who may sign, and with which key.
#[derive(Debug)]
pub struct Verifier {
    client_email: String,
    public_key: UnparsedPublicKey<Vec<u8>>,
}

impl Verifier {
    /// A verifier that trusts one service account by its public key: the DER of an RSA public key (PKCS#1).
    pub fn new(client_email: String, public_key: Vec<u8>) -> Self {
        Self {
            client_email,
            public_key: UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key),
        }
    }

    /// Verifies that the request was signed by the account, for this method, path, query and these headers,
    /// and is still valid at `now`.
    ///
    /// # Errors
    /// What the store answers to a request that was not.
    pub fn verify(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let parameters = decode_query(query)?;
        let parameter = |name: &str| {
            parameters
                .get(name)
                .map(String::as_str)
                .ok_or(StoreError::AccessDenied)
        };
        if parameter("X-Goog-Algorithm")? != ALGORITHM {
            return Err(StoreError::InvalidArgument(
                "X-Goog-Algorithm must be GOOG4-RSA-SHA256",
            ));
        }
        let date = parameter("X-Goog-Date")?;
        let scope = self.credential_scope(parameter("X-Goog-Credential")?, date)?;
        check_time(date, parameter("X-Goog-Expires")?, now)?;
        let signed_names = parameter("X-Goog-SignedHeaders")?;
        check_signed_headers(signed_names, headers)?;
        let signature = hex::decode(parameter("X-Goog-Signature")?)
            .map_err(|_| StoreError::SignatureDoesNotMatch)?;
        let request = canonical_request(method, path, &parameters, signed_names, headers)?;
        let digest = hex::encode(Sha256::digest(request));
        let string_to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{digest}");
        self.public_key
            .verify(string_to_sign.as_bytes(), &signature)
            .map_err(|_| StoreError::SignatureDoesNotMatch)
    }

    /// The scope of a credential `email/date/location/storage/goog4_request`.
    fn credential_scope<'credential>(
        &self,
        credential: &'credential str,
        date: &str,
    ) -> Result<&'credential str, StoreError> {
        let (email, scope) = credential
            .split_once('/')
            .ok_or(StoreError::SignatureDoesNotMatch)?;
        let parts: Vec<&str> = scope.split('/').collect();
        match parts.as_slice() {
            [day, _, "storage", "goog4_request"]
                if email == self.client_email && date.starts_with(day) && day.len() == 8 =>
            {
                Ok(scope)
            }
            _ => Err(StoreError::SignatureDoesNotMatch),
        }
    }
}

fn decode_query(query: &str) -> Result<BTreeMap<String, String>, StoreError> {
    let malformed = StoreError::InvalidArgument("the query is malformed");
    let mut parameters = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| {
            percent_decode_str(text)
                .decode_utf8()
                .map(std::borrow::Cow::into_owned)
                .map_err(|_| malformed.clone())
        };
        let is_double = parameters.insert(decode(name)?, decode(value)?).is_some();
        if is_double || parameters.len() > QUERY_PARAMETERS_MAX {
            return Err(malformed);
        }
    }
    Ok(parameters)
}

fn check_time(date: &str, expires: &str, now: Timestamp) -> Result<(), StoreError> {
    let signed_at = DateTime::strptime("%Y%m%dT%H%M%SZ", date)
        .and_then(|time| time.to_zoned(TimeZone::UTC))
        .map_err(|_| StoreError::InvalidArgument("X-Goog-Date must be YYYYMMDDTHHMMSSZ"))?
        .timestamp();
    let expires = expires
        .parse()
        .ok()
        .filter(|seconds| (1..=EXPIRES_SECONDS_MAX).contains(seconds))
        .ok_or(StoreError::InvalidArgument(
            "X-Goog-Expires must be 1 to 604800",
        ))?;
    let age = now.duration_since(signed_at);
    if age < SignedDuration::from_secs(-CLOCK_SKEW_SECONDS) {
        return Err(StoreError::RequestTimeTooSkewed);
    }
    if age > SignedDuration::from_secs(expires) {
        return Err(StoreError::ExpiredToken);
    }
    Ok(())
}

/// Whether a header that is sent has to be signed.
fn must_be_signed(name: &str) -> bool {
    name.starts_with("x-goog-") || name == "content-md5" || name == "content-type"
}

fn check_signed_headers(signed_names: &str, headers: &HeaderMap) -> Result<(), StoreError> {
    let signed: Vec<&str> = signed_names.split(';').collect();
    let names = || headers.keys().map(http::HeaderName::as_str);
    if names().any(|name| name.starts_with("x-amz-"))
        && names().any(|name| name.starts_with("x-goog-"))
    {
        return Err(StoreError::ExcessHeaderValues);
    }
    let all_sent_are_signed = names()
        .filter(|name| must_be_signed(name))
        .all(|name| signed.contains(&name));
    let all_signed_are_sent = signed.iter().all(|name| headers.contains_key(*name));
    let is_sorted = signed.is_sorted() && signed.contains(&"host");
    if all_sent_are_signed && all_signed_are_sent && is_sorted {
        Ok(())
    } else {
        Err(StoreError::MalformedSecurityHeader)
    }
}

fn canonical_request(
    method: &Method,
    path: &str,
    parameters: &BTreeMap<String, String>,
    signed_names: &str,
    headers: &HeaderMap,
) -> Result<String, StoreError> {
    let path = percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| StoreError::InvalidArgument("the path is not UTF-8"))?;
    let path = utf8_percent_encode(&path, PATH_ESCAPED);
    let mut query: Vec<String> = parameters
        .iter()
        .filter(|(name, _)| name.as_str() != "X-Goog-Signature")
        .map(|(name, value)| {
            let name = utf8_percent_encode(name, QUERY_ESCAPED);
            let value = utf8_percent_encode(value, QUERY_ESCAPED);
            format!("{name}={value}")
        })
        .collect();
    query.sort_unstable();
    let query = query.join("&");
    let mut lines = String::new();
    for name in signed_names.split(';') {
        let value = canonical_value(name, headers)?;
        lines.push_str(&format!("{name}:{value}\n"));
    }
    let payload = match headers.get("x-goog-content-sha256") {
        Some(value) => value
            .to_str()
            .map_err(|_| StoreError::MalformedSecurityHeader)?,
        None => "UNSIGNED-PAYLOAD",
    };
    Ok(format!(
        "{method}\n{path}\n{query}\n{lines}\n{signed_names}\n{payload}"
    ))
}

/// A header's values joined by commas, trimmed, inner spaces folded; of the host without its port.
fn canonical_value(name: &str, headers: &HeaderMap) -> Result<String, StoreError> {
    let mut values = Vec::new();
    for value in headers.get_all(name) {
        let text = value
            .to_str()
            .map_err(|_| StoreError::MalformedSecurityHeader)?;
        values.push(text.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let value = values.join(",");
    if name != "host" {
        return Ok(value);
    }
    let without_port = match value.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => &value,
    };
    Ok(without_port.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_store::trusting;
    use crate::sign::ServiceAccountKey;
    use crate::sign::UrlSigner;
    use http::HeaderValue;
    use std::sync::LazyLock;
    use std::time::Duration;

    static KEY: LazyLock<ServiceAccountKey> =
        LazyLock::new(|| ServiceAccountKey::generate().expect("a key"));

    struct Signed {
        path: String,
        query: String,
        headers: HeaderMap,
    }

    /// A PUT as the orchestrator signs it, taken apart as a server sees it.
    async fn signed(object: &str, extra: &[(&str, &str)]) -> Signed {
        let signer = UrlSigner::new(
            &KEY,
            "http://127.0.0.1:9000".to_owned(),
            "archive".to_owned(),
        )
        .expect("a signer");
        let headers: BTreeMap<String, String> = extra
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let url = signer
            .sign(Method::PUT, object, &headers, Duration::from_secs(60))
            .await
            .expect("signed");
        let target = url.expose_path_and_query_to_the_wire().to_owned();
        let (path, query) = target.split_once('?').expect("a query");
        let mut sent = HeaderMap::new();
        sent.insert("host", HeaderValue::from_static("127.0.0.1:9000"));
        for (name, value) in headers {
            let name = http::HeaderName::try_from(name).expect("a name");
            sent.insert(name, HeaderValue::try_from(value).expect("a value"));
        }
        Signed {
            path: path.to_owned(),
            query: query.to_owned(),
            headers: sent,
        }
    }

    fn verify(method: &Method, signed: &Signed, after_seconds: i64) -> Result<(), StoreError> {
        let now = Timestamp::now() + SignedDuration::from_secs(after_seconds);
        trusting(&KEY).expect("a verifier").verify(
            method,
            &signed.path,
            &signed.query,
            &signed.headers,
            now,
        )
    }

    #[tokio::test]
    async fn what_google_s_client_signs_is_verified_whatever_the_object_is_called() {
        for object in ["AB.tar", "a/b c/100%.tar", "Ä+ö~é&=?#.json"] {
            let signed = signed(
                object,
                &[
                    ("content-type", "application/x-tar"),
                    ("x-goog-if-generation-match", "0"),
                    ("x-goog-meta-note", "  two   spaces "),
                ],
            )
            .await;
            assert_eq!(verify(&Method::PUT, &signed, 0), Ok(()), "{object}");
            assert_eq!(
                verify(&Method::GET, &signed, 0),
                Err(StoreError::SignatureDoesNotMatch)
            );
        }
    }

    #[tokio::test]
    async fn an_expired_or_premature_url_is_refused() {
        let signed = signed("AB.tar", &[]).await;
        assert_eq!(verify(&Method::PUT, &signed, 58), Ok(()));
        assert_eq!(
            verify(&Method::PUT, &signed, 62),
            Err(StoreError::ExpiredToken)
        );
        assert_eq!(
            verify(&Method::PUT, &signed, -1000),
            Err(StoreError::RequestTimeTooSkewed)
        );
    }

    #[tokio::test]
    async fn what_was_changed_after_signing_is_refused() {
        let header = [("x-goog-if-generation-match", "0")];
        let mut tampered = signed("AB.tar", &header).await;
        tampered.path = "/archive/AC.tar".to_owned();
        assert_eq!(
            verify(&Method::PUT, &tampered, 0),
            Err(StoreError::SignatureDoesNotMatch)
        );

        let mut tampered = signed("AB.tar", &header).await;
        tampered.query = tampered.query.replace("Expires=60", "Expires=6000");
        assert_eq!(
            verify(&Method::PUT, &tampered, 0),
            Err(StoreError::SignatureDoesNotMatch)
        );

        let mut tampered = signed("AB.tar", &header).await;
        tampered
            .headers
            .insert("x-goog-if-generation-match", HeaderValue::from_static("7"));
        assert_eq!(
            verify(&Method::PUT, &tampered, 0),
            Err(StoreError::SignatureDoesNotMatch)
        );

        let mut unsent = signed("AB.tar", &header).await;
        unsent.headers.remove("x-goog-if-generation-match");
        assert_eq!(
            verify(&Method::PUT, &unsent, 0),
            Err(StoreError::MalformedSecurityHeader)
        );

        let mut unsigned = signed("AB.tar", &header).await;
        unsigned
            .headers
            .insert("content-type", HeaderValue::from_static("text/plain"));
        assert_eq!(
            verify(&Method::PUT, &unsigned, 0),
            Err(StoreError::MalformedSecurityHeader)
        );

        let mut foreign = signed("AB.tar", &header).await;
        foreign
            .headers
            .insert("x-amz-acl", HeaderValue::from_static("private"));
        assert_eq!(
            verify(&Method::PUT, &foreign, 0),
            Err(StoreError::ExcessHeaderValues)
        );

        let mut without = signed("AB.tar", &header).await;
        without.query.clear();
        assert_eq!(
            verify(&Method::PUT, &without, 0),
            Err(StoreError::AccessDenied)
        );
    }

    #[tokio::test]
    async fn another_account_s_signature_is_refused() {
        let signed = signed("AB.tar", &[]).await;
        let other = ServiceAccountKey::generate().expect("a key");
        let verdict = trusting(&other).expect("a verifier").verify(
            &Method::PUT,
            &signed.path,
            &signed.query,
            &signed.headers,
            Timestamp::now(),
        );
        assert_eq!(verdict, Err(StoreError::SignatureDoesNotMatch));
    }
}
