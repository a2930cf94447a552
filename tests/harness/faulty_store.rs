//! Injects faults into uploads to the emulator.

use super::faults::{Faults, StoreFault};
use bytes::Bytes;
use emulator::Emulator;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, SizeHint};
use orchestrator::origin::{InProcessBody, InProcessServer};
use prefix_tar::protocol::prefix::Prefix;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

type Plan = dyn Fn(Prefix, u32) -> Option<StoreFault> + Send + Sync;

/// An emulator whose uploads fail according to a plan.
pub(crate) struct FaultyStore {
    inner: Arc<Emulator>,
    faults: Arc<Faults>,
    plan: Box<Plan>,
}

impl FaultyStore {
    /// Wraps `inner`. `plan` gets the prefix and the number of the attempt at its PUT, from 1, and
    /// chooses the fault.
    pub(crate) fn new(
        inner: Arc<Emulator>,
        faults: Arc<Faults>,
        plan: impl Fn(Prefix, u32) -> Option<StoreFault> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner,
            faults,
            plan: Box::new(plan),
        })
    }

    /// The fault for this request, if it uploads a tar and the plan has one.
    fn fault(&self, request: &Request<InProcessBody>) -> Option<StoreFault> {
        if request.method() != Method::PUT {
            return None;
        }
        let object = request.uri().path().rsplit('/').next()?;
        let prefix = object.strip_suffix(".tar")?.parse().ok()?;
        let fault = (self.plan)(prefix, self.faults.put_attempt(prefix))?;
        self.faults.record(&fault);
        Some(fault)
    }
}

#[async_trait::async_trait]
impl InProcessServer for FaultyStore {
    async fn answer(&self, request: Request<InProcessBody>) -> io::Result<Response<InProcessBody>> {
        let Some(fault) = self.fault(&request) else {
            return InProcessServer::answer(&*self.inner, request).await;
        };
        match fault {
            StoreFault::Before(code) => Ok(status(code)),
            StoreFault::Stall => std::future::pending().await,
            StoreFault::Midway(code, bytes) => {
                self.upload_part(request, bytes).await;
                Ok(status(code))
            }
            StoreFault::CutAt(bytes) => {
                self.upload_part(request, bytes).await;
                Err(io::ErrorKind::ConnectionReset.into())
            }
            StoreFault::AfterStoring(code) => {
                let stored = InProcessServer::answer(&*self.inner, request).await?;
                assert_eq!(stored.status(), 200);
                Ok(status(code))
            }
            StoreFault::LostAfterStoring => {
                let stored = InProcessServer::answer(&*self.inner, request).await?;
                assert_eq!(stored.status(), 200);
                Err(io::ErrorKind::ConnectionReset.into())
            }
            StoreFault::WrongHash => {
                let mut stored = InProcessServer::answer(&*self.inner, request).await?;
                let wrong = http::HeaderValue::from_static("crc32c=AAAAAA==");
                stored.headers_mut().insert("x-goog-hash", wrong);
                Ok(stored)
            }
        }
    }
}

impl FaultyStore {
    /// Sends at most the first `bytes` of an upload to the emulator, then breaks the connection.
    async fn upload_part(&self, request: Request<InProcessBody>, bytes: u64) {
        let broken = request.map(|body| BrokenBody { body, left: bytes }.boxed_unsync());
        let refused = InProcessServer::answer(&*self.inner, broken).await;
        assert_ne!(
            refused.map(|refused| refused.status().as_u16()).ok(),
            Some(200)
        );
    }
}

fn status(code: u16) -> Response<InProcessBody> {
    let document = "<?xml version='1.0'?><Error><Code>Injected</Code></Error>";
    let body = Full::new(Bytes::from_static(document.as_bytes()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = http::StatusCode::from_u16(code).expect("a status");
    response
}

/// A body that fails before it exceeds `left` bytes, as if the connection broke.
struct BrokenBody {
    body: InProcessBody,
    left: u64,
}

impl hyper::body::Body for BrokenBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let Some(Ok(frame)) = frame else {
            return Poll::Ready(frame);
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        Poll::Ready(match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Some(Ok(frame))
            }
            None => Some(Err(io::ErrorKind::ConnectionReset.into())),
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A TCP proxy that resets its first connection after a number of bytes from the client. It stops
/// when dropped.
pub(crate) struct CuttingProxy(tokio::task::JoinHandle<()>);

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl CuttingProxy {
    /// Starts a proxy on `listener` to `to`. It cuts the first connection after `cut_at` bytes.
    pub(crate) fn start(listener: TcpListener, to: SocketAddr, cut_at: u64) -> Self {
        Self(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            let mut cut_at = Some(cut_at);
            while let Ok((client, _)) = listener.accept().await {
                let bytes_max = cut_at.take().unwrap_or(u64::MAX);
                connections
                    .spawn(async move { forward(client, to, bytes_max).await.unwrap_or_default() });
            }
        }))
    }
}

/// Forwards both directions until either side closes, or the client has sent `bytes_max`. Then
/// resets both connections.
async fn forward(mut client: TcpStream, to: SocketAddr, bytes_max: u64) -> std::io::Result<()> {
    let mut server = TcpStream::connect(to).await?;
    {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let mut up = (&mut from_client).take(bytes_max);
        tokio::select! {
            up = tokio::io::copy(&mut up, &mut to_server) => up?,
            down = tokio::io::copy(&mut from_server, &mut to_client) => down?,
        };
    }
    client.set_zero_linger()?;
    server.set_zero_linger()
}
