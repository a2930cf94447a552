//! A proxy over HTTP. It connects to this machine, whatever host is asked for: a name that only it finds shows that
//! nothing else has connected.

use super::http_client;
use super::source::listener;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

/// The user name and the password that a proxy may ask for, and how a variable has them.
pub(crate) const CREDENTIALS: &str = "mirror:5ec4e7@";
pub(crate) const CREDENTIALS_IN_URL: &str = "mirror:5ec4e7%40";

/// A running proxy. It stops, with its connections, when this is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    traffic: Arc<Traffic>,
    task: JoinHandle<()>,
}

/// What a proxy does about requests, and what it has seen.
#[derive(Default)]
struct Traffic {
    wants_credentials: bool,
    /// What every request is answered with.
    answer: Option<StatusCode>,
    seen: Mutex<Seen>,
}

/// What has passed through a proxy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Connections to the proxy.
    pub(crate) connections: usize,
    /// Tunnels that it opened.
    pub(crate) tunnels: usize,
    /// Requests that it forwarded.
    pub(crate) forwarded: usize,
    /// Requests that it refused.
    pub(crate) refused: usize,
    /// Where the tunnels and the requests went.
    pub(crate) targets: BTreeSet<String>,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        Self::with(Traffic::default()).await
    }

    /// A proxy that wants [`CREDENTIALS`].
    pub(crate) async fn with_credentials() -> Self {
        Self::with(Traffic {
            wants_credentials: true,
            ..Traffic::default()
        })
        .await
    }

    /// A proxy that gives the same answer to every request.
    pub(crate) async fn answering(status: StatusCode) -> Self {
        Self::with(Traffic {
            answer: Some(status),
            ..Traffic::default()
        })
        .await
    }

    async fn with(traffic: Traffic) -> Self {
        let listening = listener().await;
        let address = listening.local_addr().expect("an address");
        let traffic = Arc::new(traffic);
        let shared = Arc::clone(&traffic);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listening.accept().await {
                shared.see(|seen| seen.connections += 1);
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self {
            address,
            traffic,
            task,
        }
    }

    /// What a variable has to be to use the proxy.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The same with [`CREDENTIALS`].
    pub(crate) fn url_with_credentials(&self) -> String {
        format!("http://{CREDENTIALS_IN_URL}@{}", self.address)
    }

    pub(crate) fn seen(&self) -> Seen {
        self.traffic.seen.lock().expect("not poisoned").clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Traffic {
    fn see(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().expect("not poisoned"));
    }

    /// The status with which a request is refused.
    fn refusal(&self, request: &Request<Incoming>) -> Option<StatusCode> {
        if self.answer.is_some() {
            return self.answer;
        }
        let expected = format!("Basic {}", BASE64_STANDARD.encode(CREDENTIALS));
        let given = request.headers().get(PROXY_AUTHORIZATION);
        let is_right = given.is_some_and(|given| *given == *expected);
        (self.wants_credentials && !is_right).then_some(StatusCode::PROXY_AUTHENTICATION_REQUIRED)
    }
}

async fn serve(stream: TcpStream, traffic: Arc<Traffic>) {
    // Without TCP_NODELAY, small requests only arrive a little later.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let traffic = Arc::clone(&traffic);
        async move { Ok::<_, Infallible>(answer(request, &traffic).await) }
    });
    // It ends with the client.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn answer(request: Request<Incoming>, traffic: &Traffic) -> Response<Full<Bytes>> {
    if let Some(status) = traffic.refusal(&request) {
        traffic.see(|seen| seen.refused += 1);
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        return response;
    }
    let authority = request.uri().authority().expect("an authority").clone();
    let port = authority.port_u16().expect("a port");
    traffic.see(|seen| {
        seen.targets.insert(authority.to_string());
    });
    if request.method() == Method::CONNECT {
        traffic.see(|seen| seen.tunnels += 1);
        // It ends with either side.
        tokio::spawn(async move {
            let near = hyper::upgrade::on(request).await?;
            let mut far = TcpStream::connect(("127.0.0.1", port)).await?;
            far.set_nodelay(true)?;
            copy_bidirectional(&mut TokioIo::new(near), &mut far).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        });
        return Response::default();
    }
    traffic.see(|seen| seen.forwarded += 1);
    forward(request, port).await
}

/// Sends a request on, without what was for the proxy, and returns the answer.
async fn forward(request: Request<Incoming>, port: u16) -> Response<Full<Bytes>> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let uri = format!("http://127.0.0.1:{port}{path}");
    head.uri = uri.parse::<Uri>().expect("a URL");
    head.headers.remove(PROXY_AUTHORIZATION);
    let body = body.collect().await.expect("a body").to_bytes();
    let request = Request::from_parts(head, Full::new(body));
    let answer = http_client().request(request).await.expect("an answer");
    let (head, body) = answer.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    Response::from_parts(head, Full::new(body))
}
