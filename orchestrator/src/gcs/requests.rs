//! Small requests to the store by signed URL: signed anew for each attempt, tried again where that is worth it.
//! What is asked for, and what an answer means, is left to the destination.

use crate::http_client::{self, HttpClient};
use crate::sign::UrlSigner;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use prefix_tar::limits::REPORT_BYTES_MAX;
use prefix_tar::engine::retry::Backoff;
use prefix_tar::protocol::store_answer::{error_code, is_transient_status, refusal};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// Attempts at one request. Google asks for a wait from 1 s, doubling:
/// <https://cloud.google.com/storage/docs/retry-strategy>
const ATTEMPTS_MAX: u32 = 5;

/// The longest first wait.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(1);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(16);

/// One attempt, from its first byte to the last one of its answer.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(60);

/// What is read of an answer, in bytes. A manifest is smaller than a report.
const ANSWER_BYTES_MAX: usize = REPORT_BYTES_MAX;

/// How long a signed URL lives that is used at once.
const EXPIRY: Duration = Duration::from_secs(300);

/// What the store answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    tried: Tried,
}

/// What was tried: a method, and the object that it was about.
struct Tried {
    method: Method,
    object: String,
}

impl fmt::Display for Tried {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {}", self.method, self.object)
    }
}

impl Answer {
    /// An answer that nothing can be done with, with the store's `<Code>` and never the URL.
    pub(super) fn unexpected(&self) -> anyhow::Error {
        anyhow::anyhow!(refusal(
            &self.tried.to_string(),
            self.tried.method.as_str(),
            self.status.as_u16(),
            self.code()
        ))
    }

    /// The store's `<Code>`. An answer to HEAD has none.
    pub(super) fn code(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok().and_then(error_code)
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    /// It could not be signed. Google's client has tried that again where it was worth it.
    #[error(transparent)]
    NotSigned(anyhow::Error),
    /// It was sent in vain.
    #[error(transparent)]
    Lost(anyhow::Error),
}

impl Unanswered {
    fn lost(message: String) -> Self {
        Self::Lost(anyhow::anyhow!(message))
    }
}

/// Requests of one bucket.
#[derive(Debug)]
pub(super) struct Requests {
    signer: UrlSigner,
    client: HttpClient,
}

impl Requests {
    pub(super) fn new(signer: UrlSigner, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self {
            signer,
            client: http_client::new(ca_file)?,
        })
    }

    pub(super) const fn signer(&self) -> &UrlSigner {
        &self.signer
    }

    /// Signs and sends a request until it is answered by something else than 408, 429 or 5xx.
    pub(super) async fn send(
        &self,
        method: Method,
        object: &str,
        headers: &BTreeMap<String, String>,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let (method, body) = (&method, &body);
        let attempt = || async move {
            let (request, tried) = self.signed(method, object, headers, body).await?;
            in_time(&tried.to_string(), async {
                whole(self.head_of(request, &tried).await?, tried).await
            })
            .await
        };
        attempts(attempt, |answer| answer.status).await
    }

    /// Begins to read an object, however long it is. What comes of it is not asked for again: who reads it knows how
    /// far that went.
    pub(super) async fn open(&self, object: &str) -> anyhow::Result<Result<Incoming, Answer>> {
        let (none, empty) = (&BTreeMap::new(), &Bytes::new());
        let attempt = || async move {
            let (request, tried) = self.signed(&Method::GET, object, none, empty).await?;
            in_time(&tried.to_string(), async {
                let response = self.head_of(request, &tried).await?;
                match response.status() {
                    StatusCode::OK => Ok(Ok(response.into_body())),
                    _ => whole(response, tried).await.map(Err),
                }
            })
            .await
        };
        let status = |opened: &Result<Incoming, Answer>| match opened {
            Ok(_) => StatusCode::OK,
            Err(answer) => answer.status,
        };
        attempts(attempt, status).await
    }

    async fn signed(
        &self,
        method: &Method,
        object: &str,
        headers: &BTreeMap<String, String>,
        body: &Bytes,
    ) -> Result<(Request<Full<Bytes>>, Tried), Unanswered> {
        let tried = Tried {
            method: method.clone(),
            object: object.to_owned(),
        };
        let url = self
            .signer
            .sign(method.clone(), object, headers, EXPIRY)
            .await
            .map_err(Unanswered::NotSigned)?;
        let mut request = Request::builder()
            .method(method.clone())
            .uri(url.expose_secret());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        // The error may not be shown as it is: it could show the URL.
        let request = request.body(Full::new(body.clone())).map_err(|_| {
            Unanswered::lost(format!("{tried} cannot be sent: a header is malformed"))
        })?;
        Ok((request, tried))
    }

    async fn head_of(
        &self,
        request: Request<Full<Bytes>>,
        tried: &Tried,
    ) -> Result<Response<Incoming>, Unanswered> {
        self.client.request(request).await.map_err(|error| {
            let cause = http_client::cause(&error);
            Unanswered::lost(format!("{tried} failed: {cause}"))
        })
    }
}

/// Makes attempts until one is answered by something else than 408, 429 or 5xx, or cannot be signed.
async fn attempts<Outcome, Attempt>(
    attempt: impl Fn() -> Attempt,
    status: impl Fn(&Outcome) -> StatusCode,
) -> anyhow::Result<Outcome>
where
    Attempt: Future<Output = Result<Outcome, Unanswered>>,
{
    let mut waits = Backoff::new(fastrand::Rng::new(), ATTEMPTS_MAX, FIRST_WAIT_MAX, WAIT_MAX);
    loop {
        let outcome = attempt().await;
        let is_final = match &outcome {
            Ok(outcome) => !is_transient_status(status(outcome).as_u16()),
            Err(Unanswered::NotSigned(_)) => true,
            Err(Unanswered::Lost(_)) => false,
        };
        match waits.next() {
            Some(wait) if !is_final => tokio::time::sleep(wait).await,
            _ => return Ok(outcome?),
        }
    }
}

async fn in_time<Outcome>(
    tried: &str,
    attempt: impl Future<Output = Result<Outcome, Unanswered>>,
) -> Result<Outcome, Unanswered> {
    tokio::time::timeout(ATTEMPT_TIME_MAX, attempt)
        .await
        .unwrap_or_else(|_| Err(Unanswered::lost(format!("{tried} took too long"))))
}

/// Reads an answer to its end.
async fn whole(response: Response<Incoming>, tried: Tried) -> Result<Answer, Unanswered> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX);
    let body = body
        .collect()
        .await
        .map_err(|_| Unanswered::lost(format!("{tried}: the answer broke off, or is too long")))?;
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body: body.to_bytes(),
        tried,
    })
}
