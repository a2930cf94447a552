//! Signs URLs for tests. It follows Google's description of the signing process and shares no code
//! with the verifier.
//!
//! <https://cloud.google.com/storage/docs/access-control/signing-urls-manually>

use crate::key::ServiceAccountKey;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::RSA_PKCS1_SHA256;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The key that signs. All tests share it because generating one is slow.
pub(crate) static KEY: LazyLock<ServiceAccountKey> =
    LazyLock::new(|| ServiceAccountKey::generate().expect("a key"));

/// The `host` header that is sent.
const HOST: &str = "127.0.0.1:9000";

/// A request for an object of the bucket `archive` that is to be signed.
pub(crate) struct SignRequest<'request> {
    pub(crate) method: &'request Method,
    pub(crate) object: &'request str,
    /// The `host` that is signed.
    pub(crate) signed_host: &'request str,
    /// Further headers, which are both signed and sent.
    pub(crate) headers: &'request [(&'request str, &'request str)],
    /// Further query parameters.
    pub(crate) parameters: &'request [(&'request str, &'request str)],
}

/// A signed request as a server sees it.
pub(crate) struct Signed {
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
}

impl Signed {
    pub(crate) fn uri(&self) -> Uri {
        let target = format!("{}?{}", self.path, self.query);
        target.parse().expect("a target")
    }
}

impl<'request> SignRequest<'request> {
    /// A PUT that is signed as Google's clients do it: with the host, but without its port.
    pub(crate) fn put(object: &'request str) -> Self {
        Self {
            method: &Method::PUT,
            object,
            signed_host: "127.0.0.1",
            headers: &[],
            parameters: &[],
        }
    }

    /// Signs the request for the next 60 s.
    pub(crate) fn sign(&self) -> Signed {
        let date = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let scope = format!("{}/auto/storage/goog4_request", &date[..8]);
        let mut signed_headers = BTreeMap::from([("host", self.signed_host)]);
        signed_headers.extend(self.headers.iter().copied());
        let names: Vec<&str> = signed_headers.keys().copied().collect();
        let names = names.join(";");

        let credential = format!("{}/{scope}", KEY.client_email());
        let mut parameters = BTreeMap::from([
            ("X-Goog-Algorithm", "GOOG4-RSA-SHA256"),
            ("X-Goog-Credential", &credential),
            ("X-Goog-Date", &date),
            ("X-Goog-Expires", "60"),
            ("X-Goog-SignedHeaders", &names),
        ]);
        parameters.extend(self.parameters.iter().copied());
        let parameters: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name, ""), encode(value, "")))
            .collect();
        let query = parameters.join("&");

        let path = format!("/archive/{}", encode(self.object, "/"));
        let mut request = format!("{}\n{path}\n{query}\n", self.method);
        for (name, value) in &signed_headers {
            let words: Vec<&str> = value.split(' ').filter(|word| !word.is_empty()).collect();
            request += &format!("{name}:{}\n", words.join(" "));
        }
        request += &format!("\n{names}\nUNSIGNED-PAYLOAD");
        let digest = hex::encode(digest(&SHA256, request.as_bytes()));
        let signature = signature(&format!("GOOG4-RSA-SHA256\n{date}\n{scope}\n{digest}"));
        Signed {
            path,
            query: format!("{query}&X-Goog-Signature={signature}"),
            headers: self.sent_headers(),
        }
    }

    fn sent_headers(&self) -> HeaderMap {
        let mut sent = HeaderMap::new();
        sent.insert("host", HeaderValue::from_static(HOST));
        for (name, value) in self.headers {
            let name: HeaderName = name.parse().expect("a name");
            sent.insert(name, value.parse().expect("a value"));
        }
        sent
    }
}

fn signature(string_to_sign: &str) -> String {
    let key = KEY.key_pair().expect("a key pair");
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        string_to_sign.as_bytes(),
        &mut signature,
    )
    .expect("signed");
    hex::encode(signature)
}

/// Percent-encodes all bytes but RFC 3986's unreserved characters and those in `kept`.
fn encode(text: &str, kept: &str) -> String {
    let is_kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| match byte {
            byte if is_kept(byte) || kept.as_bytes().contains(&byte) => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
