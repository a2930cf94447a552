//! A source that injects faults into its responses.
//!
//! It implements HTTP/1.1 itself, because a correct server library refuses to send most of these
//! responses.

use super::faults::{Faults, SourceFault};
use super::source::{listener, valid_body};
use flate2::{Compression, write::GzEncoder};
use prefix_tar::limits::RANGE_BYTES_MAX;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use prefix_tar::protocol::source::SourceUrl;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The largest request head that the source reads, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

type Plan = dyn Fn(RangeName, u32) -> Option<SourceFault> + Send + Sync;
type Bodies = dyn Fn(RangeName) -> Vec<u8> + Send + Sync;

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
        let listener = listener().await;
        let address = listener.local_addr().expect("an address");
        let faults = Arc::<Faults>::default();
        let server_faults = Arc::clone(&faults);
        let (bodies, plan): (Arc<Bodies>, Arc<Plan>) = (Arc::new(bodies), Arc::new(plan));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let connection = Connection {
                    stream,
                    faults: Arc::clone(&server_faults),
                    bodies: Arc::clone(&bodies),
                    plan: Arc::clone(&plan),
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

/// A client's connection.
struct Connection {
    stream: TcpStream,
    faults: Arc<Faults>,
    bodies: Arc<Bodies>,
    plan: Arc<Plan>,
}

impl Connection {
    /// Answers requests in turn until the client or a fault closes the connection.
    async fn serve(mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        while let Some(range) = self.next_request().await? {
            let body = (self.bodies)(range);
            let attempt = self.faults.range_attempt(range);
            let Some(fault) = (self.plan)(range, attempt) else {
                self.stream.write_all(&good(&body)).await?;
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
                self.stream.write_all(&head(200, "")).await?;
                let chunk = valid_body(any_range(), 64 * 1024);
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

/// Some range, for bodies whose content does not matter.
fn any_range() -> RangeName {
    Prefix::from_number(0).range(0)
}

/// The head of a response, with additional header lines.
fn head(status: u16, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\ncontent-type: text/plain\r\n{headers}\r\n").into_bytes()
}

/// A response with a body and its `Content-Length`.
fn with_body(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let headers = format!("{headers}content-length: {}\r\n", body.len());
    let mut answer = head(status, &headers);
    answer.extend_from_slice(body);
    answer
}

/// A response without a fault.
fn good(body: &[u8]) -> Vec<u8> {
    let headers = "etag: \"a\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
    with_body(200, headers, body)
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("compressed data");
    encoder.finish().expect("a finished gzip stream")
}

/// 64 MiB in gzip that states a decoded size of 30,000 bytes.
fn gzip_bomb() -> Vec<u8> {
    let mut bomb = gzip(&vec![b'A'; 64 * 1024 * 1024]);
    let size_at = bomb.len() - 4;
    bomb[size_at..].copy_from_slice(&30_000_u32.to_le_bytes());
    bomb
}

/// The body with a fault in its lines.
fn wrong_lines(fault: SourceFault, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body).into_owned();
    let mut lines: Vec<&str> = text.split("\r\n").collect();
    match fault {
        SourceFault::Reordered => lines.swap(0, 1),
        SourceFault::Duplicated => lines.insert(1, lines[0]),
        SourceFault::LowerCase => return text.to_ascii_lowercase(),
        SourceFault::LfOnly => return lines.join("\n"),
        SourceFault::OtherMode => {
            for line in &mut lines {
                *line = &line[8..];
            }
        }
        _ => return format!("{text}\r\n{}:0", "F".repeat(35)),
    }
    lines.join("\r\n")
}

/// A response whose body is one chunk, correctly terminated.
fn chunked(headers: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = head(200, &format!("{headers}transfer-encoding: chunked\r\n"));
    answer.extend(format!("{:x}\r\n", body.len()).into_bytes());
    answer.extend_from_slice(body);
    answer.extend_from_slice(b"\r\n0\r\n\r\n");
    answer
}

/// A response with a fault, and whether the connection closes after it.
fn wrong(fault: SourceFault, body: &[u8]) -> (Vec<u8>, bool) {
    let encoded = |body: &[u8]| with_body(200, "content-encoding: gzip\r\n", body);
    let answer = match fault {
        SourceFault::Status(status) => with_body(status, "", b"<html>no</html>"),
        SourceFault::RetryAfter(status, seconds) => {
            with_body(status, &format!("retry-after: {seconds}\r\n"), b"")
        }
        SourceFault::RetryAfterDate(status, seconds) => {
            let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds));
            with_body(status, &format!("retry-after: {date}\r\n"), b"")
        }
        SourceFault::Redirect => with_body(
            302,
            "location: http://elsewhere.example/range/00000\r\n",
            b"",
        ),
        SourceFault::Html => with_body(
            200,
            "",
            b"<!DOCTYPE html><html><title>Sign in</title></html>",
        ),
        SourceFault::Reordered
        | SourceFault::Duplicated
        | SourceFault::LowerCase
        | SourceFault::LfOnly
        | SourceFault::OtherMode
        | SourceFault::Padding => with_body(200, "", wrong_lines(fault, body).as_bytes()),
        SourceFault::Oversized => {
            with_body(200, "", &valid_body(any_range(), RANGE_BYTES_MAX + 39))
        }
        SourceFault::GzipDamaged => {
            let mut damaged = gzip(body);
            let middle = damaged.len() / 2;
            damaged[middle] ^= 0x55;
            encoded(&damaged)
        }
        SourceFault::GzipCut => {
            let whole = gzip(body);
            chunked("content-encoding: gzip\r\n", &whole[..whole.len() / 2])
        }
        SourceFault::GzipBomb => encoded(&gzip_bomb()),
        SourceFault::Brotli => with_body(200, "content-encoding: br\r\n", body),
        SourceFault::Headers(count) => {
            let headers: String = (0..count).map(|n| format!("x-{n}: y\r\n")).collect();
            with_body(200, &headers, body)
        }
        SourceFault::HeaderBytes(bytes) => {
            with_body(200, &format!("etag: \"{}\"\r\n", "e".repeat(bytes)), body)
        }
        SourceFault::TruncatedChunked => chunked("", &body[..body.len() / 2]),
        SourceFault::ChunkedGarbage => {
            let mut answer = head(200, "transfer-encoding: chunked\r\n");
            answer.extend_from_slice(b"zz\r\nnot a chunk\r\n");
            return (answer, true);
        }
        SourceFault::NotHttp => return (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), true),
        SourceFault::Closed
        | SourceFault::ResetAt(_)
        | SourceFault::Stall
        | SourceFault::Drip(_)
        | SourceFault::Endless
        | SourceFault::OtherRange(_)
        | SourceFault::Truncated => unreachable!("these faults are injected elsewhere"),
    };
    (answer, false)
}
