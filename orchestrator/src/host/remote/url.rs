//! Where a component is, and over what a token may go there.

use prefix_tar::source::SourceUrl;
use std::fmt;
use std::str::FromStr;

/// Where a component is: the URL that jobs are posted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentUrl(pub(super) http::Uri);

/// Why a text is no component's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComponentUrlError {
    /// Not an absolute http or https URL without user information.
    #[error("it is not an absolute http or https URL without a user name")]
    NotHttp,
    /// `http` over a network would show the token to everybody on the way.
    #[error("it is http and not on this machine; the token would be seen on the way")]
    Insecure,
}

impl FromStr for ComponentUrl {
    type Err = ComponentUrlError;

    fn from_str(text: &str) -> Result<Self, ComponentUrlError> {
        let uri: http::Uri = text.parse().map_err(|_| ComponentUrlError::NotHttp)?;
        let source: SourceUrl = text.parse().map_err(|_| ComponentUrlError::NotHttp)?;
        Ok(Self(uri)).and_then(|url| {
            let is_cluster = source.authority().host().ends_with(".svc.cluster.local");
            if source.is_https() || source.authority().is_loopback() || is_cluster {
                Ok(url)
            } else {
                Err(ComponentUrlError::Insecure)
            }
        })
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
    fn a_token_goes_over_a_network_only_by_https() {
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
