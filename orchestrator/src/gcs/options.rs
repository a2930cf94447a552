//! How objects are stored in a bucket, and at which endpoint.

use crate::origin::Origin;
use prefix_tar::protocol::authority::Authority;
use std::collections::BTreeMap;

/// Google's endpoint.
const ENDPOINT_DEFAULT: &str = "https://storage.googleapis.com";

/// The customary environment variable for another endpoint.
const EMULATOR_VARIABLE: &str = "STORAGE_EMULATOR_HOST";

/// How objects are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectOptions {
    /// An endpoint other than Google's: `http://127.0.0.1:9000`.
    pub endpoint: Option<String>,
    /// A storage class other than the bucket's default: `NEARLINE`.
    pub storage_class: Option<String>,
    /// The Cloud KMS key that encrypts the objects.
    pub kms_key: Option<String>,
    /// The objects' Cache-Control: `public, max-age=3600`.
    pub cache_control: Option<String>,
}

impl ObjectOptions {
    /// The headers that every upload sends.
    pub fn headers(&self) -> BTreeMap<String, String> {
        [
            ("x-goog-storage-class", &self.storage_class),
            ("x-goog-encryption-kms-key-name", &self.kms_key),
            ("cache-control", &self.cache_control),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
        .collect()
    }

    /// The origin of the store.
    ///
    /// # Errors
    /// The endpoint is not a URL, or would send signatures over a network in plain text.
    pub fn origin(&self) -> Result<Origin, EndpointError> {
        let endpoint = self.endpoint();
        let uri: http::Uri = endpoint
            .parse()
            .map_err(|_| EndpointError::NotUrl(endpoint.clone()))?;
        let authority: Authority = uri
            .authority()
            .and_then(|authority| authority.as_str().parse().ok())
            .ok_or_else(|| EndpointError::NoHost(endpoint.clone()))?;
        let is_https = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        if !is_https && !authority.is_loopback() {
            return Err(EndpointError::Insecure(endpoint));
        }
        Ok(Origin::new(is_https, authority.as_str()))
    }

    /// The store's URL: the option, or the environment's emulator, or Google's.
    fn endpoint(&self) -> String {
        let emulator = || std::env::var(EMULATOR_VARIABLE).ok();
        let endpoint = self.endpoint.clone().or_else(emulator);
        let endpoint = endpoint.unwrap_or_else(|| ENDPOINT_DEFAULT.to_owned());
        let endpoint = endpoint.trim_end_matches('/');
        if endpoint.contains("://") {
            endpoint.to_owned()
        } else {
            // The emulator's variable customarily has no scheme.
            format!("http://{endpoint}")
        }
    }
}

/// Why an endpoint cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL.
    #[error("the store's endpoint {0} is not a URL")]
    NotUrl(String),
    /// A URL without a host.
    #[error("the store's endpoint {0} has no host")]
    NoHost(String),
    /// `http` to another machine.
    #[error(
        "the store's endpoint {0} is http and not on this machine, which would expose signatures on the network; use https"
    )]
    Insecure(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_a_scheme_is_http() {
        for (endpoint, url) in [
            ("https://storage.example/", "https://storage.example"),
            ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ] {
            let options = ObjectOptions {
                endpoint: Some(endpoint.to_owned()),
                ..ObjectOptions::default()
            };
            assert_eq!(options.endpoint(), url);
        }
    }
}
