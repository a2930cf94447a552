//! Signs URLs with a real key, for the target that looks for URLs that nobody signed. It follows
//! Google's description of the signing process and shares no code with the verifier.
//!
//! <https://cloud.google.com/storage/docs/access-control/signing-urls-manually>

use emulator::key::ServiceAccountKey;
use http::{HeaderMap, HeaderValue};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};

/// The `host` that is signed and sent.
pub const HOST: &str = "localhost";

/// A second header that is signed.
pub const NOTE: &str = "x-goog-meta-note";

/// When the URLs are signed.
const DATE: &str = "20260101T000000Z";

/// The account that signs.
pub struct Signer {
    key_pair: RsaKeyPair,
    credential: String,
}

/// A PUT as a server sees it.
#[derive(Clone)]
pub struct Signed {
    pub path: String,
    /// The parameters without the signature, encoded and in order.
    pub parameters: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub signature: Vec<u8>,
}

impl Signed {
    pub fn query(&self) -> String {
        let mut query = joined(&self.parameters);
        query.push_str("&X-Goog-Signature=");
        for byte in &self.signature {
            query.push_str(&format!("{byte:02x}"));
        }
        query
    }
}

impl Signer {
    pub fn new(key: &ServiceAccountKey) -> Self {
        let key_file = serde_json::to_value(key).expect("JSON");
        let pem = key_file["private_key"].as_str().expect("a private key");
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        Self {
            key_pair: RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).expect("an RSA key"),
            credential: format!("{}/{}", key.client_email(), scope()),
        }
    }

    /// Signs a PUT of `object` for ten minutes, with a parameter and a header of its own.
    pub fn sign(&self, object: &str, parameter: &str, note: &str) -> Signed {
        let path = format!("/archive/{}", encode(object, "/"));
        let names = format!("host;{NOTE}");
        let parameters = [
            ("X-Goog-Algorithm", "GOOG4-RSA-SHA256"),
            ("X-Goog-Credential", &self.credential),
            ("X-Goog-Date", DATE),
            ("X-Goog-Expires", "600"),
            ("X-Goog-SignedHeaders", &names),
            ("own", parameter),
        ];
        let parameters: Vec<(String, String)> = parameters
            .iter()
            .map(|(name, value)| (encode(name, ""), encode(value, "")))
            .collect();
        let query = joined(&parameters);
        let canonical_note = words(note);
        let request = format!(
            "PUT\n{path}\n{query}\nhost:{HOST}\n{NOTE}:{canonical_note}\n\n{names}\nUNSIGNED-PAYLOAD"
        );
        let digest = digest(&SHA256, request.as_bytes());
        let digest: String = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let to_sign = format!("GOOG4-RSA-SHA256\n{DATE}\n{}\n{digest}", scope());
        let mut signature = vec![0; self.key_pair.public().modulus_len()];
        let random = SystemRandom::new();
        let signed = self.key_pair.sign(
            &RSA_PKCS1_SHA256,
            &random,
            to_sign.as_bytes(),
            &mut signature,
        );
        signed.expect("signed");
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static(HOST));
        headers.insert(NOTE, note.parse().expect("a value"));
        Signed {
            path,
            parameters,
            headers,
            signature,
        }
    }
}

fn scope() -> String {
    format!("{}/auto/storage/goog4_request", &DATE[..8])
}

fn joined(parameters: &[(String, String)]) -> String {
    let pairs = parameters
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join("&")
}

/// A header's value as it is signed: trimmed, with one space for each run of white space.
pub fn words(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Percent-encodes all bytes but RFC 3986's unreserved characters and those in `kept`.
pub fn encode(text: &str, kept: &str) -> String {
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
