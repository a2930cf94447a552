//! The HTTP client for requests with small bodies, with a connection pool and optional TLS.

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::path::Path;

/// A client whose request bodies are in memory.
pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Creates a client that trusts the platform's certificates and, if given, a private CA.
///
/// # Errors
/// The CA file is not usable.
pub(crate) fn new(ca_file: Option<&Path>) -> anyhow::Result<HttpClient> {
    let connector = crate::tls::connector(ca_file)?;
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(connector))
}

/// Why a request got no response. The text never contains the request's URL, which may be signed.
pub(crate) fn cause(error: &Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    cause.unwrap_or_else(|| error.to_string())
}
