//! [`Authority`]: the host and port of a URL.

use std::fmt;
use std::net::IpAddr;

/// Host and port, as written. Comparison ignores case (RFC 3986, 3.2.2).
#[derive(Clone, Debug)]
pub struct Authority(String);

/// Why a text is not an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Not a host, or a host and a port.
    #[error("it is not a host or a host and a port")]
    NotAnAuthority,
    /// It has user information, which messages would reveal.
    #[error("it contains a user name or a password")]
    UserInformation,
}

impl std::str::FromStr for Authority {
    type Err = AuthorityError;

    fn from_str(text: &str) -> Result<Self, AuthorityError> {
        let authority: http::uri::Authority =
            text.parse().map_err(|_| AuthorityError::NotAnAuthority)?;
        if text.contains('@') {
            return Err(AuthorityError::UserInformation);
        }
        if authority.host().is_empty() {
            return Err(AuthorityError::NotAnAuthority);
        }
        Ok(Self(text.to_owned()))
    }
}

impl PartialEq for Authority {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Authority {}

impl fmt::Display for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Authority {
    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host without the port. An IPv6 address keeps its brackets.
    pub fn host(&self) -> &str {
        let end = match self.0.rfind(']') {
            Some(bracket) => bracket + 1,
            None => self.0.find(':').unwrap_or(self.0.len()),
        };
        self.0.get(..end).unwrap_or(&self.0)
    }

    /// Whether the host is a loopback address or `localhost`.
    pub fn is_loopback(&self) -> bool {
        let host = self.host().trim_matches(['[', ']']);
        host.eq_ignore_ascii_case("localhost")
            || host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(text: &str) -> Authority {
        text.parse().expect("an authority")
    }

    #[test]
    fn the_host_and_loopback_are_recognized() {
        for (text, host, is_loopback) in [
            ("127.0.0.1:8080", "127.0.0.1", true),
            ("[::1]:8080", "[::1]", true),
            ("[::1]", "[::1]", true),
            ("LocalHost", "LocalHost", true),
            ("127.1.2.3", "127.1.2.3", true),
            ("10.0.0.1:80", "10.0.0.1", false),
            ("api.pwnedpasswords.com", "api.pwnedpasswords.com", false),
            ("localhost.example.com", "localhost.example.com", false),
            ("127.0.0.1.example.com", "127.0.0.1.example.com", false),
        ] {
            let authority = authority(text);
            assert_eq!(authority.host(), host);
            assert_eq!(authority.is_loopback(), is_loopback, "{text}");
            assert_eq!(authority.to_string(), text);
        }
    }

    #[test]
    fn comparison_ignores_case_but_not_the_port() {
        assert_eq!(authority("Example.com:80"), authority("example.COM:80"));
        assert_ne!(authority("example.com:80"), authority("example.com"));
    }

    #[test]
    fn an_invalid_authority_is_rejected() {
        use AuthorityError::{NotAnAuthority, UserInformation};
        for (text, error) in [
            ("", NotAnAuthority),
            ("a/b", NotAnAuthority),
            ("a b", NotAnAuthority),
            (":80", NotAnAuthority),
            ("user:secret@example.com", UserInformation),
            ("user@example.com", UserInformation),
        ] {
            assert_eq!(text.parse::<Authority>(), Err(error), "{text}");
        }
    }
}
