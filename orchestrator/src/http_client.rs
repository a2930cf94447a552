//! [`ReplaceableClient`]: an HTTP client whose connections are abandoned when a request goes
//! unanswered.
//!
//! An HTTP/1.1 connection is dropped with its request, but others in the pool may be just as dead.
//! An HTTP/2 connection stays in the pool: every retry would wait on it in vain.

use crate::liveness::Liveness;
use crate::origin::Origin;
use crate::proxy::{self, Proxies, ProxyFailure};
use crate::tls::{self, Connector};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy::{Builder, Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use nix::errno::Errno;
use prefix_tar::protocol::failure::CERTIFICATE_NOT_TRUSTED;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A client whose request bodies are in memory.
pub(crate) type HttpClient = ReplaceableClient<Full<Bytes>>;

/// What the client can send as a request's body.
pub(crate) trait RequestBody:
    Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static
{
}

impl<B> RequestBody for B where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static
{
}

/// What to do if the process cannot open another socket.
pub(crate) const NO_FILE_DESCRIPTORS: &str =
    "no file descriptors are left; lower --parallel or --window, or raise the limit with ulimit -n";

/// One client with its connection pool.
type Pool<B> = Client<Connector, B>;

/// An HTTP client that can be replaced, with its pool, by one without connections.
pub(crate) struct ReplaceableClient<B: RequestBody>(Arc<Shared<B>>);

struct Shared<B: RequestBody> {
    builder: Builder,
    connector: Connector,
    proxies: Proxies,
    current: Mutex<Arc<Pool<B>>>,
}

impl<B: RequestBody> ReplaceableClient<B> {
    /// A client that connects with `connector`, which uses `proxies`. `builder` must have a timer.
    pub(crate) fn new(builder: Builder, connector: Connector, proxies: Proxies) -> Self {
        let current = Mutex::new(Arc::new(builder.build(connector.clone())));
        Self(Arc::new(Shared {
            builder,
            connector,
            proxies,
            current,
        }))
    }

    /// Leases the current pool, for one request.
    pub(crate) fn lease(&self) -> Lease<B> {
        let current = self.0.lock();
        Lease {
            pool: Arc::clone(&current),
            shared: Arc::clone(&self.0),
        }
    }
}

impl<B: RequestBody> Clone for ReplaceableClient<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B: RequestBody> fmt::Debug for ReplaceableClient<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ReplaceableClient")
    }
}

impl<B: RequestBody> Shared<B> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Pool<B>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pool, leased for one request.
pub(crate) struct Lease<B: RequestBody> {
    pool: Arc<Pool<B>>,
    shared: Arc<Shared<B>>,
}

impl<B: RequestBody> Lease<B> {
    /// Sends the request. If this is dropped before the response's head arrives, because of a
    /// timeout for example, later requests use new connections.
    pub(crate) async fn request(
        &self,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, Error> {
        self.shared.proxies.authorize(&mut request);
        self.watch(self.pool.request(request)).await
    }

    /// Awaits a part of the exchange. If this is dropped before the part ends, later requests use
    /// new connections.
    pub(crate) async fn watch<T>(&self, part: impl Future<Output = T>) -> T {
        let unanswered = Unanswered(self);
        let outcome = part.await;
        std::mem::forget(unanswered);
        outcome
    }

    /// Makes later requests use new connections. Requests in progress keep theirs. Of all requests
    /// that go unanswered in one pool, only the first replaces it.
    pub(crate) fn abandon(&self) {
        let mut current = self.shared.lock();
        if Arc::ptr_eq(&current, &self.pool) {
            tracing::debug!("a request went unanswered; its connections are not used again");
            let connector = self.shared.connector.clone();
            *current = Arc::new(self.shared.builder.build(connector));
        }
    }
}

/// Abandons a lease's connections when it is dropped.
struct Unanswered<'lease, B: RequestBody>(&'lease Lease<B>);

impl<B: RequestBody> Drop for Unanswered<'_, B> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// Creates a client that trusts the platform's certificates and, if given, those of a CA file.
///
/// # Errors
/// The CA file or a proxy of the environment is not usable.
pub(crate) fn new(ca_file: Option<&Path>) -> anyhow::Result<HttpClient> {
    with_liveness(ca_file, &Liveness::default())
}

/// Like [`new`], with other limits for its connections.
///
/// # Errors
/// As [`new`].
pub(crate) fn with_liveness(
    ca_file: Option<&Path>,
    liveness: &Liveness,
) -> anyhow::Result<HttpClient> {
    build(ca_file, liveness, Proxies::of_process(&[])?)
}

/// Like [`new`], for a range API, which gets no secret: it may be reached through a proxy wherever it is.
///
/// # Errors
/// As [`new`].
pub(crate) fn to_source(ca_file: Option<&Path>, source: Origin) -> anyhow::Result<HttpClient> {
    let proxies = Proxies::of_process(&[source])?;
    build(ca_file, &Liveness::default(), proxies)
}

fn build(
    ca_file: Option<&Path>,
    liveness: &Liveness,
    proxies: Proxies,
) -> anyhow::Result<HttpClient> {
    let connector = tls::connector(ca_file, liveness, proxies.clone())?;
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new());
    liveness.apply_to_http2(&mut builder);
    Ok(ReplaceableClient::new(builder, connector, proxies))
}

/// Why a request got no response. The text never contains the request's URL, which may be signed.
pub(crate) fn cause(error: &Error) -> String {
    if let Some(reason) = tls::distrust(error) {
        return format!("{CERTIFICATE_NOT_TRUSTED} ({reason})");
    }
    if lacks_file_descriptors(error) {
        return NO_FILE_DESCRIPTORS.to_owned();
    }
    let cause = std::error::Error::source(error).map(ToString::to_string);
    cause.unwrap_or_else(|| error.to_string())
}

/// The failure of the proxy on the way, if that is why a request got no response.
pub(crate) fn proxy_failure(error: &Error) -> Option<&ProxyFailure> {
    proxy::failure_in(error)
}

/// Whether a request failed because the process, or the system, has no file descriptors left.
pub(crate) fn lacks_file_descriptors(error: &Error) -> bool {
    tls::causes(error)
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .filter_map(std::io::Error::raw_os_error)
        .any(|code| matches!(Errno::from_raw(code), Errno::EMFILE | Errno::ENFILE))
}
