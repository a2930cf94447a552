//! Serves HTTP/1.1 and HTTP/2 on a socket, with or without TLS, with limits, keep-alive and graceful shutdown.
//!
//! Without TLS, a connection that begins with the preface of HTTP/2 gets it. With TLS, the handshake negotiates it.

mod admission;
mod connection;
mod stream;
#[cfg(test)]
mod tests;
pub mod tls;

use crate::run::dispatch::PARALLEL_MAX;
use admission::{Admissions, Seat};
use connection::Connection;
use http::{Request, Response, Version};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use prefix_tar::limits::WINDOW_MAX;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use stream::ServedStream;
use tls::TlsIdentity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// The connections of one peer that are served at once, unless the server has another limit: the
/// largest window and an upload for each concurrent invocation.
const CONNECTIONS_PER_PEER: usize = PARALLEL_MAX * (WINDOW_MAX as usize + 1);

/// The same for a store: an upload for each concurrent invocation, and three times as many for the
/// small requests of that run and for other runs.
const STORE_CONNECTIONS_PER_PEER: usize = 4 * PARALLEL_MAX;

/// The largest read from a connection, in bytes. It suits uploads of 310 MB, and limits a request's
/// line and headers; a signed URL has about 1 KB.
const READ_BUFFER_BYTES_MAX: usize = 128 * 1024;

/// The most headers of a request.
const HEADERS_MAX: usize = 64;

/// The requests of one HTTP/2 connection that are answered at once: the largest window of a run.
const HTTP2_STREAMS_MAX: u32 = WINDOW_MAX as u32;

/// The headers of one request of HTTP/2, in bytes as the protocol counts them.
const HTTP2_HEADER_LIST_BYTES_MAX: u32 = 32 * 1024;

/// What a client may send of one request's body, in bytes, before anyone reads it.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// The same for all requests of an HTTP/2 connection.
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// How often a silent HTTP/2 connection is sent a ping, and how long its answer may take.
const HTTP2_PING: Duration = Duration::from_secs(20);

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest time that a connection waits for a request and its headers. While others of the same
/// peer wait for a place, it is shorter.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection beyond its peer's share waits for a place, before it is answered 503.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer may take nothing of a response.
const WRITE_STALL_MAX: Duration = Duration::from_secs(60);

/// How long a connection is read on after the last answer.
const LINGER_MAX: Duration = Duration::from_secs(2);

/// The answer to a connection for which there is no place.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\
    content-type: text/plain\r\ncontent-length: 42\r\nretry-after: 1\r\n\r\n\
    too many connections from this address now";

/// How long a graceful shutdown waits for requests in progress.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after `accept` fails, for example for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a server grants each of its peers. A peer is an address.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// The connections that are served at once.
    pub connections_per_peer: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long a further connection waits for a place, before it is answered 503.
    pub admission_timeout: Duration,
    /// The longest time that a connection waits for a request and its headers.
    pub head_timeout: Duration,
    /// How long the peer may take nothing of a response.
    pub write_stall_max: Duration,
    /// How long a connection is read on after the last answer, so that the peer sees it.
    pub linger_max: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_per_peer: CONNECTIONS_PER_PEER,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            admission_timeout: ADMISSION_TIMEOUT,
            head_timeout: HEAD_TIMEOUT,
            write_stall_max: WRITE_STALL_MAX,
            linger_max: LINGER_MAX,
        }
    }
}

impl ServerLimits {
    /// The limits of a server that takes uploads instead of range requests.
    pub fn of_store() -> Self {
        Self {
            connections_per_peer: STORE_CONNECTIONS_PER_PEER,
            ..Self::default()
        }
    }
}

/// A running server. Dropping it starts a graceful shutdown without waiting for it.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl HttpServer {
    /// Starts serving on `listener`, with room for everything that a run asks of a source.
    ///
    /// # Errors
    /// The listener's address cannot be read.
    pub fn start<Service, Answer, ResponseBody>(
        listener: TcpListener,
        service: Service,
    ) -> std::io::Result<Self>
    where
        Service: Fn(Request<Incoming>) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Response<ResponseBody>> + Send + 'static,
        ResponseBody: Body + Send + 'static,
        ResponseBody::Data: Send,
        ResponseBody::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self::start_with(ServerLimits::default(), listener, None, service)
    }

    /// Does the same with other limits and, if there is an identity, behind TLS.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with<Service, Answer, ResponseBody>(
        limits: ServerLimits,
        listener: TcpListener,
        identity: Option<Arc<TlsIdentity>>,
        service: Service,
    ) -> std::io::Result<Self>
    where
        Service: Fn(Request<Incoming>) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Response<ResponseBody>> + Send + 'static,
        ResponseBody: Body + Send + 'static,
        ResponseBody::Data: Send,
        ResponseBody::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let acceptor = Acceptor {
            limits,
            identity,
            service: Arc::new(service),
            stop: stop.clone(),
        };
        let task = tokio::spawn(acceptor.accept(listener));
        Ok(Self {
            address,
            stop,
            task,
        })
    }

    /// The address of the listener. A port of 0 is resolved to the port that the system chose.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more connections and waits, at most ten seconds, for the requests in progress.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // The server has stopped even if the task panicked or was cancelled.
        let _ = (&mut self.task).await;
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What every connection of a server shares.
struct Acceptor<Service> {
    limits: ServerLimits,
    identity: Option<Arc<TlsIdentity>>,
    service: Arc<Service>,
    stop: CancellationToken,
}

impl<Service> Clone for Acceptor<Service> {
    fn clone(&self) -> Self {
        Self {
            limits: self.limits,
            identity: self.identity.clone(),
            service: Arc::clone(&self.service),
            stop: self.stop.clone(),
        }
    }
}

impl<Service, Answer, ResponseBody> Acceptor<Service>
where
    Service: Fn(Request<Incoming>) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Response<ResponseBody>> + Send + 'static,
    ResponseBody: Body + Send + 'static,
    ResponseBody::Data: Send,
    ResponseBody::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    async fn accept(self, listener: TcpListener) {
        let graceful = GracefulShutdown::new();
        let admissions = Admissions::new(self.limits);
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(seat) = admissions.enter(peer.ip()) else {
                self.refuse(&stream, peer);
                continue;
            };
            let (acceptor, watcher) = (self.clone(), graceful.watcher());
            tokio::spawn(async move {
                let place = tokio::select! {
                    () = acceptor.stop.cancelled() => return,
                    place = seat.admit() => place,
                };
                match place {
                    Some(place) => acceptor.connect(stream, seat, place, watcher).await,
                    None => acceptor.refuse(&stream, peer),
                }
            });
        }
        drop(listener);
        if timeout(STOP_TIMEOUT, graceful.shutdown()).await.is_err() {
            tracing::warn!("the server stopped with requests still in progress");
        }
    }

    /// Closes a connection for which there is no place.
    fn refuse(&self, stream: &TcpStream, peer: SocketAddr) {
        tracing::debug!(%peer, "too many connections of one peer");
        if self.identity.is_none() {
            // The buffer of a new socket is empty. If the answer is lost all the same, the peer sees a
            // closed connection.
            let _ = stream.try_write(NO_PLACE);
        }
    }

    /// Serves a connection that has a place.
    async fn connect(
        self,
        stream: TcpStream,
        seat: Seat,
        place: OwnedSemaphorePermit,
        watcher: Watcher,
    ) {
        // Without TCP_NODELAY, small responses only arrive a little later.
        let _ = stream.set_nodelay(true);
        let connection = Connection::new(seat);
        let (limits, stop) = (self.limits, self.stop.clone());
        let stream = ServedStream::new(stream, Arc::clone(&connection), place, limits, stop);
        match &self.identity {
            None => self.serve(stream, connection, watcher).await,
            Some(identity) => {
                if let Some(stream) = self.handshake(identity, stream, &connection).await {
                    self.serve(stream, connection, watcher).await;
                }
            }
        }
    }

    async fn handshake(
        &self,
        identity: &TlsIdentity,
        stream: ServedStream,
        connection: &Connection,
    ) -> Option<Box<TlsStream<ServedStream>>> {
        let accepted = identity.acceptor().accept(stream);
        let accepted = tokio::select! {
            accepted = timeout(self.limits.handshake_timeout, accepted) => accepted.ok()?,
            () = connection.closed() => return None,
            () = self.stop.cancelled() => return None,
        };
        match accepted {
            Ok(stream) => Some(Box::new(stream)),
            Err(error) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
        }
    }

    /// Serves the requests of one connection until it closes, stalls, or has to make room for another.
    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        connection: Arc<Connection>,
        watcher: Watcher,
    ) {
        let http = protocols(&self.limits);
        let (service, state) = (Arc::clone(&self.service), Arc::clone(&connection));
        let answer = service_fn(move |request: Request<Incoming>| {
            let (service, state) = (Arc::clone(&service), Arc::clone(&state));
            async move {
                let permit = match request.version() {
                    Version::HTTP_2 => state.answer_permit().await,
                    _ => None,
                };
                let answering = state.begin(permit);
                Ok::<_, Infallible>(answering.with(service(request).await))
            }
        });
        let served = watcher.watch(http.serve_connection(TokioIo::new(stream), answer));
        tokio::select! {
            served = served => {
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection ended early");
                }
            }
            () = connection.stalled(&self.limits) => {
                tracing::debug!("a connection on which nothing happens was closed");
            }
            () = connection.closed() => {
                tracing::debug!("a connection without a request made room for another");
            }
        }
    }
}

/// Both protocols, within the limits.
fn protocols(limits: &ServerLimits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(HTTP2_HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING);
    http
}
