//! [`Origin`]: the scheme, host and port that a component may reach.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use prefix_tar::protocol::source::SourceUrl;
use std::fmt;
use std::io;
use std::sync::Arc;

/// A body on its way to or from a server in this process.
pub type InProcessBody = UnsyncBoxBody<Bytes, io::Error>;

/// A server in this process, which is called instead of connected to.
#[async_trait::async_trait]
pub trait InProcessServer: Send + Sync {
    /// Answers one request as it would over a socket.
    ///
    /// # Errors
    /// What a client would see as a lost connection.
    async fn answer(&self, request: Request<InProcessBody>) -> io::Result<Response<InProcessBody>>;
}

/// An origin, and the server behind it if that is in this process.
#[derive(Clone)]
pub struct Origin {
    is_https: bool,
    authority: String,
    server: Option<Arc<dyn InProcessServer>>,
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
    /// The origin with this authority.
    pub fn new(is_https: bool, authority: &str) -> Self {
        Self {
            is_https,
            authority: authority.to_owned(),
            server: None,
        }
    }

    /// The origin of a source.
    pub fn of_source(source: &SourceUrl) -> Self {
        Self::new(source.is_https(), source.authority().as_str())
    }

    /// `http://` and this authority, answered by a server in this process.
    pub fn in_process(authority: &str, server: Arc<dyn InProcessServer>) -> Self {
        Self {
            server: Some(server),
            ..Self::new(false, authority)
        }
    }

    /// The host and port.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The server in this process that answers for this origin, if there is one.
    pub fn server(&self) -> Option<&Arc<dyn InProcessServer>> {
        self.server.as_ref()
    }

    /// Whether a URL has this origin.
    pub fn contains(&self, uri: &http::Uri) -> bool {
        let is_https = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        is_https == self.is_https
            && uri
                .authority()
                .is_some_and(|authority| authority.as_str().eq_ignore_ascii_case(&self.authority))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = Origin::new(false, "127.0.0.1:9000");
        let contains = |uri: &'static str| origin.contains(&http::Uri::from_static(uri));
        assert!(contains("http://127.0.0.1:9000/bucket/AB.tar"));
        assert!(!contains("https://127.0.0.1:9000/bucket/AB.tar"));
        assert!(!contains("http://127.0.0.1:9001/bucket/AB.tar"));
        assert!(!contains("http://localhost:9000/bucket/AB.tar"));
    }
}
