//! [`ProxyConnector`]: connects to a server, or to it through a proxy. TLS comes after it.

use super::failure::{Fault, ProxyFailure};
use super::variables::Proxy;
use super::{Proxies, Route, default_port, tunnel};
use http::Uri;
use http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use std::error::Error as StdError;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tower_service::Service;

/// From CONNECT to the end of the answer's head. The proxy looks the server up and connects to it in this time. With the
/// connection to the proxy, it is shorter than any wait for a response, so that the message names the proxy.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

type BoxError = Box<dyn StdError + Send + Sync>;

/// Connects, through a proxy where the environment says so.
#[derive(Clone, Debug)]
pub(crate) struct ProxyConnector {
    tcp: HttpConnector,
    proxies: Proxies,
}

impl ProxyConnector {
    /// A connector that opens sockets, also those to proxies, with `tcp`.
    pub(crate) const fn new(tcp: HttpConnector, proxies: Proxies) -> Self {
        Self { tcp, proxies }
    }
}

impl Service<Uri> for ProxyConnector {
    type Response = ProxiedStream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<ProxiedStream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut tcp = self.tcp.clone();
        let route = self.proxies.route(&uri);
        Box::pin(async move {
            let (proxy, is_tunneled) = match route {
                Route::Direct => return Ok(ProxiedStream::new(tcp.call(uri).await?, false)),
                Route::Forwarded(proxy) => (proxy, false),
                Route::Tunneled(proxy) => (proxy, true),
            };
            let target = target_of(&uri);
            let opened = open(&mut tcp, &proxy, &target, is_tunneled).await;
            match opened {
                Ok(stream) => Ok(ProxiedStream::new(stream, !is_tunneled)),
                Err(fault) => Err(BoxError::from(ProxyFailure {
                    proxy,
                    target,
                    fault,
                })),
            }
        })
    }
}

async fn open(
    tcp: &mut HttpConnector,
    proxy: &Arc<Proxy>,
    target: &str,
    is_tunneled: bool,
) -> Result<TokioIo<TcpStream>, Fault> {
    let connected = tcp.call(proxy.uri().clone()).await;
    let mut stream = connected.map_err(|error| Fault::Unreachable(error.into()))?;
    if is_tunneled {
        tunnel::open(stream.inner_mut(), proxy, target, ANSWER_TIME_MAX).await?;
        tracing::debug!(%proxy, target, "opened a tunnel");
    }
    Ok(stream)
}

/// The host and port of a URL.
fn target_of(uri: &Uri) -> String {
    let is_https = uri.scheme() == Some(&Scheme::HTTPS);
    let port = uri.port_u16().unwrap_or(default_port(is_https));
    format!("{}:{port}", uri.host().unwrap_or_default())
}

/// A connection to a server, maybe through a tunnel, or to a proxy that forwards requests.
#[derive(Debug)]
pub(crate) struct ProxiedStream {
    stream: TokioIo<TcpStream>,
    is_forwarded: bool,
}

impl ProxiedStream {
    const fn new(stream: TokioIo<TcpStream>, is_forwarded: bool) -> Self {
        Self {
            stream,
            is_forwarded,
        }
    }
}

impl Connection for ProxiedStream {
    fn connected(&self) -> Connected {
        // The client then sends the absolute form of URLs.
        self.stream.connected().proxy(self.is_forwarded)
    }
}

impl Read for ProxiedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for ProxiedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }
}
