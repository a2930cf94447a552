//! Small requests to the store by signed URL: signed anew for each attempt, tried again where that is worth it.
//! What is asked for, and what an answer means, is left to the destination.

use crate::sign::UrlSigner;
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prefix_tar::limits::REPORT_BYTES_MAX;
use prefix_tar::retry::Backoff;
use prefix_tar::store_answer::{error_code, is_passing_status};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Attempts at one request. Google asks for a wait from 1 s, doubling:
/// <https://cloud.google.com/storage/docs/retry-strategy>
const ATTEMPTS_MAX: u32 = 5;

/// The longest first wait.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(1);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(16);

/// One attempt, from its signature to the last byte of its answer.
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
    tried: String,
}

impl Answer {
    /// An answer that nothing can be done with, with the store's `<Code>` and never the URL.
    pub(super) fn unexpected(&self) -> anyhow::Error {
        let text = String::from_utf8_lossy(&self.body);
        let code = error_code(&text);
        let status = self.status.as_u16();
        let advice = match status {
            401 | 403 => "; does the account that signs have the right to do this?",
            _ => "",
        };
        anyhow::anyhow!(
            "{} was answered {status} {}{advice}",
            self.tried,
            code.unwrap_or_default()
        )
    }
}

/// Requests of one bucket.
#[derive(Debug)]
pub(super) struct Requests {
    signer: UrlSigner,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Requests {
    pub(super) fn new(signer: UrlSigner, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let connector = crate::tls::connector(ca_file)?;
        Ok(Self {
            signer,
            client: Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .build(connector),
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
        let mut waits = Backoff::new(fastrand::Rng::new(), ATTEMPTS_MAX, FIRST_WAIT_MAX, WAIT_MAX);
        loop {
            let attempt = self.send_once(&method, object, headers, body.clone());
            let outcome = match tokio::time::timeout(ATTEMPT_TIME_MAX, attempt).await {
                Ok(outcome) => outcome,
                Err(_) => Err(anyhow::anyhow!("{method} of {object} took too long")),
            };
            let is_final = outcome
                .as_ref()
                .is_ok_and(|answer| !is_passing_status(answer.status.as_u16()));
            match waits.next() {
                Some(wait) if !is_final => tokio::time::sleep(wait).await,
                _ => return outcome,
            }
        }
    }

    /// Begins to read an object, however long it is. Not tried again: who reads it knows how far that went.
    pub(super) async fn open(&self, object: &str) -> anyhow::Result<Result<Incoming, Answer>> {
        let none = BTreeMap::new();
        let head = self.head_of(&Method::GET, object, &none, Bytes::new());
        let (response, tried) = tokio::time::timeout(ATTEMPT_TIME_MAX, head).await??;
        if response.status() == StatusCode::OK {
            return Ok(Ok(response.into_body()));
        }
        Ok(Err(whole(response, tried).await?))
    }

    async fn send_once(
        &self,
        method: &Method,
        object: &str,
        headers: &BTreeMap<String, String>,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let (response, tried) = self.head_of(method, object, headers, body).await?;
        whole(response, tried).await
    }

    /// Signs and sends a request; gives the response, and what was tried.
    async fn head_of(
        &self,
        method: &Method,
        object: &str,
        headers: &BTreeMap<String, String>,
        body: Bytes,
    ) -> anyhow::Result<(Response<Incoming>, String)> {
        let tried = format!("{method} of {object}");
        let url = self
            .signer
            .sign(method.clone(), object, headers, EXPIRY)
            .await?;
        let mut request = http::Request::builder()
            .method(method.clone())
            .uri(url.expose_to_the_wire());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        // Neither error may be shown as it is: it could show the URL.
        let request = request
            .body(Full::new(body))
            .map_err(|_| anyhow::anyhow!("{tried} cannot be sent: a header is malformed"))?;
        let response = self.client.request(request).await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            anyhow::anyhow!("{tried} failed: {}", cause.unwrap_or_default())
        })?;
        Ok((response, tried))
    }
}

/// Reads an answer to its end.
async fn whole(response: Response<Incoming>, tried: String) -> anyhow::Result<Answer> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX);
    let body = body
        .collect()
        .await
        .map_err(|_| anyhow::anyhow!("{tried}: the answer broke off, or is too long"))?;
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body: body.to_bytes(),
        tried,
    })
}
