//! [`ComponentUrl`]: a component's URL, checked so that the token is never sent in the clear.

use prefix_tar::protocol::source::SourceUrl;
use std::fmt;
use std::str::FromStr;

/// The URL that jobs are posted to: https, or http on this machine or inside a Kubernetes cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentUrl(pub(super) http::Uri);

/// Why a text is not a component's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComponentUrlError {
    /// Not an absolute http or https URL without user information.
    #[error("it is not an absolute http or https URL without a user name")]
    NotHttp,
    /// Plain `http` over a network would expose the token.
    #[error("it is http and not on this machine, which would expose the token; use https")]
    Insecure,
}

impl FromStr for ComponentUrl {
    type Err = ComponentUrlError;

    fn from_str(text: &str) -> Result<Self, ComponentUrlError> {
        let uri: http::Uri = text.parse().map_err(|_| ComponentUrlError::NotHttp)?;
        let source: SourceUrl = text.parse().map_err(|_| ComponentUrlError::NotHttp)?;
        let is_cluster = source.authority().host().ends_with(".svc.cluster.local");
        if source.is_https() || source.authority().is_loopback() || is_cluster {
            Ok(Self(uri))
        } else {
            Err(ComponentUrlError::Insecure)
        }
    }
}

impl fmt::Display for ComponentUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_crosses_a_network_only_over_https() {
        use ComponentUrlError::{Insecure, NotHttp};
        for (text, error) in [
            ("http://component.example", Insecure),
            ("http://10.0.0.1:3000/", Insecure),
            ("ftp://component.example", NotHttp),
            ("https://user:secret@component.example", NotHttp),
            ("component.example", NotHttp),
        ] {
            assert_eq!(text.parse::<ComponentUrl>(), Err(error), "{text}");
        }
        for text in [
            "https://component.example/path",
            "http://127.0.0.1:3000",
            "http://[::1]:3000/",
            "http://prefix-tar.default.svc.cluster.local",
        ] {
            assert!(text.parse::<ComponentUrl>().is_ok(), "{text}");
        }
    }
}
