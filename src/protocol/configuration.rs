//! [`Configuration`]: the environment variables that the component's operator sets.
//!
//! None of these values comes from a job. A caller can therefore choose neither the source nor a
//! store that the operator has not allowed.

use crate::protocol::authority::{Authority, AuthorityError};
use crate::protocol::signed_url::SignedUrl;
use crate::protocol::source::{Encoding, SourceUrl, SourceUrlError};
use crate::protocol::token::{TokenDigest, TokenDigestError};

/// The environment variable with the source's base URL. Required.
pub const SOURCE_URL: &str = "SOURCE_URL";

/// The environment variable with the `Accept-Encoding` of range requests: `gzip` (the default) or
/// `identity`.
pub const SOURCE_ENCODING: &str = "SOURCE_ENCODING";

/// The environment variable with the SHA-256 of the bearer token, in hex. Required.
pub const INVOKE_TOKEN_SHA256: &str = "INVOKE_TOKEN_SHA256";

/// The environment variable with the authorities of stores, separated by commas: uploads may go there, and a base may
/// come from there.
pub const UPLOAD_AUTHORITIES: &str = "UPLOAD_AUTHORITIES";

/// The environment variable that says whether the host marks responses with [`UNFRAMED`]: `true` or
/// `false` (the default). Only the embedded host does, and sets it.
pub const HOST_CHECKS_FRAMING: &str = "HOST_CHECKS_FRAMING";

/// The header that such a host adds to a response whose body ends with its connection. The guest
/// cannot see that: WASI hosts hide Transfer-Encoding and the version of HTTP.
pub const UNFRAMED: &str = "x-prefix-tar-unframed";

/// The value of [`UPLOAD_AUTHORITIES`] if it is not set: Google Cloud Storage.
pub const UPLOAD_AUTHORITY_DEFAULT: &str = "storage.googleapis.com";

/// The largest number of upload authorities.
pub const UPLOAD_AUTHORITIES_MAX: usize = 16;

/// The prefixes of our variables. An unknown variable with one of them is a misspelling.
const NAME_PREFIXES: [&str; 3] = ["SOURCE_", "INVOKE_", "UPLOAD_"];

/// The component's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Where ranges come from.
    pub source: SourceUrl,
    /// The encoding to request them in.
    pub encoding: Encoding,
    /// The digest of the token that admits a request.
    pub token_digest: TokenDigest,
    /// Where uploads may go.
    pub upload_authorities: Vec<Authority>,
    /// Whether the host marks responses with [`UNFRAMED`].
    pub host_checks_framing: bool,
}

/// Why an environment is not a valid configuration. No message repeats a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// A variable is missing.
    #[error("the environment has no {0}")]
    Missing(&'static str),
    /// A variable is unknown.
    #[error(
        "the environment has {0}, which is unknown; valid names are {SOURCE_URL}, {SOURCE_ENCODING}, {INVOKE_TOKEN_SHA256}, {UPLOAD_AUTHORITIES} and {HOST_CHECKS_FRAMING}"
    )]
    Unknown(String),
    /// [`SOURCE_URL`] is invalid.
    #[error("the environment's {SOURCE_URL} is invalid: {0}")]
    Source(SourceUrlError),
    /// [`SOURCE_ENCODING`] is invalid.
    #[error("the environment's {SOURCE_ENCODING} is neither `gzip` nor `identity`")]
    Encoding,
    /// [`INVOKE_TOKEN_SHA256`] is invalid.
    #[error("the environment's {INVOKE_TOKEN_SHA256} is invalid: {0}")]
    TokenDigest(TokenDigestError),
    /// [`UPLOAD_AUTHORITIES`] is invalid.
    #[error("the environment's {UPLOAD_AUTHORITIES} is invalid: {0}")]
    UploadAuthority(AuthorityError),
    /// [`UPLOAD_AUTHORITIES`] has too many authorities.
    #[error(
        "the environment's {UPLOAD_AUTHORITIES} has {0} authorities; at most {UPLOAD_AUTHORITIES_MAX} are allowed"
    )]
    UploadAuthorities(usize),
    /// [`HOST_CHECKS_FRAMING`] is invalid.
    #[error("the environment's {HOST_CHECKS_FRAMING} is neither `true` nor `false`")]
    HostChecksFraming,
}

/// Why the component does not use a signed URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// Plain `http` to another machine would expose the signature on the network.
    #[error("the job's signed URLs must be https, or http on loopback")]
    Insecure,
    /// The authority is not in [`UPLOAD_AUTHORITIES`].
    #[error(
        "the job has a signed URL of a store that this component may not use; its operator allows stores in {UPLOAD_AUTHORITIES}"
    )]
    Authority,
}

impl Configuration {
    /// Reads the configuration from an environment.
    ///
    /// # Errors
    /// A variable is missing, invalid or unknown.
    pub fn from_environment(
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigurationError> {
        let (mut source, mut encoding, mut token_digest, mut authorities) =
            (None, Encoding::default(), None, None);
        let mut host_checks_framing = false;
        for (name, value) in environment {
            match name.as_str() {
                SOURCE_URL => source = Some(value.parse().map_err(ConfigurationError::Source)?),
                SOURCE_ENCODING => {
                    encoding = match value.as_str() {
                        "gzip" => Encoding::Gzip,
                        "identity" => Encoding::Identity,
                        _ => return Err(ConfigurationError::Encoding),
                    }
                }
                INVOKE_TOKEN_SHA256 => {
                    let digest = value.parse().map_err(ConfigurationError::TokenDigest)?;
                    token_digest = Some(digest);
                }
                UPLOAD_AUTHORITIES => authorities = Some(parse_authorities(&value)?),
                HOST_CHECKS_FRAMING => {
                    let checks = value.parse();
                    host_checks_framing =
                        checks.map_err(|_| ConfigurationError::HostChecksFraming)?;
                }
                _ if NAME_PREFIXES.iter().any(|ours| name.starts_with(ours)) => {
                    return Err(ConfigurationError::Unknown(name));
                }
                _ => {}
            }
        }
        Ok(Self {
            source: source.ok_or(ConfigurationError::Missing(SOURCE_URL))?,
            encoding,
            token_digest: token_digest.ok_or(ConfigurationError::Missing(INVOKE_TOKEN_SHA256))?,
            upload_authorities: match authorities {
                Some(authorities) => authorities,
                None => parse_authorities(UPLOAD_AUTHORITY_DEFAULT)?,
            },
            host_checks_framing,
        })
    }

    /// Checks that an upload may go to `url`, or a base come from it.
    ///
    /// # Errors
    /// It is `http` to another machine, or its authority is not in [`UPLOAD_AUTHORITIES`].
    pub fn check_store_url(&self, url: &SignedUrl) -> Result<(), StoreUrlError> {
        let authority = url.authority();
        if !url.is_https() && !authority.is_loopback() {
            return Err(StoreUrlError::Insecure);
        }
        if !self.upload_authorities.contains(authority) {
            return Err(StoreUrlError::Authority);
        }
        Ok(())
    }
}

fn parse_authorities(list: &str) -> Result<Vec<Authority>, ConfigurationError> {
    let authorities: Vec<Authority> = list
        .split(',')
        .map(|authority| authority.trim().parse())
        .collect::<Result<_, _>>()
        .map_err(ConfigurationError::UploadAuthority)?;
    if authorities.len() > UPLOAD_AUTHORITIES_MAX {
        return Err(ConfigurationError::UploadAuthorities(authorities.len()));
    }
    Ok(authorities)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Configuration, ConfigurationError> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Configuration::from_environment(variables.iter().map(owned))
    }

    fn with(name: &str, value: &str) -> Result<Configuration, ConfigurationError> {
        let digest = "0".repeat(64);
        let mut variables = vec![
            ("PATH", "/bin"),
            (SOURCE_URL, "http://[::1]:1"),
            (INVOKE_TOKEN_SHA256, digest.as_str()),
        ];
        variables.retain(|(known, _)| *known != name);
        variables.push((name, value));
        read(&variables)
    }

    #[test]
    fn a_missing_invalid_or_misspelt_variable_is_named_without_its_value() {
        use ConfigurationError as E;
        assert_eq!(read(&[]), Err(E::Missing(SOURCE_URL)));
        assert_eq!(
            read(&[(SOURCE_URL, "http://[::1]:1")]),
            Err(E::Missing(INVOKE_TOKEN_SHA256))
        );
        let many = vec!["a"; UPLOAD_AUTHORITIES_MAX + 1].join(",");
        for (name, value, error) in [
            (SOURCE_URL, "secret", E::Source(SourceUrlError::NotHttp)),
            (SOURCE_ENCODING, "secret", E::Encoding),
            (
                INVOKE_TOKEN_SHA256,
                "secret",
                E::TokenDigest(TokenDigestError),
            ),
            (
                UPLOAD_AUTHORITIES,
                "secret/x",
                E::UploadAuthority(AuthorityError::NotAnAuthority),
            ),
            (
                UPLOAD_AUTHORITIES,
                "",
                E::UploadAuthority(AuthorityError::NotAnAuthority),
            ),
            (
                UPLOAD_AUTHORITIES,
                &many,
                E::UploadAuthorities(UPLOAD_AUTHORITIES_MAX + 1),
            ),
            (HOST_CHECKS_FRAMING, "secret", E::HostChecksFraming),
            (HOST_CHECKS_FRAMING, "", E::HostChecksFraming),
            (
                "SOURCE_ENCODNG",
                "secret",
                E::Unknown("SOURCE_ENCODNG".to_owned()),
            ),
        ] {
            let read = with(name, value).expect_err(name);
            assert!(!read.to_string().contains("secret"), "{read}");
            assert_eq!(read, error, "{name}");
        }
    }

    #[test]
    fn the_defaults_are_gzip_and_google_cloud_storage() {
        let configuration = with("HOME", "/").expect("a configuration");
        assert_eq!(configuration.encoding, Encoding::Gzip);
        assert!(!configuration.host_checks_framing);
        for (value, checks) in [("true", true), ("false", false)] {
            let configuration = with(HOST_CHECKS_FRAMING, value).expect("a configuration");
            assert_eq!(configuration.host_checks_framing, checks);
        }
        let url = |text: &str| SignedUrl::new(text.to_owned()).expect("a URL");
        let check = |text| configuration.check_store_url(&url(text));
        assert_eq!(check("https://storage.googleapis.com/b/AB.tar?x"), Ok(()));
        assert_eq!(check("https://STORAGE.googleapis.com/b/AB.tar?x"), Ok(()));
        for (text, error) in [
            (
                "https://storage.googleapis.com:8443/b?x",
                StoreUrlError::Authority,
            ),
            ("https://evil.example/b?x", StoreUrlError::Authority),
            (
                "https://storage.googleapis.com.evil.example/b?x",
                StoreUrlError::Authority,
            ),
            ("http://storage.googleapis.com/b?x", StoreUrlError::Insecure),
            ("http://127.0.0.1:9000/b?x", StoreUrlError::Authority),
        ] {
            assert_eq!(check(text), Err(error), "{text}");
        }
    }

    #[test]
    fn uploads_are_limited_to_the_allowed_authorities_and_http_to_loopback() {
        let many = vec!["a"; UPLOAD_AUTHORITIES_MAX].join(",");
        assert!(with(UPLOAD_AUTHORITIES, &many).is_ok(), "at the bound");
        let configuration =
            with(UPLOAD_AUTHORITIES, "127.0.0.1:9000, storage.example:8443").expect("two");
        let url = |text: &str| SignedUrl::new(text.to_owned()).expect("a URL");
        for (text, result) in [
            ("http://127.0.0.1:9000/b?x", Ok(())),
            ("https://127.0.0.1:9000/b?x", Ok(())),
            ("https://storage.example:8443/b?x", Ok(())),
            (
                "http://storage.example:8443/b?x",
                Err(StoreUrlError::Insecure),
            ),
            (
                "https://storage.googleapis.com/b?x",
                Err(StoreUrlError::Authority),
            ),
        ] {
            assert_eq!(configuration.check_store_url(&url(text)), result, "{text}");
        }
    }
}
