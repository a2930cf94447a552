//! Signs V4 URLs for requests to a bucket, with a local key or by having Google sign.
//!
//! The key of a service account signs without Google. For the account of a machine, an impersonated
//! account or an identity of another cloud, IAM Credentials signs (`signBlob`).
//!
//! <https://cloud.google.com/storage/docs/access-control/signed-urls>

mod credentials;
mod error;
mod exchange;
mod local_key;
#[cfg(test)]
mod tests;

pub use error::{Service, SignError};

use anyhow::Context as _;
use credentials::MachineAccount;
use emulator::key::ServiceAccountKey;
use exchange::{Endpoints, Exchange, Google};
use futures::FutureExt as _;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use local_key::LocalKey;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use prefix_tar::engine::retry::Backoff;
use prefix_tar::protocol::job::Download;
use prefix_tar::protocol::signed_url::SignedUrl;
use reqsign_core::{ProvideCredential, Signer};
use reqsign_google::{Credential, RequestSigner, StaticCredentialProvider};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// One signature, with all its attempts.
const SIGN_TIME_MAX: Duration = Duration::from_secs(45);

/// Attempts at one signature.
const ATTEMPTS_MAX: u32 = 6;

/// The longest first wait between two attempts.
const FIRST_WAIT_MAX: Duration = Duration::from_millis(500);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(8);

/// The longest life of a signed URL: seven days.
const EXPIRY_MAX: Duration = Duration::from_secs(604_800);

/// The characters that a path escapes: all but slashes and RFC 3986's unreserved characters.
pub(crate) const PATH_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// The precondition on an object's generation; 0 means that it must not exist.
pub(crate) const GENERATION_MATCH: &str = "x-goog-if-generation-match";

/// The headers of a request for an object of this generation and no other.
pub(crate) fn only_generation(generation: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(GENERATION_MATCH.to_owned(), generation.to_owned())])
}

/// The file with a service account's key that signs in this environment, if there is one.
pub fn key_file() -> Option<PathBuf> {
    credentials::find_file()
        .filter(|path| credentials::read_file(path).is_ok_and(|file| file.is_key))
}

/// The parameter that ends a signed URL.
const SIGNATURE: &str = "X-Goog-Signature=";

/// Signs URLs of one bucket at one endpoint.
pub struct UrlSigner {
    signer: Signer<Credential>,
    /// `None` if a local key signs.
    google: Option<Arc<Google>>,
    /// The account that signs, if it is the machine's.
    machine: Option<MachineAccount>,
    endpoint: String,
    bucket: String,
    time_max: Duration,
}

impl fmt::Debug for UrlSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "UrlSigner({}/{})", self.endpoint, self.bucket)
    }
}

impl UrlSigner {
    /// Creates a signer for `bucket` at `endpoint` (`http://127.0.0.1:9000`) with a local key.
    ///
    /// # Errors
    /// The key is not usable.
    pub fn new(
        key: &ServiceAccountKey,
        endpoint: String,
        bucket: String,
    ) -> Result<Self, SignError> {
        let key = serde_json::to_string(key).map_err(|_| SignError::Key)?;
        Self::with_key(&key, endpoint, bucket)
    }

    /// Creates a signer for `bucket` at `endpoint` with the credentials that Google's clients would
    /// use: the file that `GOOGLE_APPLICATION_CREDENTIALS` names, the one that gcloud has written,
    /// or the metadata server's. Google's certificate must come from a CA of the platform or, if
    /// given, a private one.
    ///
    /// # Errors
    /// The file cannot be read or its credentials cannot sign, or the CA file is not usable. A
    /// missing metadata server is not noticed before the first signature.
    pub fn from_environment(
        endpoint: String,
        bucket: String,
        ca_file: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let google = Google {
            http: crate::http_client::new(ca_file)?,
            endpoints: Endpoints::from_environment(),
        };
        match credentials::find_file() {
            Some(path) => Self::with_file(&path, google, endpoint, bucket),
            None => Ok(Self::with_machine_account(google, endpoint, bucket)),
        }
    }

    fn with_file(
        path: &Path,
        google: Google,
        endpoint: String,
        bucket: String,
    ) -> anyhow::Result<Self> {
        let credentials = credentials::read_file(path)?;
        if credentials.is_key {
            let signer = Self::with_key(&credentials.json, endpoint, bucket);
            return signer.with_context(|| format!("cannot sign with {}", path.display()));
        }
        let provider = StaticCredentialProvider::new(credentials.json);
        Ok(Self {
            google: Some(Arc::new(google)),
            ..Self::with_provider(provider, endpoint, bucket)
        })
    }

    fn with_machine_account(google: Google, endpoint: String, bucket: String) -> Self {
        let machine = MachineAccount::new(google.endpoints.metadata.clone());
        Self {
            google: Some(Arc::new(google)),
            machine: Some(machine.clone()),
            ..Self::with_provider(machine, endpoint, bucket)
        }
    }

    fn with_key(key: &str, endpoint: String, bucket: String) -> Result<Self, SignError> {
        let key = LocalKey::parse(key)?;
        let context = key.context();
        let mut signer = Self::with_provider(key, endpoint, bucket);
        signer.signer = signer.signer.with_context(context);
        // A first signature shows whether the key is usable. It waits for nothing.
        let request = signer.request(http::Method::HEAD, "", &BTreeMap::new(), EXPIRY_MAX);
        let signed = signer.signature(request?, "", EXPIRY_MAX).now_or_never();
        if matches!(signed, Some(Ok(_))) {
            Ok(signer)
        } else {
            Err(SignError::Key)
        }
    }

    fn with_provider(
        provider: impl ProvideCredential<Credential = Credential>,
        endpoint: String,
        bucket: String,
    ) -> Self {
        let context = reqsign_core::Context::new();
        Self {
            signer: Signer::new(context, provider, RequestSigner::new("storage")),
            google: None,
            machine: None,
            endpoint,
            bucket,
            time_max: SIGN_TIME_MAX,
        }
    }

    /// Signs one request for `object`, valid for `expiry`. Each of `headers` must be sent with it
    /// as it is given here. Transient failures are retried for up to 45 s.
    ///
    /// # Errors
    /// The request cannot be signed, the credentials do not sign, or Google does not answer.
    pub async fn sign(
        &self,
        method: http::Method,
        object: &str,
        headers: &BTreeMap<String, String>,
        expiry: Duration,
    ) -> Result<SignedUrl, SignError> {
        let request = self.request(method, object, headers, expiry)?;
        let deadline = Instant::now() + self.time_max;
        let random = fastrand::Rng::new();
        let mut waits = Backoff::new(random, ATTEMPTS_MAX, FIRST_WAIT_MAX, WAIT_MAX);
        loop {
            let attempt = self.signature(request.clone(), object, expiry);
            let error = match tokio::time::timeout_at(deadline, attempt).await {
                Ok(Ok(url)) => return Ok(url),
                Ok(Err(error)) => error,
                Err(_) => {
                    return Err(SignError::NoAnswer {
                        object: object.to_owned(),
                        seconds: self.time_max.as_secs(),
                    });
                }
            };
            let wait = waits
                .next()
                .filter(|wait| Instant::now() + *wait < deadline);
            match wait.filter(|_| error.is_transient()) {
                Some(wait) => {
                    tracing::debug!(%error, ?wait, "retrying a signature");
                    tokio::time::sleep(wait).await;
                }
                None => return Err(error),
            }
        }
    }

    /// Signs the GET of an object, if it has this generation, for the component to send.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub async fn sign_download(
        &self,
        object: &str,
        generation: &str,
        expiry: Duration,
    ) -> Result<Download, SignError> {
        let headers = only_generation(generation);
        let url = self.sign(http::Method::GET, object, &headers, expiry);
        Ok(Download {
            url: url.await?,
            headers,
        })
    }

    /// The head of the request to sign. All of its headers are signed.
    fn request(
        &self,
        method: http::Method,
        object: &str,
        headers: &BTreeMap<String, String>,
        expiry: Duration,
    ) -> Result<Parts, SignError> {
        let unsignable = |problem: String| SignError::Request {
            object: object.to_owned(),
            problem,
        };
        if expiry.as_secs() == 0 || expiry > EXPIRY_MAX {
            let (seconds, max) = (expiry.as_secs(), EXPIRY_MAX.as_secs());
            let problem = format!("it would be valid for {seconds} s; allowed are 1 s to {max} s");
            return Err(unsignable(problem));
        }
        let path = utf8_percent_encode(object, PATH_ESCAPED);
        let url = format!("{}/{}/{path}", self.endpoint, self.bucket);
        let request = http::Request::builder().method(method).uri(url).body(());
        let (mut parts, ()) = request
            .map_err(|error| unsignable(error.to_string()))?
            .into_parts();
        parts.headers = signed_headers(parts.uri.host().unwrap_or_default(), headers)
            .map_err(|error| unsignable(error.to_string()))?;
        Ok(parts)
    }

    /// One attempt at a signature.
    async fn signature(
        &self,
        mut request: Parts,
        object: &str,
        expiry: Duration,
    ) -> Result<SignedUrl, SignError> {
        let exchange = self.google.clone().map(Exchange::new);
        let signer = match &exchange {
            Some(exchange) => self.signer.clone().with_context(exchange.context()),
            None => self.signer.clone(),
        };
        if let Err(error) = signer.sign(&mut request, Some(expiry)).await {
            let failure = exchange.and_then(|exchange| exchange.take_failure());
            let is_missing = self
                .machine
                .as_ref()
                .is_some_and(|machine| !machine.is_known());
            return Err(match failure {
                Some(failure) if is_missing && failure.is_missing_account() => {
                    SignError::NoCredentials {
                        object: object.to_owned(),
                    }
                }
                Some(failure) => failure.into_error(object),
                None => SignError::Credentials {
                    object: object.to_owned(),
                    cause: format!("{error}; check the Google credentials"),
                },
            });
        }
        let url = with_lower_case_signature(&request.uri.to_string());
        SignedUrl::new(url).map_err(|error| SignError::Request {
            object: object.to_owned(),
            problem: error.to_string(),
        })
    }
}

/// The headers as Google canonicalizes them: the host has no port, and white space is folded.
fn signed_headers(
    host: &str,
    headers: &BTreeMap<String, String>,
) -> Result<HeaderMap, http::Error> {
    let mut signed = HeaderMap::new();
    for (name, value) in headers {
        let words: Vec<&str> = value.split_ascii_whitespace().collect();
        let value = HeaderValue::try_from(words.join(" "))?;
        signed.insert(HeaderName::try_from(name)?, value);
    }
    signed.insert(HOST, HeaderValue::try_from(host)?);
    Ok(signed)
}

/// Writes the signature as Google documents it. reqsign writes it in upper case.
fn with_lower_case_signature(url: &str) -> String {
    match url.split_once(SIGNATURE) {
        Some((head, signature)) => format!("{head}{SIGNATURE}{}", signature.to_lowercase()),
        None => url.to_owned(),
    }
}
