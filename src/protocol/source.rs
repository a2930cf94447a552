//! [`SourceUrl`]: the base URL of a range API.

use crate::protocol::authority::{Authority, AuthorityError};
use crate::protocol::mode::Mode;
use crate::protocol::prefix::RangeName;
use std::fmt;

/// The public API.
pub const PWNED_PASSWORDS_URL: &str = "https://api.pwnedpasswords.com";

/// The base URL of a range API. The URL of a range is `{base}/range/{range}`, for NTLM hashes with a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceUrl {
    is_https: bool,
    authority: Authority,
    base_path: String,
}

/// Why a text is not a source URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceUrlError {
    /// Not an absolute http or https URL.
    #[error("it is not an absolute http or https URL")]
    NotHttp,
    /// It has user information, which messages would reveal.
    #[error("it contains a user name or a password")]
    UserInformation,
    /// It has a query, so no path can be appended.
    #[error("it contains a query")]
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
        let authority = authority.parse().map_err(|error| match error {
            AuthorityError::UserInformation => SourceUrlError::UserInformation,
            AuthorityError::NotAnAuthority => SourceUrlError::NotHttp,
        })?;
        if uri.query().is_some() {
            return Err(SourceUrlError::Query);
        }
        Ok(Self {
            is_https,
            authority,
            base_path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl SourceUrl {
    /// Whether the scheme is `https`.
    pub const fn is_https(&self) -> bool {
        self.is_https
    }

    /// The host and port.
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The path of a range, under another cache key: the mode that is the default, said aloud. A cache that has an error
    /// for the one key asks the API for the other. `None` for a mode that always has to be said.
    pub fn explicit_range_path(&self, range: RangeName, mode: Mode) -> Option<String> {
        match mode {
            Mode::Sha1 => Some(format!("{}/range/{range}?mode=sha1", self.base_path)),
            Mode::Ntlm => None,
        }
    }

    /// The path of a range, with the query that asks for the hashes of `mode`.
    pub fn range_path(&self, range: RangeName, mode: Mode) -> String {
        match mode.query() {
            None => format!("{}/range/{range}", self.base_path),
            Some(query) => format!("{}/range/{range}?{query}", self.base_path),
        }
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(formatter, "{scheme}://{}{}", self.authority, self.base_path)
    }
}

/// The `Accept-Encoding` of range requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// `gzip`: half as many bytes.
    #[default]
    Gzip,
    /// `identity`: less CPU, for a source on the same machine.
    Identity,
}

impl Encoding {
    /// The header's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Identity => "identity",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_prints_its_url_and_knows_the_path_of_a_range() {
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
            assert_eq!(source.range_path(range, Mode::Sha1), path);
            let ntlm = source.range_path(range, Mode::Ntlm);
            assert_eq!(ntlm, format!("{path}?mode=ntlm"));
        }
    }

    #[test]
    fn an_invalid_source_is_rejected() {
        use SourceUrlError::{NotHttp, Query, UserInformation};
        for (text, error) in [
            ("", NotHttp),
            ("api.pwnedpasswords.com", NotHttp),
            ("ftp://example.com", NotHttp),
            ("/range", NotHttp),
            ("https://user:secret@example.com", UserInformation),
            ("https://example.com/?mode=ntlm", Query),
            ("https://:80", NotHttp),
        ] {
            assert_eq!(text.parse::<SourceUrl>(), Err(error), "{text}");
        }
    }
}
