//! Serves requests over TLS, with HTTP/2 if the client offers it.

use super::certificates::{CERTIFICATE_FILE, KEY_FILE};
use super::source::listener;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Version};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A server behind TLS. It stops, with its connections, when this is dropped.
pub(crate) struct TlsServer {
    address: SocketAddr,
    versions: Arc<Mutex<BTreeSet<String>>>,
    task: JoinHandle<()>,
}

impl TlsServer {
    /// Serves with the certificate and the key in `folder`.
    pub(crate) async fn start<Service, Answer, ResponseBody>(
        folder: &Path,
        service: Service,
    ) -> Self
    where
        Service: Fn(Request<Incoming>) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Response<ResponseBody>> + Send + 'static,
        ResponseBody: Body<Data = Bytes> + Send + 'static,
        ResponseBody::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let listening = listener().await;
        let address = listening.local_addr().expect("an address");
        let acceptor = acceptor(folder, &[b"h2", b"http/1.1"]);
        let versions = Arc::<Mutex<BTreeSet<String>>>::default();
        let (service, seen) = (Arc::new(service), Arc::clone(&versions));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listening.accept().await {
                let (service, seen) = (Arc::clone(&service), Arc::clone(&seen));
                connections.spawn(serve(stream, acceptor.clone(), move |request| {
                    let version = format!("{:?}", Request::version(&request));
                    seen.lock().expect("not poisoned").insert(version);
                    service(with_host(request))
                }));
            }
        });
        Self {
            address,
            versions,
            task,
        }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The HTTP versions of the requests so far.
    pub(crate) fn versions(&self) -> BTreeSet<String> {
        self.versions.lock().expect("not poisoned").clone()
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts TLS with the certificate and the key in `folder`, and negotiates one of `protocols`.
pub(crate) fn acceptor(folder: &Path, protocols: &[&[u8]]) -> TlsAcceptor {
    orchestrator::tls::install_crypto_provider();
    let certificate = CertificateDer::from_pem_file(folder.join(CERTIFICATE_FILE));
    let key = PrivateKeyDer::from_pem_file(folder.join(KEY_FILE));
    let configuration = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.expect("a certificate")],
            key.expect("a key"),
        );
    let mut configuration = configuration.expect("a configuration");
    configuration.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(configuration))
}

async fn serve<Service, Answer, ResponseBody>(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    service: Service,
) where
    Service: Fn(Request<Incoming>) -> Answer + Send + 'static,
    Answer: Future<Output = Response<ResponseBody>> + Send + 'static,
    ResponseBody: Body<Data = Bytes> + Send + 'static,
    ResponseBody::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Without TCP_NODELAY, small responses only arrive a little later.
    let _ = stream.set_nodelay(true);
    // A client that does not trust the certificate reports it itself.
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request| {
        let answer = service(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let stream = TokioIo::new(stream);
    // It ends with the client.
    if is_http2 {
        let _ = http2::Builder::new(TokioExecutor::new())
            .serve_connection(stream, service)
            .await;
    } else {
        let _ = http1::Builder::new()
            .serve_connection(stream, service)
            .await;
    }
}

/// Gives a request of HTTP/2 the header that HTTP/1.1 has.
fn with_host(mut request: Request<Incoming>) -> Request<Incoming> {
    if request.version() == Version::HTTP_2
        && let Some(authority) = request.uri().authority()
    {
        let host = HeaderValue::from_str(authority.as_str()).expect("an authority");
        request.headers_mut().insert(HOST, host);
    }
    request
}
