//! Serves HTTP/1.1 on a socket, with limits, keep-alive and graceful shutdown.

mod admission;
mod connection;
mod stream;
#[cfg(test)]
mod tests;

use crate::run::dispatch::PARALLEL_MAX;
use admission::Admissions;
use connection::Connection;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use prefix_tar::limits::WINDOW_MAX;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use stream::ServedStream;
use tokio::net::{TcpListener, TcpStream};
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
        Self::start_within(ServerLimits::default(), listener, service)
    }

    /// Does the same with other limits.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_within<Service, Answer, ResponseBody>(
        limits: ServerLimits,
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
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(limits, listener, Arc::new(service), stop.clone()));
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

async fn accept<Service, Answer, ResponseBody>(
    limits: ServerLimits,
    listener: TcpListener,
    service: Arc<Service>,
    stop: CancellationToken,
) where
    Service: Fn(Request<Incoming>) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Response<ResponseBody>> + Send + 'static,
    ResponseBody: Body + Send + 'static,
    ResponseBody::Data: Send,
    ResponseBody::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let graceful = GracefulShutdown::new();
    let admissions = Admissions::new(limits);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
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
            refuse(&stream, peer);
            continue;
        };
        let (service, watcher, stop) = (Arc::clone(&service), graceful.watcher(), stop.clone());
        tokio::spawn(async move {
            let place = tokio::select! {
                () = stop.cancelled() => return,
                place = seat.admit() => place,
            };
            let Some(place) = place else {
                return refuse(&stream, peer);
            };
            // Without TCP_NODELAY, small responses only arrive a little later.
            let _ = stream.set_nodelay(true);
            let connection = Connection::new(seat);
            let stream = ServedStream::new(stream, Arc::clone(&connection), place, limits, stop);
            serve(limits, stream, connection, service, watcher).await;
        });
    }
    drop(listener);
    if tokio::time::timeout(STOP_TIMEOUT, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("the server stopped with requests still in progress");
    }
}

/// Serves the requests of one connection until it closes, or has to make room for another.
async fn serve<Service, Answer, ResponseBody>(
    limits: ServerLimits,
    stream: ServedStream,
    connection: Arc<Connection>,
    service: Arc<Service>,
    watcher: Watcher,
) where
    Service: Fn(Request<Incoming>) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Response<ResponseBody>> + Send + 'static,
    ResponseBody: Body + Send + 'static,
    ResponseBody::Data: Send,
    ResponseBody::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let state = Arc::clone(&connection);
    let answer = service_fn(move |request| {
        let (service, answering) = (Arc::clone(&service), state.begin());
        async move { Ok::<_, Infallible>(answering.with(service(request).await)) }
    });
    let served = watcher.watch(http.serve_connection(TokioIo::new(stream), answer));
    tokio::select! {
        served = served => {
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended early");
            }
        }
        () = connection.closed() => {
            tracing::debug!("a connection without a request made room for another");
        }
    }
}

/// Closes a connection for which there is no place.
fn refuse(stream: &TcpStream, peer: SocketAddr) {
    tracing::debug!(%peer, "too many connections of one peer");
    // The buffer of a new socket is empty. If the answer is lost all the same, the peer sees a
    // closed connection.
    let _ = stream.try_write(NO_PLACE);
}
