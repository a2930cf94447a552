//! The component's configuration: what its operator sets in its environment, the one way that every host has.
//! The job never says any of this, or whoever can call the component could aim it.

use crate::authority::{Authority, AuthorityError};
use crate::job::SignedUrl;
use crate::source::{Encoding, SourceUrl, SourceUrlError};
use crate::token::{TokenDigest, TokenDigestError};

/// The environment variable with the source's base URL. It has to be there.
pub const SOURCE_URL: &str = "SOURCE_URL";

/// The environment variable with the `Accept-Encoding` of range requests: `gzip` (the default) or `identity`.
pub const SOURCE_ENCODING: &str = "SOURCE_ENCODING";

/// The environment variable with the SHA-256 of the bearer token, in hex. It has to be there.
pub const INVOKE_TOKEN_SHA256: &str = "INVOKE_TOKEN_SHA256";

/// The environment variable with the authorities that an upload may go to, separated by commas.
pub const UPLOAD_AUTHORITIES: &str = "UPLOAD_AUTHORITIES";

/// Where uploads may go when [`UPLOAD_AUTHORITIES`] is not set: Google Cloud Storage.
pub const UPLOAD_AUTHORITY_DEFAULT: &str = "storage.googleapis.com";

/// Upload authorities at the most.
pub const UPLOAD_AUTHORITIES_MAX: usize = 16;

/// Variables that begin so are ours: one that is not known is misspelt.
const OUR_BEGINNINGS: [&str; 3] = ["SOURCE_", "INVOKE_", "UPLOAD_"];

/// What the operator has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The source.
    pub source: SourceUrl,
    /// How its ranges are asked for.
    pub encoding: Encoding,
    /// The digest of the token that opens the door.
    pub token_digest: TokenDigest,
    /// Where uploads may go.
    pub upload_authorities: Vec<Authority>,
}

/// Why an environment is no configuration. No value is repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// A variable is missing.
    #[error("the environment has no {0}")]
    Missing(&'static str),
    /// A variable that is not known.
    #[error(
        "the environment has {0}, which is not known; known are {SOURCE_URL}, {SOURCE_ENCODING}, {INVOKE_TOKEN_SHA256}, {UPLOAD_AUTHORITIES}"
    )]
    Unknown(String),
    /// [`SOURCE_URL`] is wrong.
    #[error("the environment's {SOURCE_URL} is not usable: {0}")]
    Source(SourceUrlError),
    /// [`SOURCE_ENCODING`] is wrong.
    #[error("the environment's {SOURCE_ENCODING} is neither `gzip` nor `identity`")]
    Encoding,
    /// [`INVOKE_TOKEN_SHA256`] is wrong.
    #[error("the environment's {INVOKE_TOKEN_SHA256} is not usable: {0}")]
    TokenDigest(TokenDigestError),
    /// [`UPLOAD_AUTHORITIES`] is wrong.
    #[error("the environment's {UPLOAD_AUTHORITIES} is not usable: {0}")]
    UploadAuthority(AuthorityError),
    /// [`UPLOAD_AUTHORITIES`] has too many, or none.
    #[error(
        "the environment's {UPLOAD_AUTHORITIES} has {0} authorities; 1 to {UPLOAD_AUTHORITIES_MAX} are possible"
    )]
    UploadAuthorities(usize),
}

/// Why a signed URL is not written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadUrlError {
    /// `http` over a network would show the signature to everybody on the way.
    #[error("the job's upload URL must be https, or http on loopback")]
    Insecure,
    /// Not one of [`UPLOAD_AUTHORITIES`].
    #[error("the job's upload URL names an authority that this component may not write to")]
    Authority,
}

impl Configuration {
    /// Reads the configuration from an environment.
    ///
    /// # Errors
    /// A variable is missing, wrong, or not known.
    pub fn from_environment(
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigurationError> {
        let (mut source, mut encoding, mut token_digest, mut authorities) =
            (None, Encoding::default(), None, None);
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
                _ if OUR_BEGINNINGS.iter().any(|ours| name.starts_with(ours)) => {
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
        })
    }

    /// Whether an upload may go to `url`.
    ///
    /// # Errors
    /// It is neither https nor on this machine, or its authority is none of [`UPLOAD_AUTHORITIES`].
    pub fn check_upload_url(&self, url: &SignedUrl) -> Result<(), UploadUrlError> {
        let authority = url.authority();
        if !url.is_https() && !authority.is_loopback() {
            return Err(UploadUrlError::Insecure);
        }
        if !self.upload_authorities.contains(authority) {
            return Err(UploadUrlError::Authority);
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
    fn what_is_missing_wrong_or_misspelt_is_named_and_no_value_is_repeated() {
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
    fn defaults_are_gzip_and_google_cloud_storage() {
        let configuration = with("HOME", "/").expect("a configuration");
        assert_eq!(configuration.encoding, Encoding::Gzip);
        let url = |text: &str| SignedUrl::new(text.to_owned()).expect("a URL");
        let check = |text| configuration.check_upload_url(&url(text));
        assert_eq!(check("https://storage.googleapis.com/b/AB.tar?x"), Ok(()));
        assert_eq!(check("https://STORAGE.googleapis.com/b/AB.tar?x"), Ok(()));
        for (text, error) in [
            (
                "https://storage.googleapis.com:8443/b?x",
                UploadUrlError::Authority,
            ),
            ("https://evil.example/b?x", UploadUrlError::Authority),
            (
                "https://storage.googleapis.com.evil.example/b?x",
                UploadUrlError::Authority,
            ),
            (
                "http://storage.googleapis.com/b?x",
                UploadUrlError::Insecure,
            ),
            ("http://127.0.0.1:9000/b?x", UploadUrlError::Authority),
        ] {
            assert_eq!(check(text), Err(error), "{text}");
        }
    }

    #[test]
    fn an_upload_may_go_where_the_operator_says_and_by_http_only_on_this_machine() {
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
                Err(UploadUrlError::Insecure),
            ),
            (
                "https://storage.googleapis.com/b?x",
                Err(UploadUrlError::Authority),
            ),
        ] {
            assert_eq!(configuration.check_upload_url(&url(text)), result, "{text}");
        }
    }
}
