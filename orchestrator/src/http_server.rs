//! Serves HTTP/1.1 on a socket, with limits, keep-alive and graceful shutdown.

use crate::run::dispatch::PARALLEL_MAX;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use prefix_tar::limits::WINDOW_MAX;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Concurrent connections: the largest window and an upload for each concurrent invocation.
const CONNECTIONS_MAX: usize = PARALLEL_MAX * (WINDOW_MAX as usize + 1);

/// The largest read from a connection, in bytes. It suits uploads of 310 MB, and limits a request's
/// line and headers; a signed URL has about 1 KB.
const READ_BUFFER_BYTES_MAX: usize = 128 * 1024;

/// The most headers of a request.
const HEADERS_MAX: usize = 64;

/// The longest time from a request's first byte to the end of its headers.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a graceful shutdown waits for requests in progress.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after `accept` fails, for example for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running server. Dropping it starts a graceful shutdown without waiting for it.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl HttpServer {
    /// Starts serving on `listener`.
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
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(listener, Arc::new(service), stop.clone()));
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
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = next_connection(&listener, &permits) => accepted,
        };
        let (stream, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without TCP_NODELAY, small responses only arrive a little later.
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
            drop(permit);
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

async fn next_connection(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}
