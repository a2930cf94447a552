//! The component's outgoing requests: to the origins that the run knows and no others, over connections that
//! are kept, within the timeouts that the guest asked for. What is requested is left to the guest.
//!
//! wasmtime's own default opens a connection per request, which over TLS is a handshake per range.

mod bodies;
mod errors;

use crate::host::timed_body::TimedBody;
use bodies::DeclaredBody;
use errors::{error_of_body, error_of_client, was_not_processed};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prefix_tar::limits::{CONNECT_TIMEOUT, EXPECTED_BYTES_MAX, RANGE_BYTES_MAX, WINDOW_MAX};
use prefix_tar::source::SourceUrl;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

/// How long a connection is kept without a request. Servers close theirs after a minute or more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections kept per host and lane: the window's and the PUT's.
const IDLE_CONNECTIONS_MAX: usize = WINDOW_MAX as usize + 1;

/// What an HTTP/1.1 connection reads at once, in bytes. A range is about half of it.
const READ_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// What an HTTP/2 connection takes that the guest has not read, in bytes. More than what the guest expects in
/// flight, or a range that is waited for could be stuck behind those that are not.
const H2_CONNECTION_WINDOW_BYTES: u32 = EXPECTED_BYTES_MAX as u32 + 1024 * 1024;

/// The same of one stream, in bytes: a whole range of the largest size.
const H2_STREAM_WINDOW_BYTES: u32 = RANGE_BYTES_MAX as u32;

/// How often a request is sent again that a server says it has not looked at: servers end HTTP/2 connections
/// after so many requests (nginx: 1,000), with a window of them on the way.
const RESENDS_MAX: u32 = 3;

/// A timeout that the guest did not ask for.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);

type PooledClient = Client<HttpsConnector<HttpConnector>, DeclaredBody>;

/// A server in this process, which needs no connection.
#[async_trait::async_trait]
pub trait InProcess: Send + Sync {
    /// Answers one request, as it would over a socket.
    ///
    /// # Errors
    /// What a lost connection would be.
    async fn answer(&self, request: Request<WasiBody>) -> Result<Response<WasiBody>, Error>;
}

/// Scheme, host and port: what a component may reach; and what answers there, if that is in this process.
#[derive(Clone)]
pub struct Origin {
    is_https: bool,
    authority: String,
    server: Option<Arc<dyn InProcess>>,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(formatter, "{scheme}://{}", self.authority)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Origin({self})")
    }
}

impl Origin {
    /// The origin of a source.
    pub fn of_source(source: &SourceUrl) -> Self {
        Self::new(source.is_https(), source.authority().as_str())
    }

    /// The origin with this authority.
    pub fn new(is_https: bool, authority: &str) -> Self {
        Self {
            is_https,
            authority: authority.to_owned(),
            server: None,
        }
    }

    /// `http://` and this authority, which a server in this process answers for.
    pub fn in_process(authority: &str, server: Arc<dyn InProcess>) -> Self {
        Self {
            server: Some(server),
            ..Self::new(false, authority)
        }
    }

    /// Its host and port.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    fn is_of(&self, uri: &http::Uri) -> bool {
        let is_https = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        is_https == self.is_https
            && uri
                .authority()
                .is_some_and(|authority| authority.as_str().eq_ignore_ascii_case(&self.authority))
    }
}

/// Pools of connections, one for each invocation that runs at the same time: over HTTP/2 each has a
/// connection of its own, and each pool is taken by one invocation after the other.
#[derive(Debug)]
pub(super) struct Lanes {
    origins: Arc<[Origin]>,
    connector: HttpsConnector<HttpConnector>,
    idle: Arc<Mutex<Vec<PooledClient>>>,
}

impl Lanes {
    pub(super) fn new(origins: Vec<Origin>, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let connector = crate::tls::connector(ca_file)?;
        Ok(Self {
            origins: origins.into(),
            connector,
            idle: Arc::default(),
        })
    }

    /// Adds an origin for the lanes that are taken from now on.
    pub(super) fn allow(&mut self, origin: Origin) {
        self.origins = self.origins.iter().cloned().chain([origin]).collect();
    }

    /// A lane that nobody else uses; a new one where all are taken.
    pub(super) fn take(&self) -> Lane {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        Lane {
            origins: Arc::clone(&self.origins),
            client: idle.unwrap_or_else(|| self.new_client()),
            home: Arc::clone(&self.idle),
        }
    }

    fn new_client(&self) -> PooledClient {
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http1_max_buf_size(READ_BUFFER_BYTES_MAX)
            .http2_initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
            .http2_initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
            .build(self.connector.clone())
    }
}

/// The connections of one invocation. They go back when it ends.
pub(super) struct Lane {
    origins: Arc<[Origin]>,
    client: PooledClient,
    home: Arc<Mutex<Vec<PooledClient>>>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.home
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(self.client.clone());
    }
}

type Answered = (
    Response<WasiBody>,
    Box<dyn Future<Output = Result<(), Error>> + Send>,
);

impl WasiHttpHooks for Lane {
    /// The pool sets it where the protocol has it.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _written: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Answered, Error>> + Send> {
        let origin = self
            .origins
            .iter()
            .find(|origin| origin.is_of(request.uri()));
        let Some(origin) = origin else {
            let authority = request.uri().authority().map(ToString::to_string);
            tracing::warn!(
                ?authority,
                "the component asked for a host that it may not reach"
            );
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        };
        if let Some(server) = &origin.server {
            let server = Arc::clone(server);
            return Box::new(async move { answer_in_process(&*server, request).await.map(sent) });
        }
        let client = self.client.clone();
        Box::new(async move {
            let response = send(client, request, options.unwrap_or_default()).await?;
            Ok(sent(response))
        })
    }
}

/// A response, and that there is nothing left to be done for it.
fn sent(response: Response<WasiBody>) -> Answered {
    (response, Box::new(std::future::ready(Ok(()))))
}

async fn answer_in_process(
    server: &dyn InProcess,
    mut request: Request<WasiBody>,
) -> Result<Response<WasiBody>, Error> {
    // What a client does on the way to a socket: the Host header, and the declared length held to.
    let authority = request.uri().authority().map(|host| host.as_str());
    if let Some(Ok(host)) = authority.map(HeaderValue::from_str) {
        request.headers_mut().insert(HOST, host);
    }
    let left = declared_length(&request);
    server
        .answer(request.map(|body| DeclaredBody { body, left }.boxed_unsync()))
        .await
}

fn declared_length(request: &Request<WasiBody>) -> Option<u64> {
    let length = request.headers().get(CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

async fn send(
    client: PooledClient,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<Response<WasiBody>, Error> {
    let connect = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
    let first_byte = options.first_byte_timeout.unwrap_or(TIMEOUT_DEFAULT);
    let between_bytes = options.between_bytes_timeout.unwrap_or(TIMEOUT_DEFAULT);
    // The pool connects within the request, and bounds that by itself.
    let response =
        tokio::time::timeout(connect + first_byte, send_until_processed(client, request))
            .await
            .map_err(|_| Error::ConnectionReadTimeout)?
            .map_err(|error| error_of_client(&error))?;
    Ok(response.map(|body| {
        TimedBody::new(body, between_bytes)
            .map_err(|lost| error_of_body(&lost))
            .boxed_unsync()
    }))
}

/// Sends a request, and where it has no body, sends it again when the server says that it has not looked at it.
async fn send_until_processed(
    client: PooledClient,
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
        left: declared,
    };
    loop {
        match client
            .request(Request::from_parts(head.clone(), body))
            .await
        {
            Err(error) if resends_left > 0 && was_not_processed(&error) => {
                resends_left -= 1;
                body = DeclaredBody::empty();
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = Origin::new(false, "127.0.0.1:9000");
        let is_of = |uri: &'static str| origin.is_of(&http::Uri::from_static(uri));
        assert!(is_of("http://127.0.0.1:9000/bucket/AB.tar"));
        assert!(!is_of("https://127.0.0.1:9000/bucket/AB.tar"));
        assert!(!is_of("http://127.0.0.1:9001/bucket/AB.tar"));
        assert!(!is_of("http://localhost:9000/bucket/AB.tar"));
    }
}
