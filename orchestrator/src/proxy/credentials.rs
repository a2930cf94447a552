//! [`Credentials`]: the user name and the password of a proxy, which nothing prints.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use std::fmt;

/// The value of `Proxy-Authorization` (RFC 7617).
pub(super) struct Credentials(HeaderValue);

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials")
    }
}

impl Credentials {
    /// Reads the part of a URL before `@`. `None` if it decodes to a control character, which neither may have.
    pub(super) fn of_user_information(text: &str) -> Option<Self> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let mut pair: Vec<u8> = percent_decode_str(user).collect();
        pair.push(b':');
        pair.extend(percent_decode_str(password));
        if pair.iter().any(u8::is_ascii_control) {
            return None;
        }
        let encoded = BASE64_STANDARD.encode(pair);
        let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }

    /// The header's value, for the wire.
    pub(super) const fn expose_secret(&self) -> &HeaderValue {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_are_decoded_and_a_password_may_be_missing() {
        for (text, pair) in [
            ("user:password", "user:password"),
            ("user:p%40ss%3Aword%25", "user:p@ss:word%"),
            ("user:with:colons", "user:with:colons"),
            ("user", "user:"),
            ("%C3%A4:%", "\u{e4}:%"),
        ] {
            let credentials = Credentials::of_user_information(text).expect("credentials");
            let expected = format!("Basic {}", BASE64_STANDARD.encode(pair));
            assert_eq!(credentials.expose_secret(), &expected, "{text}");
            assert_eq!(format!("{credentials:?}"), "Credentials");
        }
        for text in ["user:a%0Ab", "%00:b"] {
            assert!(Credentials::of_user_information(text).is_none(), "{text}");
        }
    }
}
