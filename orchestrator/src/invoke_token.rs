//! Bearer tokens for the component's door: made here, or read from where the user keeps one.
//! What a token is, and how it is compared, is the component's crate's.

use anyhow::Context as _;
use base64::Engine as _;
use prefix_tar::token::Token;
use rand::TryRng as _;

/// The randomness of a token, in bytes.
const RANDOM_BYTES: usize = 32;

/// Makes a token from the system's randomness.
///
/// # Errors
/// The system has none.
pub fn generate() -> anyhow::Result<Token> {
    let mut random = [0; RANDOM_BYTES];
    rand::rngs::SysRng
        .try_fill_bytes(&mut random)
        .context("the system has no randomness for a token")?;
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random);
    Ok(Token::new(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tokens_are_never_the_same() {
        let made = || generate().expect("a token").digest();
        assert_ne!(made(), made());
    }
}
