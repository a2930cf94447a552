//! Verifies V4 signed URLs, from Google's description of the canonical request.
//!
//! <https://cloud.google.com/storage/docs/authentication/canonical-requests>

mod canonical;
#[cfg(test)]
mod tests;

use crate::error::StoreError;
use crate::key::{KeyError, ServiceAccountKey};
use canonical::{CanonicalRequest, HostForm};
use http::{HeaderMap, Method};
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use percent_encoding::percent_decode_str;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

const ALGORITHM: &str = "GOOG4-RSA-SHA256";

/// The longest lifetime of a signed URL: seven days.
const EXPIRES_SECONDS_MAX: i64 = 604_800;

/// How far the signer's clock may be ahead of ours.
const CLOCK_SKEW_SECONDS: i64 = 15 * 60;

/// Query parameters in one request.
const QUERY_PARAMETERS_MAX: usize = 64;

/// Verifies the signatures of one service account.
#[derive(Debug)]
pub struct Verifier {
    client_email: String,
    public_key: UnparsedPublicKey<Vec<u8>>,
}

impl Verifier {
    /// Creates a verifier for the account `client_email`. Its public key is the DER of an RSA
    /// public key (PKCS#1).
    pub fn new(client_email: String, public_key: Vec<u8>) -> Self {
        Self {
            client_email,
            public_key: UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key),
        }
    }

    /// Creates a verifier for the account of `key`.
    ///
    /// # Errors
    /// The private key is not an RSA key of at least 2,048 bits in PKCS#8 and PEM.
    pub fn trusting(key: &ServiceAccountKey) -> Result<Self, KeyError> {
        Ok(Self::new(key.client_email().to_owned(), key.public_key()?))
    }

    /// Verifies that the account signed this method, path, query and these headers, and that the
    /// signature is valid at `now`.
    ///
    /// # Errors
    /// The error to answer the request with.
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
        let request = CanonicalRequest {
            method,
            path,
            parameters: &parameters,
            signed_names,
            headers,
        };
        // Google's own clients sign the host without its port, others sign the header as they send
        // it. On GCS this makes no difference, because its address has no port. Here it does.
        for host in [HostForm::WithoutPort, HostForm::AsSent] {
            let digest = hex::encode(Sha256::digest(request.text(host)?));
            let string_to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{digest}");
            let verified = self
                .public_key
                .verify(string_to_sign.as_bytes(), &signature);
            if verified.is_ok() {
                return Ok(());
            }
        }
        Err(StoreError::SignatureDoesNotMatch)
    }

    /// The scope in a credential `EMAIL/DATE/LOCATION/storage/goog4_request`: everything after the
    /// e-mail address.
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

/// The decoded parameters of a query.
///
/// # Errors
/// A parameter occurs twice, there are too many, or one is not UTF-8.
pub(crate) fn decode_query(query: &str) -> Result<BTreeMap<String, String>, StoreError> {
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

/// Whether this header must be signed if it is sent.
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
