//! [`SignedUrl`]: a presigned URL that cannot be logged by accident.

use crate::protocol::authority::Authority;
use serde::Deserialize;
use std::fmt;

/// A URL whose query contains a signature: whoever has it may write the object. It is a credential,
/// so it has no `Display`, `Serialize` or `Clone`, and `Debug` shows only scheme, authority and
/// path.
#[derive(PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SignedUrl {
    text: String,
    uri: http::Uri,
    authority: Authority,
}

impl SignedUrl {
    /// Parses a signed URL.
    ///
    /// # Errors
    /// It is not an absolute `http` or `https` URL, or has user information. The error does not
    /// repeat it.
    pub fn new(text: String) -> Result<Self, SignedUrlError> {
        let uri: http::Uri = text.parse().map_err(|_| SignedUrlError)?;
        if !matches!(uri.scheme_str(), Some("https" | "http")) {
            return Err(SignedUrlError);
        }
        let authority = uri.authority().ok_or(SignedUrlError)?;
        let authority = authority.as_str().parse().map_err(|_| SignedUrlError)?;
        Ok(Self {
            text,
            uri,
            authority,
        })
    }

    /// Whether the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.uri.scheme() == Some(&http::uri::Scheme::HTTPS)
    }

    /// The host and port.
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The path, without the secret query.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The path and the secret query, only for the request line.
    pub fn expose_path_and_query(&self) -> &str {
        self.uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str)
    }

    /// The whole secret URL, only for the job's JSON.
    pub fn expose_secret(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let (authority, path) = (self.authority(), self.path());
        write!(
            formatter,
            "SignedUrl({scheme}://{authority}{path}?<redacted>)"
        )
    }
}

impl TryFrom<String> for SignedUrl {
    type Error = SignedUrlError;

    fn try_from(text: String) -> Result<Self, SignedUrlError> {
        Self::new(text)
    }
}

/// The text is not a signed URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signed URL is not an absolute http or https URL")]
pub struct SignedUrlError;

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://storage.googleapis.com/bucket/AB.tar?X-Goog-Signature=5ec4e7";

    #[test]
    fn debug_hides_the_signature() {
        let url = SignedUrl::new(URL.to_owned()).expect("a URL");
        let shown = format!("{url:?}");
        assert_eq!(
            shown,
            "SignedUrl(https://storage.googleapis.com/bucket/AB.tar?<redacted>)"
        );
        assert!(url.is_https());
        assert_eq!(url.authority().as_str(), "storage.googleapis.com");
        assert!(url.expose_path_and_query().ends_with("Signature=5ec4e7"));
    }
}
