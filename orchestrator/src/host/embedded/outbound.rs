//! Sends the component's requests: only to permitted origins, over pooled connections, with the
//! guest's timeouts.
//!
//! wasmtime's default opens a connection per request, which over TLS means a handshake per range.

mod bodies;
mod errors;
mod framing;

use super::causes::Causes;
use crate::host::timed_body::{BodyLost, TimedBody};
use crate::http_client::{Lease, ReplaceableClient};
use crate::liveness::Liveness;
use crate::origin::{InProcessServer, Origin};
use crate::proxy::Proxies;
use crate::tls::{self, Connector};
use bodies::DeclaredBody;
use errors::{error_of_body, error_of_client, was_not_processed};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prefix_tar::limits::{
    CONNECT_TIMEOUT, EXPECTED_BYTES_MAX, RANGE_BYTES_MAX, UPLOAD_BUFFER_BYTES, WINDOW_MAX,
};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

/// How long an idle connection stays open. Servers close theirs after a minute or more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Idle connections per client and authority: one per request in the window, and the PUT's.
const IDLE_CONNECTIONS_MAX: usize = WINDOW_MAX as usize + 1;

/// The buffer of an HTTP/1.1 connection in each direction, in bytes, if there are few connections: a
/// range of 75 KB takes one read, and [`UPLOAD_PIECES_MAX`] pieces of the upload one write.
const CONNECTION_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// The smallest buffer of a connection, in bytes. Smaller ones cost more reads than they save memory.
const CONNECTION_BUFFER_BYTES_MIN: usize = 16 * 1024;

/// What the connections of all concurrent invocations may buffer in each direction, in bytes, unless
/// there are so many that each has [`CONNECTION_BUFFER_BYTES_MIN`].
const CONNECTION_BUFFERS_BYTES_MAX: usize = 9 * 1024 * 1024;

/// Pieces of an upload's body that wait for the connection. The guest writes
/// [`UPLOAD_BUFFER_BYTES`] at a time; with one piece, the guest and the connection would wait for each
/// other after every write.
const UPLOAD_PIECES_MAX: usize = CONNECTION_BUFFER_BYTES_MAX / UPLOAD_BUFFER_BYTES;

/// The flow-control window of an HTTP/2 connection, in bytes. It exceeds what the guest expects in
/// flight; otherwise unread ranges could fill it and block the range that the guest waits for.
const H2_CONNECTION_WINDOW_BYTES: u32 = EXPECTED_BYTES_MAX as u32 + 1024 * 1024;

/// The flow-control window of an HTTP/2 stream, in bytes: one range of the largest size.
const H2_STREAM_WINDOW_BYTES: u32 = RANGE_BYTES_MAX as u32;

/// How often a request is resent if the server says that it did not process it. Servers close an
/// HTTP/2 connection after a number of requests (nginx: 1,000) while a window of them is in flight.
const RESENDS_MAX: u32 = 3;

/// A timeout that the guest did not set.
pub(super) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);

/// One HTTP client. It pools its own connections: over HTTP/2, one per authority.
type HyperClient = ReplaceableClient<DeclaredBody>;

/// A client per concurrent invocation, so that concurrent invocations do not share an HTTP/2
/// connection. When an invocation ends, its client and its connections pass to a later one.
#[derive(Debug)]
pub(super) struct ClientPool {
    origins: Arc<[Origin]>,
    connector: Connector,
    proxies: Proxies,
    settings: OutboundSettings,
    idle: Arc<Mutex<Vec<HyperClient>>>,
}

/// How long a silent peer is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutboundSettings {
    pub(super) liveness: Liveness,
    /// The longest silence before and in the response to a request without a body.
    pub(super) silence_max: Duration,
    /// Connections of all concurrent invocations. They share a budget of memory.
    pub(super) connections: usize,
}

/// The buffer of each of so many connections, in bytes.
fn connection_buffer_bytes(connections: usize) -> usize {
    (CONNECTION_BUFFERS_BYTES_MAX / connections.max(1))
        .clamp(CONNECTION_BUFFER_BYTES_MIN, CONNECTION_BUFFER_BYTES_MAX)
}

impl ClientPool {
    /// A pool for requests to `origins`, which get no secret. Those that are permitted later get uploads.
    pub(super) fn new(
        origins: Vec<Origin>,
        ca_file: Option<&Path>,
        settings: OutboundSettings,
    ) -> anyhow::Result<Self> {
        let proxies = Proxies::of_process(&origins)?;
        Ok(Self {
            origins: origins.into(),
            connector: tls::connector(ca_file, &settings.liveness, proxies.clone())?,
            proxies,
            settings,
            idle: Arc::default(),
        })
    }

    /// Permits requests to another origin, for clients taken after this call.
    pub(super) fn allow(&mut self, origin: Origin) {
        self.origins = self.origins.iter().cloned().chain([origin]).collect();
    }

    /// Takes an idle client, or creates one if all are in use. It notes why its requests fail.
    pub(super) fn take(&self, causes: Causes) -> PooledClient {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        PooledClient {
            origins: Arc::clone(&self.origins),
            client: idle.unwrap_or_else(|| self.new_client()),
            pool: Arc::clone(&self.idle),
            silence_max: self.settings.silence_max,
            causes,
        }
    }

    fn new_client(&self) -> HyperClient {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http1_max_buf_size(connection_buffer_bytes(self.settings.connections))
            .http2_initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
            .http2_initial_stream_window_size(H2_STREAM_WINDOW_BYTES);
        self.settings.liveness.apply_to_http2(&mut builder);
        ReplaceableClient::new(builder, self.connector.clone(), self.proxies.clone())
    }
}

/// The client of one invocation. Dropping it returns it to the pool.
pub(super) struct PooledClient {
    origins: Arc<[Origin]>,
    client: HyperClient,
    pool: Arc<Mutex<Vec<HyperClient>>>,
    silence_max: Duration,
    causes: Causes,
}

impl Drop for PooledClient {
    fn drop(&mut self) {
        self.pool
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(self.client.clone());
    }
}

/// A response, and a future for the work that remains for it.
type ResponseAndWork = (
    Response<WasiBody>,
    Box<dyn Future<Output = Result<(), Error>> + Send>,
);

impl WasiHttpHooks for PooledClient {
    /// `false`, because the client sets the header itself where the protocol has it.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        UPLOAD_PIECES_MAX
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _written: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<ResponseAndWork, Error>> + Send> {
        let origin = self
            .origins
            .iter()
            .find(|origin| origin.contains(request.uri()));
        let Some(origin) = origin else {
            let authority = request.uri().authority().map(ToString::to_string);
            tracing::warn!(
                ?authority,
                "denied a request of the component to an authority that is not permitted"
            );
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        };
        if let Some(server) = origin.server() {
            let server = Arc::clone(server);
            return Box::new(async move {
                answer_in_process(&*server, request).await.map(without_work)
            });
        }
        let lease = self.client.lease();
        let timeouts = Timeouts::new(&request, options.unwrap_or_default(), self.silence_max);
        let causes = self.causes.clone();
        Box::new(async move {
            let response = send(lease, request, timeouts, &causes).await?;
            Ok(without_work(response))
        })
    }
}

/// A response that needs no more work.
fn without_work(response: Response<WasiBody>) -> ResponseAndWork {
    (response, Box::new(std::future::ready(Ok(()))))
}

async fn answer_in_process(
    server: &dyn InProcessServer,
    mut request: Request<WasiBody>,
) -> Result<Response<WasiBody>, Error> {
    // A client would do the same before a socket: set Host and enforce the declared length.
    let authority = request.uri().authority().map(|host| host.as_str());
    if let Some(Ok(host)) = authority.map(HeaderValue::from_str) {
        request.headers_mut().insert(HOST, host);
    }
    let remaining = declared_length(&request);
    let request = request.map(|body| {
        DeclaredBody { body, remaining }
            .map_err(std::io::Error::other)
            .boxed_unsync()
    });
    let response = server
        .answer(request)
        .await
        .map_err(|_| Error::ConnectionTerminated)?;
    Ok(response.map(|body| {
        body.map_err(|_| Error::HttpResponseIncomplete)
            .boxed_unsync()
    }))
}

fn declared_length(request: &Request<WasiBody>) -> Option<u64> {
    let length = request.headers().get(CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// The timeouts of one request.
struct Timeouts {
    /// Until the response's head. The client connects as part of the request; its connector limits
    /// that part on its own.
    head: Duration,
    between_bytes: Duration,
}

impl Timeouts {
    fn new(request: &Request<WasiBody>, options: RequestOptions, silence_max: Duration) -> Self {
        let connect = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let first_byte = options.first_byte_timeout.unwrap_or(TIMEOUT_DEFAULT);
        let between_bytes = options.between_bytes_timeout.unwrap_or(TIMEOUT_DEFAULT);
        // The wait for an upload's answer includes the upload.
        let max = match request.body().is_end_stream() {
            true => silence_max,
            false => Duration::MAX,
        };
        Self {
            head: (connect + first_byte).min(max),
            between_bytes: between_bytes.min(max),
        }
    }
}

/// Sends a request. If no answer comes, or none any more, later requests use other connections.
async fn send(
    lease: Lease<DeclaredBody>,
    request: Request<WasiBody>,
    timeouts: Timeouts,
    causes: &Causes,
) -> Result<Response<WasiBody>, Error> {
    let response = tokio::time::timeout(timeouts.head, send_until_processed(&lease, request))
        .await
        .map_err(|_| Error::ConnectionReadTimeout)?
        .map_err(|error| {
            causes.note(&error);
            error_of_client(&error)
        })?;
    let response = framing::marked(response);
    Ok(response.map(|body| {
        TimedBody::new(body, timeouts.between_bytes)
            .map_err(move |lost| {
                if matches!(lost, BodyLost::Idle) {
                    lease.abandon();
                }
                error_of_body(&lost)
            })
            .boxed_unsync()
    }))
}

/// Sends a request. A request without a body is resent if the server says that it did not process it.
async fn send_until_processed(
    lease: &Lease<DeclaredBody>,
    request: Request<WasiBody>,
) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
    let declared = declared_length(&request);
    let mut resends_left = match request.body().is_end_stream() {
        true => RESENDS_MAX,
        false => 0,
    };
    let (head, body) = request.into_parts();
    let mut body = DeclaredBody {
        body,
        remaining: declared,
    };
    loop {
        match lease.request(Request::from_parts(head.clone(), body)).await {
            Err(error) if resends_left > 0 && was_not_processed(&error) => {
                resends_left -= 1;
                body = DeclaredBody::empty();
            }
            result => return result,
        }
    }
}
