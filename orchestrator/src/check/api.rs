//! [`RangeApi`]: asks a range API for a range, within bounds of time and size.

use crate::http_client::{self, HttpClient};
use crate::range_api::request::ADD_PADDING;
use crate::tls::private_issuer_hint;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use prefix_tar::engine::retry::{Backoff, with_attempts};
use prefix_tar::limits::RANGE_BYTES_MAX;
use prefix_tar::protocol::failure::CERTIFICATE_NOT_TRUSTED;
use prefix_tar::protocol::prefix::RangeName;
use prefix_tar::protocol::source::SourceUrl;
use prefix_tar::protocol::store_answer::is_transient_source_status;
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest answer, in bytes: the largest range, and more padding than the API's documentation says.
const ANSWER_BYTES_MAX: usize = RANGE_BYTES_MAX + 64 * 1024;

/// Attempts at one range. Somebody waits for the answer.
const ATTEMPTS_MAX: u32 = 3;

/// One attempt, from its first byte to the last byte of its answer.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(20);

/// The longest first wait between two attempts.
const FIRST_WAIT_MAX: Duration = Duration::from_millis(250);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Who asks.
const AGENT: &str = concat!("prefix-tar/", env!("CARGO_PKG_VERSION"));

/// A range API.
#[derive(Debug)]
pub struct RangeApi {
    source: SourceUrl,
    http: HttpClient,
}

/// Why an API does not deliver a range. The message names the API, and not the range.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    message: String,
}

/// Why one attempt failed.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("cannot be asked: {0}")]
    Lost(String),
    #[error("did not answer within {} s", ATTEMPT_TIME_MAX.as_secs())]
    Late,
    #[error("cut its answer off")]
    CutOff,
    #[error("answered {}", .0.as_u16())]
    Status(StatusCode),
    #[error("answered with more than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("answered in an encoding that it was not asked for")]
    Encoded,
    #[error("cannot be asked: its URL is not valid")]
    Url,
}

impl Fault {
    fn is_transient(&self) -> bool {
        match self {
            // A certificate is the same a second later.
            Self::Lost(cause) => !cause.contains(CERTIFICATE_NOT_TRUSTED),
            Self::Late | Self::CutOff => true,
            Self::Status(status) => is_transient_source_status(status.as_u16()),
            Self::TooLong | Self::Encoded | Self::Url => false,
        }
    }
}

impl RangeApi {
    /// The API at `source`. If given, the certificates of a CA file are trusted, too.
    ///
    /// # Errors
    /// The CA file is not usable.
    pub fn new(source: SourceUrl, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let http = http_client::new(ca_file)?;
        Ok(Self { source, http })
    }

    /// Asks for a range. Its body may be padded.
    ///
    /// # Errors
    /// No attempt was answered with a range.
    pub async fn range(&self, range: RangeName) -> Result<Bytes, ApiError> {
        let started = Instant::now();
        let random = fastrand::Rng::new();
        let mut waits = Backoff::new(random, ATTEMPTS_MAX, FIRST_WAIT_MAX, WAIT_MAX);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let attempt = tokio::time::timeout(ATTEMPT_TIME_MAX, self.attempt(range));
            let fault = match attempt.await.unwrap_or(Err(Fault::Late)) {
                Ok(body) => return Ok(body),
                Err(fault) => fault,
            };
            match waits.next().filter(|_| fault.is_transient()) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => {
                    let message = format!("{} {fault}", self.source);
                    let hint = private_issuer_hint(&message);
                    let mut message = with_attempts(&message, attempts, started.elapsed());
                    if let Some(hint) = hint {
                        message = format!("{message}; {hint}");
                    }
                    return Err(ApiError { message });
                }
            }
        }
    }

    async fn attempt(&self, range: RangeName) -> Result<Bytes, Fault> {
        let lease = self.http.lease();
        let response = lease.request(self.request(range)?).await;
        let response = response.map_err(|error| Fault::Lost(http_client::cause(&error)))?;
        lease.watch(body_of(response)).await
    }

    fn request(&self, range: RangeName) -> Result<Request<Full<Bytes>>, Fault> {
        let scheme = if self.source.is_https() {
            "https"
        } else {
            "http"
        };
        let uri = http::Uri::builder()
            .scheme(scheme)
            .authority(self.source.authority().to_string())
            .path_and_query(self.source.range_path(range))
            .build()
            .map_err(|_| Fault::Url)?;
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ADD_PADDING, HeaderValue::from_static("true"));
        Ok(request)
    }
}

/// Reads an answer to its end.
async fn body_of(response: Response<Incoming>) -> Result<Bytes, Fault> {
    if response.status() != StatusCode::OK {
        return Err(Fault::Status(response.status()));
    }
    let encoding = response.headers().get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Fault::Encoded);
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    match body.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Fault::TooLong),
        Err(_) => Err(Fault::CutOff),
    }
}
