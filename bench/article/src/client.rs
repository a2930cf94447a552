//! The HTTP client, with the settings of `orchestrator/src/host/embedded/outbound.rs`, so that only the ways of working
//! are compared.

use crate::options::Options;
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::path::Path;
use std::time::Duration;

/// As in the embedded host, like all constants here.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

const IDLE_CONNECTIONS_MAX: usize = 129;

const CONNECTION_BUFFER_BYTES_MAX: usize = 256 * 1024;

const H2_CONNECTION_WINDOW_BYTES: u32 = 5 * 1024 * 1024;

const H2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a request for a range is sent again, for example because the server has closed its HTTP/2 connection.
const RESENDS_MAX: u32 = 3;

/// A range API, and the client that asks it.
#[derive(Clone, Debug)]
pub struct Source {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: String,
    encoding: &'static str,
}

impl Source {
    /// Prepares the client. It connects when it is used.
    ///
    /// # Errors
    /// The CA file cannot be read.
    pub fn new(options: &Options) -> anyhow::Result<Self> {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http1_max_buf_size(CONNECTION_BUFFER_BYTES_MAX)
            .http2_initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
            .http2_initial_stream_window_size(H2_STREAM_WINDOW_BYTES);
        Ok(Self {
            client: builder.build(connector(options.ca_file.as_deref())?),
            url: options.source.clone(),
            encoding: if options.gzip { "gzip" } else { "identity" },
        })
    }

    /// Requests a range.
    ///
    /// # Errors
    /// The answer is not 200, or there is none.
    pub async fn get(&self, prefix: u8, index: usize) -> anyhow::Result<Response<Incoming>> {
        let url = format!("{}/range/{prefix:02X}{index:03X}", self.url);
        let mut resends_left = RESENDS_MAX;
        loop {
            let request = Request::get(&url).header(ACCEPT_ENCODING, self.encoding);
            match self.client.request(request.body(Full::default())?).await {
                Ok(response) => {
                    let status = response.status();
                    ensure!(status == StatusCode::OK, "GET {url} answered {status}");
                    return Ok(response);
                }
                Err(_) if resends_left > 0 => resends_left -= 1,
                Err(error) => return Err(error).with_context(|| format!("GET {url}")),
            }
        }
    }

    /// Uploads a tar.
    ///
    /// # Errors
    /// The answer is not a success, or there is none. The message does not contain the URL, which may be signed.
    pub async fn put(&self, url: &str, tar: Vec<u8>) -> anyhow::Result<()> {
        let request = Request::put(url).header(CONTENT_LENGTH, tar.len());
        let request = request.body(Full::new(Bytes::from(tar)))?;
        let response = self.client.request(request).await.context("PUT")?;
        let status = response.status();
        let body = response.into_body().collect().await.context("PUT")?;
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        ensure!(status.is_success(), "PUT answered {status}: {text}");
        Ok(())
    }
}

fn connector(ca_file: Option<&Path>) -> anyhow::Result<HttpsConnector<HttpConnector>> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        for certificate in CertificateDer::pem_file_iter(path).context("--ca-file")? {
            roots.add(certificate.context("--ca-file")?)?;
        }
    }
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(http))
}
