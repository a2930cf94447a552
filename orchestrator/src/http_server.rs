//! An HTTP/1.1 server on a socket: accepts, bounds, keeps alive, stops gracefully.
//! What is answered is left to the service that it is given.

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections at once. The dispatch's 16 invocations at the largest window are 2,048.
const CONNECTIONS_MAX: usize = 4096;

/// What a connection reads at once, in bytes. A request's line and headers may have as much, and once more what one
/// read brings. A signed URL is about 1 KB; an upload of 130 MB wants large reads.
const READ_BUFFER_BYTES_MAX: usize = 128 * 1024;

/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// From the first byte of a request to the end of its headers.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long requests under way may go on after the stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// After an error of `accept` (out of file descriptors), how long none is tried.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A server that is running. Dropped, it is told to stop.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl HttpServer {
    /// Begins to serve on `listener`.
    ///
    /// # Errors
    /// The listener has no address.
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
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(listener, Arc::new(service), stop.clone()));
        Ok(Self {
            address,
            stop,
            task,
        })
    }

    /// The address that it serves on, with the port that the system chose.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more connections, lets the requests under way end, and waits for that, at most ten seconds.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // The task ends by itself; that it was cancelled or panicked changes nothing for who stops it.
        let _ = (&mut self.task).await;
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept<Service, Answer, ResponseBody>(
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
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = next_connection(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small answers go out at once; where that cannot be set, they go out a little later.
        let _ = stream.set_nodelay(true);
        let service = Arc::clone(&service);
        let connection = http.serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| {
                let service = Arc::clone(&service);
                async move { Ok::<_, Infallible>(service(request).await) }
            }),
        );
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(STOP_TIMEOUT, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests were still under way when the server stopped");
    }
}

async fn next_connection(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}
