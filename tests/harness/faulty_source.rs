//! A source that injects faults into its responses.
//!
//! It implements HTTP/1.1 itself, because a correct server library refuses to send most of these
//! responses.

mod answers;

use super::faults::{Faults, SourceFault, SourceForm};
use super::source::listener;
use answers::{endless, good, whole, wrong};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use prefix_tar::protocol::prefix::RangeName;
use prefix_tar::protocol::source::SourceUrl;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The largest request head that the source reads, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// When every range was modified.
const MODIFIED: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

type Plan = dyn Fn(RangeName, u32) -> Option<SourceFault> + Send + Sync;
type Bodies = dyn Fn(RangeName) -> Vec<u8> + Send + Sync;
type Forms = dyn Fn(RangeName) -> SourceForm + Send + Sync;

/// A source that injects faults. It stops when dropped.
pub(crate) struct FaultySource {
    url: SourceUrl,
    faults: Arc<Faults>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FaultySource {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FaultySource {
    /// Starts a source that serves `bodies`. `plan` gets the range and the number of the attempt,
    /// from 1, and chooses the fault.
    pub(crate) async fn start(
        bodies: impl Fn(RangeName) -> Vec<u8> + Send + Sync + 'static,
        plan: impl Fn(RangeName, u32) -> Option<SourceFault> + Send + Sync + 'static,
    ) -> Self {
        Self::start_with_forms(bodies, plan, |_| SourceForm::Plain).await
    }

    /// Starts a source without faults. `forms` chooses the form of each response.
    pub(crate) async fn in_forms(
        bodies: impl Fn(RangeName) -> Vec<u8> + Send + Sync + 'static,
        forms: impl Fn(RangeName) -> SourceForm + Send + Sync + 'static,
    ) -> Self {
        Self::start_with_forms(bodies, |_, _| None, forms).await
    }

    async fn start_with_forms(
        bodies: impl Fn(RangeName) -> Vec<u8> + Send + Sync + 'static,
        plan: impl Fn(RangeName, u32) -> Option<SourceFault> + Send + Sync + 'static,
        forms: impl Fn(RangeName) -> SourceForm + Send + Sync + 'static,
    ) -> Self {
        let listener = listener().await;
        let address = listener.local_addr().expect("an address");
        let faults = Arc::<Faults>::default();
        let server_faults = Arc::clone(&faults);
        let (bodies, plan): (Arc<Bodies>, Arc<Plan>) = (Arc::new(bodies), Arc::new(plan));
        let forms: Arc<Forms> = Arc::new(forms);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let connection = Connection {
                    stream,
                    faults: Arc::clone(&server_faults),
                    bodies: Arc::clone(&bodies),
                    plan: Arc::clone(&plan),
                    forms: Arc::clone(&forms),
                };
                // Closed and reset connections are expected.
                connections.spawn(async move { connection.serve().await.unwrap_or_default() });
            }
        });
        Self {
            url: format!("http://{address}").parse().expect("a source"),
            faults,
            task,
        }
    }

    pub(crate) const fn url(&self) -> &SourceUrl {
        &self.url
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }
}

/// The body of `range`: `lines` to `lines + 6` lines, always the same for this range and different
/// from all others.
pub(crate) fn body_of(range: RangeName, lines: u64) -> Vec<u8> {
    let number = u128::from(range.prefix().number()) << 12 | u128::from(range.index());
    let count = lines + u64::try_from(number % 7).expect("a number below 7");
    let text: String = (0..count)
        .map(|line| {
            let suffix = u128::from(line) << 64 | number << 8 | 0xA;
            format!("{suffix:035X}:{}\r\n", line + 1)
        })
        .collect();
    // Like the real API, the body has no line end after its last line.
    text.trim_end().as_bytes().to_vec()
}

/// The answer to a request for a range, without a fault, for a server that speaks HTTP/2.
pub(crate) fn good_answer(request: &Request<Incoming>, lines: u64) -> Response<Full<Bytes>> {
    let name = request.uri().path().trim_start_matches("/range/");
    let range = name.parse().expect("a range");
    Response::builder()
        .header("last-modified", MODIFIED)
        .body(Full::new(body_of(range, lines).into()))
        .expect("a response")
}

/// A client's connection.
struct Connection {
    stream: TcpStream,
    faults: Arc<Faults>,
    bodies: Arc<Bodies>,
    plan: Arc<Plan>,
    forms: Arc<Forms>,
}

impl Connection {
    /// Answers requests in turn until the client or a fault closes the connection.
    async fn serve(mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        while let Some(range) = self.next_request().await? {
            let body = (self.bodies)(range);
            let attempt = self.faults.range_attempt(range);
            let Some(fault) = (self.plan)(range, attempt) else {
                let (answer, is_last) = whole((self.forms)(range), &body);
                self.stream.write_all(&answer).await?;
                if is_last {
                    return Ok(());
                }
                continue;
            };
            self.faults.record(&fault);
            if let SourceFault::OtherRange(index) = fault {
                let other = (self.bodies)(range.prefix().range(index));
                self.stream.write_all(&good(&other)).await?;
                continue;
            }
            if !self.inject(fault, &body).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads a request. Returns `None` if it is not for a range, or if the client closed the
    /// connection.
    async fn next_request(&mut self) -> io::Result<Option<RangeName>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
            let mut chunk = [0; 1024];
            let read = self.stream.read(&mut chunk).await?;
            if read == 0 {
                return Ok(None);
            }
            head.extend_from_slice(&chunk[..read]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let range = head
            .strip_prefix("GET /range/")
            .and_then(|rest| rest.get(..5)?.parse().ok());
        Ok(range)
    }

    /// Answers with a fault. Returns whether the connection can serve another request.
    async fn inject(&mut self, fault: SourceFault, body: &[u8]) -> io::Result<bool> {
        match fault {
            SourceFault::Closed => return Ok(false),
            SourceFault::ResetAt(bytes) => {
                let answer = good(body);
                self.stream
                    .write_all(&answer[..bytes.min(answer.len())])
                    .await?;
                self.stream.set_zero_linger()?;
                return Ok(false);
            }
            SourceFault::Stall => std::future::pending().await,
            SourceFault::Drip(milliseconds) => {
                let answer = good(body);
                let (head, body) = answer.split_at(answer.len() - body.len());
                self.stream.write_all(head).await?;
                for byte in body {
                    self.stream.write_all(&[*byte]).await?;
                    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                }
            }
            SourceFault::Endless => {
                let (head, chunk) = endless();
                self.stream.write_all(&head).await?;
                loop {
                    self.stream.write_all(&chunk).await?;
                }
            }
            SourceFault::Truncated => {
                let answer = good(body);
                let cut = answer.len() - body.len() / 2;
                self.stream.write_all(&answer[..cut]).await?;
                return Ok(false);
            }
            _ => {
                let (answer, is_last) = wrong(fault, body);
                self.stream.write_all(&answer).await?;
                return Ok(!is_last);
            }
        }
        Ok(true)
    }
}
