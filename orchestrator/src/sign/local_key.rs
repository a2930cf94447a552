//! Signs with the key of a service account, in this process.
//!
//! reqsign can do so itself, but it parses the key for every signature and takes 2.4 ms for each;
//! a run begins with one per prefix. So it gets a credential without a key, and the `signBlob`
//! requests that it sends to IAM Credentials for such a credential are answered here, with ring.

use super::SignError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use reqsign_core::{Context, HttpSend, ProvideCredential};
use reqsign_google::{Credential, Token};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::json;
use std::fmt;
use std::sync::Arc;

/// The token of the credential. It is sent nowhere, but reqsign uses no credential without one.
const TOKEN: &str = "local";

/// The key of a service account.
#[derive(Clone)]
pub(super) struct LocalKey {
    email: String,
    pair: Arc<RsaKeyPair>,
}

/// The fields of a key file that signing needs.
#[derive(Deserialize)]
struct KeyFile {
    client_email: String,
    private_key: String,
}

/// The body of a `signBlob` request.
#[derive(Deserialize)]
struct SignBlob {
    payload: String,
}

impl LocalKey {
    /// Parses a key file.
    ///
    /// # Errors
    /// The key is not an RSA key of at least 2,048 bits in PKCS#8 and PEM.
    pub(super) fn parse(json: &str) -> Result<Self, SignError> {
        // The sources of the errors are dropped because they could quote the key.
        let file: KeyFile = serde_json::from_str(json).map_err(|_| SignError::Key)?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(file.private_key.as_bytes())
            .map_err(|_| SignError::Key)?;
        let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| SignError::Key)?;
        Ok(Self {
            email: file.client_email,
            pair: Arc::new(pair),
        })
    }

    /// What reqsign sends its requests with.
    pub(super) fn context(&self) -> Context {
        Context::new().with_http_send(self.clone())
    }

    fn answer(&self, request: &Request<Bytes>) -> Option<Response<Bytes>> {
        let blob: SignBlob = serde_json::from_slice(request.body()).ok()?;
        let payload = STANDARD.decode(blob.payload).ok()?;
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                &payload,
                &mut signature,
            )
            .ok()?;
        let answer = json!({ "signedBlob": STANDARD.encode(signature) });
        Some(Response::new(answer.to_string().into()))
    }
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LocalKey({})", self.email)
    }
}

impl ProvideCredential for LocalKey {
    type Credential = Credential;

    async fn provide_credential(
        &self,
        _context: &Context,
    ) -> reqsign_core::Result<Option<Credential>> {
        let token = Token {
            access_token: TOKEN.to_owned(),
            expires_at: None,
        };
        let credential = Credential::with_token(token);
        Ok(Some(credential.with_signer_email(&self.email)))
    }
}

impl HttpSend for LocalKey {
    async fn http_send(&self, request: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        self.answer(&request)
            .ok_or_else(|| reqsign_core::Error::unexpected("the key did not sign"))
    }
}
