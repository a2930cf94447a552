//! The bearer token that callers present, and the digest that the component checks it against.

use sha2::{Digest as _, Sha256};
use std::fmt;
use subtle::ConstantTimeEq as _;

/// The shortest token, in bytes: 128 bits in base64.
pub const TOKEN_BYTES_MIN: usize = 22;

/// The longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 512;

/// A bearer token. It is a secret, so it has no `Display`, `Serialize` or `Clone`, and `Debug`
/// hides it.
pub struct Token(String);

/// The text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a token has {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} characters: letters, digits and -._~+/="
)]
pub struct TokenError;

impl Token {
    /// Parses a token.
    ///
    /// # Errors
    /// It is too short or too long, or has characters that a bearer token cannot have (RFC 6750,
    /// 2.1).
    pub fn new(text: String) -> Result<Self, TokenError> {
        let is_valid = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte));
        if is_valid {
            Ok(Self(text))
        } else {
            Err(TokenError)
        }
    }

    /// The token's digest.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest(Sha256::digest(&self.0).into())
    }

    /// The secret value of the `Authorization` header, only for the request.
    pub fn expose_bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// The secret text, only for whoever created the token.
    pub fn expose_secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(<redacted>)")
    }
}

/// The SHA-256 of a token. It is not a secret: a token has too many bits to be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest([u8; 32]);

/// The text is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token's digest is its SHA-256: 64 hex characters")]
pub struct TokenDigestError;

impl std::str::FromStr for TokenDigest {
    type Err = TokenDigestError;

    fn from_str(text: &str) -> Result<Self, TokenDigestError> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).map_err(|_| TokenDigestError)?;
        Ok(Self(digest))
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TokenDigest({self})")
    }
}

impl TokenDigest {
    /// Whether an `Authorization` header contains the token with this digest. The digests are
    /// compared in constant time, so that the duration reveals nothing about either.
    pub fn admits(&self, authorization: &[u8]) -> bool {
        let Some((scheme, token)) = authorization.split_at_checked("Bearer ".len()) else {
            return false;
        };
        let presented: [u8; 32] = Sha256::digest(token).into();
        let is_token = self.0.ct_eq(&presented);
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(is_token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "abcdefghijklmnopqrstuv";

    #[test]
    fn only_the_token_is_admitted() {
        let token = Token::new(TEXT.to_owned()).expect("a token");
        let digest: TokenDigest = token.digest().to_string().parse().expect("a digest");
        assert!(digest.admits(token.expose_bearer().as_bytes()));
        assert!(digest.admits(format!("bearer {TEXT}").as_bytes()));
        for refused in [
            "",
            "Bearer",
            "Bearer ",
            TEXT,
            "Bearer abcdefghijklmnopqrstuV",
            "Bearer abcdefghijklmnopqrstuv ",
            "Bearer  abcdefghijklmnopqrstuv",
            "Basic abcdefghijklmnopqrstuv",
            &format!("Bearer {digest}"),
        ] {
            assert!(!digest.admits(refused.as_bytes()), "{refused:?}");
        }
    }

    #[test]
    fn a_digest_matches_sha256sum() {
        // printf abcdefghijklmnopqrstuv | sha256sum
        let token = Token::new(TEXT.to_owned()).expect("a token");
        let printed = "f69f9b70d1c9a5442258ca76f8b0a7a45fcb4e31c36141b6357ec591328b0624";
        assert_eq!(token.digest().to_string(), printed);
    }

    #[test]
    fn invalid_tokens_and_digests_are_rejected_and_debug_hides_the_token() {
        for text in [
            "",
            &TEXT[1..],
            &"a".repeat(TOKEN_BYTES_MAX + 1),
            "abcdefghijklmnop qrstuv",
            "abcdefghijklmnopqrstuv\r\nx: y",
        ] {
            assert_eq!(Token::new(text.to_owned()).map(|_| ()), Err(TokenError));
        }
        let token = Token::new("a".repeat(TOKEN_BYTES_MAX)).expect("at the bound");
        assert_eq!(format!("{token:?}"), "Token(<redacted>)");
        for text in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64)] {
            assert!(text.parse::<TokenDigest>().is_err(), "{text}");
        }
    }
}
