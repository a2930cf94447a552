//! The client for requests with small bodies: over TLS or not, with connections that are kept.
//! What is asked, and when again, is left to who asks.

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::path::Path;

/// The client.
pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that trusts the platform's certificates and, where it is given, a private CA.
pub(crate) fn new(ca_file: Option<&Path>) -> anyhow::Result<HttpClient> {
    let connector = crate::tls::connector(ca_file)?;
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(connector))
}

/// Why a request was not answered, in words that never have its URL.
pub(crate) fn cause(error: &Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    cause.unwrap_or_else(|| error.to_string())
}
