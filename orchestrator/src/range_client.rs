//! [`RangeClient`]: asks a range API for a range, within bounds of time and size.

#[cfg(test)]
mod tests;

use crate::framing::is_framed;
use crate::http_client::{self, HttpClient};
use crate::origin::Origin;
use crate::proxy::CREDENTIALS_HINT;
use crate::range_api::request::ADD_PADDING;
use crate::tls::private_issuer_hint;
use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use prefix_tar::engine::content_md5::Md5Check;
use prefix_tar::engine::head::{BodyEnd, Head, HeadFault};
use prefix_tar::engine::range_body::{RangeBodyError, RangeCheck};
use prefix_tar::engine::retry::{Backoff, with_attempts};
use prefix_tar::limits::RANGE_BYTES_MAX;
use prefix_tar::protocol::failure::CERTIFICATE_NOT_TRUSTED;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::RangeName;
use prefix_tar::protocol::source::SourceUrl;
use prefix_tar::protocol::store_answer::is_transient_source_status;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest padded answer, in bytes: the largest range, and more padding than the API's documentation says.
const PADDED_BYTES_MAX: usize = RANGE_BYTES_MAX + 64 * 1024;

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

/// A client of one range API.
#[derive(Debug)]
pub struct RangeClient {
    source: SourceUrl,
    mode: Mode,
    http: HttpClient,
}

/// Why an API does not deliver a range. The message names the API, and not the range.
#[derive(Debug, thiserror::Error)]
pub struct ClientError {
    source_url: String,
    fault: Fault,
    attempts: u32,
    elapsed: Duration,
}

impl fmt::Display for ClientError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&with_attempts(&self.reason(), self.attempts, self.elapsed))
    }
}

impl ClientError {
    /// The message without the number of attempts and their time, so that ranges that fail for the same reason have the
    /// same text.
    pub fn reason(&self) -> String {
        let reason = format!("{} {}", self.source_url, self.fault);
        let hint = match self.fault {
            Fault::Status(StatusCode::PROXY_AUTHENTICATION_REQUIRED) => Some(CREDENTIALS_HINT),
            _ => private_issuer_hint(&reason),
        };
        match hint {
            Some(hint) => format!("{reason}; {hint}"),
            None => reason,
        }
    }

    /// Whether a GET may be answered although this HEAD was not: some servers only know GET, and some send heads of
    /// which the component would not take a body.
    pub fn may_concern_head_only(&self) -> bool {
        match self.fault {
            Fault::Status(StatusCode::NOT_IMPLEMENTED) | Fault::Head(_) => true,
            Fault::Status(_) => !self.fault.is_transient(),
            _ => false,
        }
    }
}

/// Why one attempt failed.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("cannot be asked: {0}")]
    Lost(String),
    /// The proxy on the way does not let the request through.
    #[error("cannot be asked: {0}")]
    Refused(String),
    #[error("did not answer within {} s", ATTEMPT_TIME_MAX.as_secs())]
    Late,
    #[error("cut its answer off")]
    CutOff,
    #[error("answered {}", .0.as_u16())]
    Status(StatusCode),
    #[error("answered with more than {0} bytes")]
    TooLong(usize),
    #[error("answered in an encoding that it was not asked for")]
    Encoded,
    #[error("answered with an invalid range: {0}")]
    Head(HeadFault),
    #[error("answered with an invalid range: {0}")]
    Body(RangeBodyError),
    #[error("answered with an invalid range: its body does not match its Content-MD5")]
    Md5,
    #[error("cannot be asked: its URL is not valid")]
    Url,
}

impl Fault {
    fn is_transient(&self) -> bool {
        match self {
            // A certificate is the same a second later.
            Self::Lost(cause) => !cause.contains(CERTIFICATE_NOT_TRUSTED),
            // A cache or a proxy on the way may have damaged an invalid range.
            Self::Late | Self::CutOff | Self::Head(_) | Self::Body(_) | Self::Md5 => true,
            Self::Status(status) => is_transient_source_status(status.as_u16()),
            Self::Refused(_) | Self::TooLong(_) | Self::Encoded | Self::Url => false,
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Head,
    Body,
    PaddedBody,
}

impl RangeClient {
    /// A client that asks the API at `source` for hashes of `mode`. If given, the certificates of a CA file are trusted, too.
    ///
    /// # Errors
    /// The CA file or a proxy of the environment is not usable.
    pub fn new(source: SourceUrl, mode: Mode, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let http = http_client::to_source(ca_file, Origin::of_source(&source))?;
        Ok(Self { source, mode, http })
    }

    /// Which hashes it asks for.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Asks for a range, and has its length hidden by padding. Of the body, only that it is whole is checked.
    ///
    /// # Errors
    /// No attempt was answered with a body.
    pub async fn padded_body(&self, range: RangeName) -> Result<Bytes, ClientError> {
        let attempt = async || {
            let lease = self.http.lease();
            let request = self.request(range, Wanted::PaddedBody)?;
            let response = answered(lease.request(request).await)?;
            let head = head_of(response.headers())?;
            // The API's MD5 may be that of the range without the padding, which does not show that nothing was cut.
            check_framing(
                &response,
                &Head {
                    content_md5: None,
                    ..head.clone()
                },
            )?;
            let body = lease.watch(collect(response, PADDED_BYTES_MAX)).await?;
            let is_whole = matches_md5(&body, &head) || matches_md5(&without_padding(&body), &head);
            is_whole.then_some(body).ok_or(Fault::Md5)
        };
        self.attempt(attempt).await
    }

    /// Asks for a range as a run does, and applies the component's checks to it.
    ///
    /// # Errors
    /// No attempt was answered with a whole, valid range.
    pub async fn whole_body(&self, range: RangeName) -> Result<Bytes, ClientError> {
        let attempt = async || {
            let lease = self.http.lease();
            let request = self.request(range, Wanted::Body)?;
            let response = answered(lease.request(request).await)?;
            let head = head_of(response.headers())?;
            check_framing(&response, &head)?;
            let body = lease.watch(collect(response, RANGE_BYTES_MAX)).await?;
            check(&body, self.mode, &head)?;
            Ok(body)
        };
        self.attempt(attempt).await
    }

    /// Asks what the API states of a range, without its body.
    ///
    /// # Errors
    /// No attempt was answered with the head of a range.
    pub async fn head(&self, range: RangeName) -> Result<Head, ClientError> {
        let attempt = async || {
            let lease = self.http.lease();
            let request = self.request(range, Wanted::Head)?;
            head_of(answered(lease.request(request).await)?.headers())
        };
        self.attempt(attempt).await
    }

    /// Makes attempts until one succeeds, fails for good, or was the last.
    async fn attempt<T>(
        &self,
        attempt: impl AsyncFn() -> Result<T, Fault>,
    ) -> Result<T, ClientError> {
        let started = Instant::now();
        let random = fastrand::Rng::new();
        let mut waits = Backoff::new(random, ATTEMPTS_MAX, FIRST_WAIT_MAX, WAIT_MAX);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let outcome = tokio::time::timeout(ATTEMPT_TIME_MAX, attempt()).await;
            let fault = match outcome.unwrap_or(Err(Fault::Late)) {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            match waits.next().filter(|_| fault.is_transient()) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => {
                    return Err(ClientError {
                        source_url: self.source.to_string(),
                        fault,
                        attempts,
                        elapsed: started.elapsed(),
                    });
                }
            }
        }
    }

    fn request(&self, range: RangeName, wanted: Wanted) -> Result<Request<Full<Bytes>>, Fault> {
        let scheme = if self.source.is_https() {
            "https"
        } else {
            "http"
        };
        let uri = http::Uri::builder()
            .scheme(scheme)
            .authority(self.source.authority().to_string())
            .path_and_query(self.source.range_path(range, self.mode))
            .build()
            .map_err(|_| Fault::Url)?;
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri;
        if wanted == Wanted::Head {
            *request.method_mut() = Method::HEAD;
        }
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if wanted == Wanted::PaddedBody {
            headers.insert(ADD_PADDING, HeaderValue::from_static("true"));
        }
        Ok(request)
    }
}

/// The answer, if its status is that of a range.
fn answered(
    answer: Result<Response<Incoming>, hyper_util::client::legacy::Error>,
) -> Result<Response<Incoming>, Fault> {
    let response = answer.map_err(|error| {
        let is_refused =
            http_client::proxy_failure(&error).is_some_and(|failure| !failure.is_transient());
        match is_refused {
            true => Fault::Refused(http_client::cause(&error)),
            false => Fault::Lost(http_client::cause(&error)),
        }
    })?;
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(Fault::Status(status)),
    }
}

/// Checks that the body comes as it was asked for, and that its end can be told from a cut.
fn check_framing(response: &Response<Incoming>, head: &Head) -> Result<(), Fault> {
    if head.is_gzip {
        return Err(Fault::Encoded);
    }
    let end = || match is_framed(response) {
        true => BodyEnd::Marked,
        false => BodyEnd::Connection,
    };
    head.check_framing(end).map_err(Fault::Head)
}

fn head_of(headers: &HeaderMap) -> Result<Head, Fault> {
    let values = |name| {
        let values = headers.get_all(name).iter();
        values.map(|value| value.as_bytes().to_vec()).collect()
    };
    Head::read(values).map_err(|fault| match fault {
        HeadFault::TooLarge => Fault::TooLong(RANGE_BYTES_MAX),
        HeadFault::Encoding => Fault::Encoded,
        fault => Fault::Head(fault),
    })
}

/// Reads an answer to its end.
async fn collect(response: Response<Incoming>, bytes_max: usize) -> Result<Bytes, Fault> {
    match Limited::new(response.into_body(), bytes_max)
        .collect()
        .await
    {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Fault::TooLong(bytes_max)),
        Err(_) => Err(Fault::CutOff),
    }
}

/// Applies the component's checks to a body.
fn check(body: &[u8], mode: Mode, head: &Head) -> Result<(), Fault> {
    let mut lines = RangeCheck::new(mode);
    lines.push(body).map_err(Fault::Body)?;
    lines.finish().map_err(Fault::Body)?;
    match matches_md5(body, head) {
        true => Ok(()),
        false => Err(Fault::Md5),
    }
}

/// Whether a body has the MD5 that its head states, if it states one.
fn matches_md5(body: &[u8], head: &Head) -> bool {
    head.content_md5.is_none_or(|stated| {
        let mut md5 = Md5Check::new(stated);
        md5.push(body);
        md5.matches()
    })
}

/// The lines of a body whose count is not 0, as the API separates them.
fn without_padding(body: &[u8]) -> Vec<u8> {
    let lines = body.split(|byte| *byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let kept: Vec<&[u8]> = lines.filter(|line| !line.ends_with(b":0")).collect();
    kept.join(&b"\r\n"[..])
}
