//! A URL's authority: host and port, as written. What may be reached by it is left to the configuration.

use std::fmt;
use std::net::IpAddr;

/// Host and port. Compared without regard to case, as hosts are (RFC 3986, 3.2.2).
#[derive(Clone, Debug)]
pub struct Authority(String);

/// Why a text is no authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Not a host, or a host and a port.
    #[error("it is not a host with or without a port")]
    NotAnAuthority,
    /// With user information, which would be shown in messages.
    #[error("it carries a user name or a password")]
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
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host without the port; an IPv6 address in its brackets.
    pub fn host(&self) -> &str {
        let end = match self.0.rfind(']') {
            Some(bracket) => bracket + 1,
            None => self.0.find(':').unwrap_or(self.0.len()),
        };
        self.0.get(..end).unwrap_or(&self.0)
    }

    /// Whether it is on this machine.
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
    fn host_port_and_loopback_are_told_apart() {
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
    fn case_makes_no_difference_and_a_port_does() {
        assert_eq!(authority("Example.com:80"), authority("example.COM:80"));
        assert_ne!(authority("example.com:80"), authority("example.com"));
    }

    #[test]
    fn what_is_no_authority_is_refused() {
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
