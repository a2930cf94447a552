//! [`BucketClient`]: small signed requests to one path in a bucket. Each attempt is signed anew; transient errors are
//! retried.

mod answer;
mod attempt;

pub use answer::{Answer, RequestError};

use super::options::ObjectOptions;
use super::path::BucketPath;
use crate::http_client::{self, HttpClient};
use crate::liveness::Liveness;
use crate::origin::Origin;
use crate::sign::{SignError, UrlSigner};
use answer::Operation;
use attempt::Attempt;
use bytes::Bytes;
use http::header::{CONTENT_RANGE, HeaderMap, RANGE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use prefix_tar::engine::retry::Backoff;
use prefix_tar::protocol::job::Download;
use prefix_tar::protocol::signed_url::SignedUrl;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// Attempts at one request. Google recommends waits from 1 s that double:
/// <https://cloud.google.com/storage/docs/retry-strategy>
const ATTEMPTS_MAX: u32 = 5;

/// The longest first wait.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(1);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(16);

/// One attempt, from its first byte to the last byte of its answer. It leaves time for a large
/// answer; a connection that is dead shows earlier.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(60);

/// The least that a GET can request of an object, as a byte range.
const FIRST_BYTE: Range<u64> = 0..1;

/// The life of a URL that is used at once.
const EXPIRY: Duration = Duration::from_secs(300);

/// A file that is arriving.
#[derive(Debug)]
pub struct ArrivingFile {
    /// The headers of the response.
    pub headers: HeaderMap,
    /// The file's bytes.
    pub body: Incoming,
}

/// One request, before it is signed.
struct Unsigned<'request> {
    operation: Operation,
    /// Headers that are signed.
    headers: &'request BTreeMap<String, String>,
    /// One that ends at `u64::MAX` ends with the object.
    byte_range: Option<Range<u64>>,
    body: Bytes,
}

/// How long a client waits for the store.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// The longest time of one attempt.
    pub attempt_time_max: Duration,
    /// The longest first wait between two attempts. It doubles with every attempt.
    pub first_wait_max: Duration,
    /// When its connections count as dead.
    pub liveness: Liveness,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            attempt_time_max: ATTEMPT_TIME_MAX,
            first_wait_max: FIRST_WAIT_MAX,
            liveness: Liveness::default(),
        }
    }
}

/// Signed requests to one path in a bucket.
#[derive(Debug)]
pub struct BucketClient {
    path: BucketPath,
    signer: UrlSigner,
    http: HttpClient,
    origin: Origin,
    attempt_time_max: Duration,
    first_wait_max: Duration,
}

impl BucketClient {
    /// A client with the credentials that Google's own clients would find in the environment.
    ///
    /// # Errors
    /// The endpoint or the CA file is not usable, or no credentials can sign.
    pub fn open(
        path: BucketPath,
        options: &ObjectOptions,
        ca_file: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let origin = options.origin()?;
        let bucket = path.bucket().to_owned();
        let signer = UrlSigner::from_environment(origin.to_string(), bucket, ca_file)?;
        Self::with_signer(path, origin, signer, ca_file, ClientLimits::default())
    }

    /// A client for the bucket at `origin` that `signer` signs for.
    ///
    /// # Errors
    /// The CA file is not usable.
    pub fn with_signer(
        path: BucketPath,
        origin: Origin,
        signer: UrlSigner,
        ca_file: Option<&Path>,
        limits: ClientLimits,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            path,
            signer,
            http: http_client::with_liveness(ca_file, &limits.liveness)?,
            origin,
            attempt_time_max: limits.attempt_time_max,
            first_wait_max: limits.first_wait_max,
        })
    }

    /// The path in the bucket.
    pub const fn path(&self) -> &BucketPath {
        &self.path
    }

    /// The store's origin.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Signs the PUT of a file, for the component to send.
    ///
    /// # Errors
    /// The credentials do not sign.
    pub async fn sign_put(
        &self,
        file: &str,
        headers: &BTreeMap<String, String>,
        expiry: Duration,
    ) -> Result<SignedUrl, SignError> {
        let object = self.path.object(file);
        self.signer
            .sign(Method::PUT, &object, headers, expiry)
            .await
    }

    /// Signs the GET of a file of this generation, for the component to send.
    ///
    /// # Errors
    /// The credentials do not sign.
    pub async fn sign_download(
        &self,
        file: &str,
        generation: &str,
        expiry: Duration,
    ) -> Result<Download, SignError> {
        let object = self.path.object(file);
        self.signer.sign_download(&object, generation, expiry).await
    }

    /// Sends a PUT whose URL is already signed, until the answer is not transient, and returns it. `headers` are those
    /// that were signed.
    ///
    /// # Errors
    /// The last attempt was not answered.
    pub async fn put_signed(
        &self,
        url: &SignedUrl,
        file: &str,
        headers: &BTreeMap<String, String>,
        body: Bytes,
    ) -> Result<Answer, RequestError> {
        let unsigned = Unsigned {
            operation: self.operation(Method::PUT, file),
            headers,
            byte_range: None,
            body,
        };
        let attempt = || async {
            let attempt = Attempt {
                url: Some(url),
                ..self.begin(&unsigned)
            };
            attempt.read(attempt.response().await?).await
        };
        self.retry(attempt, Answer::is_transient).await
    }

    /// Sends a request until the answer is not transient, and returns it.
    ///
    /// # Errors
    /// It could not be signed, or the last attempt was not answered.
    pub async fn send(
        &self,
        method: Method,
        file: &str,
        headers: &BTreeMap<String, String>,
        body: Bytes,
    ) -> Result<Answer, RequestError> {
        let operation = self.operation(method, file);
        self.send_unsigned(&Unsigned {
            operation,
            headers,
            byte_range: None,
            body,
        })
        .await
    }

    /// Requests a file, or its bytes `byte_range`. Returns `None` if there is no such file, or if
    /// the account has no permission to read it.
    ///
    /// # Errors
    /// The request failed, or was refused for another reason.
    pub async fn find(
        &self,
        method: Method,
        file: &str,
        byte_range: Option<Range<u64>>,
    ) -> Result<Option<Answer>, RequestError> {
        let is_partial = byte_range.is_some();
        let mut answer = self.request(method, file, byte_range).await?;
        if answer.status == StatusCode::FORBIDDEN && answer.operation.method == Method::HEAD {
            // An answer to HEAD has no code. Without it, an object that a wrong clock hides would seem to be absent.
            let denied = self.request(Method::GET, file, Some(FIRST_BYTE)).await?;
            if denied.status != StatusCode::FORBIDDEN {
                return Err(RequestError::Lost(format!(
                    "{} was denied, but not a GET right after it",
                    answer.operation
                )));
            }
            answer = denied;
        }
        if answer.is_denied() {
            tracing::debug!(file, "the account may not see whether this object exists");
            return Ok(None);
        }
        answer.found(is_partial)
    }

    /// Whether the account has no permission to read a file, so that [`Self::find`] does not find it.
    ///
    /// # Errors
    /// The request failed, or was refused for another reason.
    pub async fn is_denied(&self, file: &str) -> Result<bool, RequestError> {
        let answer = self.request(Method::GET, file, Some(FIRST_BYTE)).await?;
        // An empty file has no first byte.
        if answer.is_denied() || answer.status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(answer.is_denied());
        }
        answer.found(true).map(|_| false)
    }

    /// Requests a file, or its bytes `byte_range`. Unlike [`Self::find`], it fails if the account
    /// has no permission to read the file.
    ///
    /// # Errors
    /// The request failed or was refused.
    pub async fn get(
        &self,
        file: &str,
        byte_range: Option<Range<u64>>,
    ) -> Result<Option<Answer>, RequestError> {
        let is_partial = byte_range.is_some();
        let answer = self.request(Method::GET, file, byte_range).await?;
        answer.found(is_partial)
    }

    async fn request(
        &self,
        method: Method,
        file: &str,
        byte_range: Option<Range<u64>>,
    ) -> Result<Answer, RequestError> {
        let operation = self.operation(method, file);
        self.send_unsigned(&Unsigned {
            operation,
            headers: &BTreeMap::new(),
            byte_range,
            body: Bytes::new(),
        })
        .await
    }

    /// Opens a file of any length as a stream that begins at byte `from`. Only the head of the
    /// answer is retried. Returns `None` if there is no such file.
    ///
    /// # Errors
    /// The request failed or was refused, or other bytes came back.
    pub async fn stream(
        &self,
        file: &str,
        from: u64,
    ) -> Result<Option<ArrivingFile>, RequestError> {
        let unsigned = Unsigned {
            operation: self.operation(Method::GET, file),
            headers: &BTreeMap::new(),
            byte_range: (from > 0).then_some(from..u64::MAX),
            body: Bytes::new(),
        };
        let attempt = || async {
            let attempt = self.begin(&unsigned);
            let response = attempt.response().await?;
            let status = response.status();
            let is_whole = status == StatusCode::OK && from == 0;
            if is_whole || begins_at(&response, from) {
                let (head, body) = response.into_parts();
                let headers = head.headers;
                return Ok(Ok(ArrivingFile { headers, body }));
            }
            if status.is_success() {
                let operation = &unsigned.operation;
                let message = format!(
                    "{operation} was answered {} without the byte range from {from} on",
                    status.as_u16()
                );
                return Err(RequestError::Refused {
                    message,
                    status,
                    is_transient: false,
                });
            }
            attempt.read(response).await.map(Err)
        };
        let is_retried = |opened: &Result<ArrivingFile, Answer>| {
            let refused = opened.as_ref().err();
            refused.is_some_and(|answer| answer.is_transient() || answer.is_expired())
        };
        match self.retry(attempt, is_retried).await? {
            Ok(download) => Ok(Some(download)),
            Err(answer) if answer.status == StatusCode::NOT_FOUND => Ok(None),
            Err(answer) => Err(answer.into_error()),
        }
    }

    fn operation(&self, method: Method, file: &str) -> Operation {
        Operation {
            method,
            object: self.path.object(file),
        }
    }

    async fn send_unsigned(&self, unsigned: &Unsigned<'_>) -> Result<Answer, RequestError> {
        let attempt = || async {
            let attempt = self.begin(unsigned);
            attempt.read(attempt.response().await?).await
        };
        self.retry(attempt, |answer: &Answer| {
            answer.is_transient() || answer.is_expired()
        })
        .await
    }

    /// Repeats a request while its answer is transient or lost, up to [`ATTEMPTS_MAX`] times.
    async fn retry<Outcome, Attempt>(
        &self,
        attempt: impl Fn() -> Attempt,
        is_transient: impl Fn(&Outcome) -> bool,
    ) -> Result<Outcome, RequestError>
    where
        Attempt: Future<Output = Result<Outcome, RequestError>>,
    {
        let mut waits = Backoff::new(
            fastrand::Rng::new(),
            ATTEMPTS_MAX,
            self.first_wait_max,
            WAIT_MAX,
        );
        loop {
            let outcome = attempt().await;
            let is_retried = match &outcome {
                Ok(outcome) => is_transient(outcome),
                Err(RequestError::Lost(_)) => true,
                Err(_) => false,
            };
            match waits.next() {
                Some(wait) if is_retried => tokio::time::sleep(wait).await,
                _ => return outcome,
            }
        }
    }

    fn begin<'request>(
        &'request self,
        unsigned: &'request Unsigned<'request>,
    ) -> Attempt<'request> {
        Attempt {
            client: self,
            unsigned,
            url: None,
            lease: self.http.lease(),
            deadline: Instant::now() + self.attempt_time_max,
        }
    }

    /// Signs a request.
    async fn signed(&self, unsigned: &Unsigned<'_>) -> Result<Request<Full<Bytes>>, RequestError> {
        let Operation { method, object } = &unsigned.operation;
        let url = self
            .signer
            .sign(method.clone(), object, unsigned.headers, EXPIRY)
            .await?;
        request_to(&url, unsigned)
    }
}

/// A request to the URL that was signed for it.
fn request_to(
    url: &SignedUrl,
    unsigned: &Unsigned<'_>,
) -> Result<Request<Full<Bytes>>, RequestError> {
    let Unsigned {
        operation,
        headers,
        byte_range,
        body,
    } = unsigned;
    let mut request = Request::builder()
        .method(operation.method.clone())
        .uri(url.expose_secret());
    for (name, value) in *headers {
        request = request.header(name, value);
    }
    if let Some(byte_range) = byte_range {
        let last = match byte_range.end {
            u64::MAX => String::new(),
            end => end.saturating_sub(1).to_string(),
        };
        request = request.header(RANGE, format!("bytes={}-{last}", byte_range.start));
    }
    // The builder's own error could show the URL.
    request.body(Full::new(body.clone())).map_err(|_| {
        RequestError::Lost(format!("{operation} cannot be sent: a header is malformed"))
    })
}

/// Whether a response is a byte range that begins at `from`.
fn begins_at(response: &Response<Incoming>, from: u64) -> bool {
    let content_range = response.headers().get(CONTENT_RANGE);
    let first = content_range
        .and_then(|value| value.to_str().ok()?.strip_prefix("bytes ")?.split_once('-'))
        .and_then(|(first, _)| first.parse().ok());
    response.status() == StatusCode::PARTIAL_CONTENT && first == Some(from)
}

#[cfg(test)]
mod tests;
