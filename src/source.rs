//! The source's base URL, and the configuration that comes from the environment.
//! Every host hands an environment over; the job never names a source.

use crate::prefix::RangeName;
use std::fmt;

/// The environment variable with the source's base URL.
pub const SOURCE_URL: &str = "SOURCE_URL";

/// The environment variable with the `Accept-Encoding` of range requests: `gzip` or `identity`.
pub const SOURCE_ENCODING: &str = "SOURCE_ENCODING";

/// Where the real API is.
pub const PWNED_PASSWORDS_URL: &str = "https://api.pwnedpasswords.com";

/// The base URL of a range API. A range is at `{base}/range/{range}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceUrl {
    is_https: bool,
    authority: String,
    base_path: String,
}

/// Why a text is no source URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceUrlError {
    /// Not an absolute http or https URL.
    #[error("it is not an absolute http or https URL")]
    NotHttp,
    /// With user information, which would be shown in messages.
    #[error("it carries a user name or a password")]
    UserInformation,
    /// With a query, which a path cannot be appended to.
    #[error("it carries a query")]
    Query,
}

impl std::str::FromStr for SourceUrl {
    type Err = SourceUrlError;

    fn from_str(text: &str) -> Result<Self, SourceUrlError> {
        let uri: http::Uri = text.parse().map_err(|_| SourceUrlError::NotHttp)?;
        let authority = uri.authority().ok_or(SourceUrlError::NotHttp)?.as_str();
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(SourceUrlError::NotHttp),
        };
        if authority.contains('@') {
            return Err(SourceUrlError::UserInformation);
        }
        if uri.query().is_some() {
            return Err(SourceUrlError::Query);
        }
        Ok(Self {
            is_https,
            authority: authority.to_owned(),
            base_path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl SourceUrl {
    /// Whether it is `https`.
    pub const fn is_https(&self) -> bool {
        self.is_https
    }

    /// Its host and port.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Its host without a port.
    pub fn host(&self) -> &str {
        let end = match self.authority.rfind(']') {
            Some(bracket) => bracket + 1,
            None => self.authority.find(':').unwrap_or(self.authority.len()),
        };
        &self.authority[..end]
    }

    /// Whether it is on this machine: there, compressing a range costs more than sending it.
    pub fn is_loopback(&self) -> bool {
        let host = self.host().trim_matches(['[', ']']);
        host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }

    /// The path of a range.
    pub fn range_path(&self, range: RangeName) -> String {
        format!("{}/range/{range}", self.base_path)
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(formatter, "{scheme}://{}{}", self.authority, self.base_path)
    }
}

/// What range requests ask for in `Accept-Encoding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// `gzip`: half the bytes on a network.
    #[default]
    Gzip,
    /// `identity`: less work, for a source on the same machine.
    Identity,
}

impl Encoding {
    /// The value of the header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Identity => "identity",
        }
    }
}

/// The component's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The source.
    pub source: SourceUrl,
    /// How its ranges are asked for.
    pub encoding: Encoding,
}

/// Why an environment is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// A variable is missing.
    #[error("the environment has no {0}")]
    Missing(&'static str),
    /// [`SOURCE_URL`] is wrong.
    #[error("the environment's SOURCE_URL is not usable: {0}")]
    Source(SourceUrlError),
    /// [`SOURCE_ENCODING`] is wrong.
    #[error("the environment's SOURCE_ENCODING is neither `gzip` nor `identity`")]
    Encoding,
}

impl Configuration {
    /// Reads the configuration from an environment, given as a look-up.
    ///
    /// # Errors
    /// A variable is missing or wrong.
    pub fn from_environment(
        look_up: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigurationError> {
        let source = look_up(SOURCE_URL)
            .ok_or(ConfigurationError::Missing(SOURCE_URL))?
            .parse()
            .map_err(ConfigurationError::Source)?;
        let encoding = match look_up(SOURCE_ENCODING).as_deref() {
            None | Some("gzip") => Encoding::Gzip,
            Some("identity") => Encoding::Identity,
            Some(_) => return Err(ConfigurationError::Encoding),
        };
        Ok(Self { source, encoding })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_says_where_its_ranges_are() {
        let range = "AB7FF".parse().expect("a range");
        for (text, shown, path) in [
            (
                "https://api.pwnedpasswords.com",
                "https://api.pwnedpasswords.com",
                "/range/AB7FF",
            ),
            (
                "http://[::1]:8080/mirror/",
                "http://[::1]:8080/mirror",
                "/mirror/range/AB7FF",
            ),
        ] {
            let source: SourceUrl = text.parse().expect("a source");
            assert_eq!(source.to_string(), shown);
            assert_eq!(source.range_path(range), path);
        }
    }

    #[test]
    fn what_is_no_source_is_refused() {
        use SourceUrlError::{NotHttp, Query, UserInformation};
        for (text, error) in [
            ("", NotHttp),
            ("api.pwnedpasswords.com", NotHttp),
            ("ftp://example.com", NotHttp),
            ("/range", NotHttp),
            ("https://user:secret@example.com", UserInformation),
            ("https://example.com/?mode=ntlm", Query),
        ] {
            assert_eq!(text.parse::<SourceUrl>(), Err(error), "{text}");
        }
    }

    #[test]
    fn loopback_is_told_from_the_network() {
        for (text, is_loopback) in [
            ("http://127.0.0.1:8080", true),
            ("http://[::1]:8080", true),
            ("http://localhost", true),
            ("https://api.pwnedpasswords.com", false),
            ("http://10.0.0.1", false),
        ] {
            let source: SourceUrl = text.parse().expect("a source");
            assert_eq!(source.is_loopback(), is_loopback, "{text}");
        }
    }

    #[test]
    fn the_environment_is_checked() {
        let read = |source: Option<&str>, encoding: Option<&str>| {
            Configuration::from_environment(|name| {
                match name {
                    SOURCE_URL => source,
                    SOURCE_ENCODING => encoding,
                    _ => None,
                }
                .map(str::to_owned)
            })
        };
        assert_eq!(
            read(None, None),
            Err(ConfigurationError::Missing(SOURCE_URL))
        );
        assert_eq!(
            read(Some("x"), None),
            Err(ConfigurationError::Source(SourceUrlError::NotHttp))
        );
        assert_eq!(
            read(Some("http://[::1]:1"), Some("br")),
            Err(ConfigurationError::Encoding)
        );
        let read = read(Some("http://[::1]:1"), None).expect("a configuration");
        assert_eq!(read.encoding, Encoding::Gzip);
    }
}
