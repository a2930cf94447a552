//! Generates, reads and writes the bearer token that a component requires.

use anyhow::Context as _;
use base64::Engine as _;
use emulator::staging::create_private;
use prefix_tar::protocol::token::Token;
use rand::TryRng as _;
use std::io::{Read as _, Write as _};
use std::path::Path;

/// The environment variable with the token, if there is no token file. A file is safer: the user's
/// other processes can read the environment.
const TOKEN_VARIABLE: &str = "PREFIX_TAR_TOKEN";

/// The part of a token file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// The randomness of a token, in bytes.
const RANDOM_BYTES: usize = 32;

/// Generates a token from the system's randomness.
///
/// # Errors
/// The system provides no randomness.
pub fn generate() -> anyhow::Result<Token> {
    let mut random = [0; RANDOM_BYTES];
    rand::rngs::SysRng
        .try_fill_bytes(&mut random)
        .context("cannot generate a token: the system provides no randomness")?;
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random);
    Ok(Token::new(text)?)
}

/// Reads a token from a file and trims the white space around it.
///
/// # Errors
/// The file cannot be read or does not contain a valid token. The message does not quote the file.
pub fn read(path: &Path) -> anyhow::Result<Token> {
    let shown = path.display();
    let file = std::fs::File::open(path).with_context(|| {
        format!("cannot read the token file {shown}; `orchestrator token` makes one")
    })?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read the token file {shown}"))?;
    Token::new(text.trim().to_owned())
        .with_context(|| format!("the token file {shown} is not valid"))
}

/// Reads the token from the environment variable.
///
/// # Errors
/// The variable is not set or is not a valid token.
pub fn from_environment() -> anyhow::Result<Token> {
    let text = std::env::var(TOKEN_VARIABLE).ok().with_context(|| {
        format!("there is no token; name its file with --token-file, or set {TOKEN_VARIABLE}")
    })?;
    Token::new(text).with_context(|| format!("{TOKEN_VARIABLE} is not a valid token"))
}

/// Writes a token to a new file that only its owner can read. It appears when it is complete.
///
/// # Errors
/// The file exists or cannot be written.
pub fn write(token: &Token, path: &Path) -> anyhow::Result<()> {
    create_private(path, |file| writeln!(file, "{}", token.expose_secret()))
        .with_context(|| format!("cannot write the token file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tokens_are_never_the_same() {
        let digest = || generate().expect("a token").digest();
        assert_ne!(digest(), digest());
    }

    #[test]
    fn a_token_reads_back_from_a_file_that_only_its_owner_can_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let token = generate().expect("a token");
        write(&token, &path).expect("written");
        assert_eq!(read(&path).expect("read").digest(), token.digest());
        let mode = std::fs::metadata(&path)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(write(&token, &path).is_err(), "a token is not overwritten");
        std::fs::write(&path, "short-5ec4e7").expect("written");
        let error = format!("{:#}", read(&path).expect_err("no token"));
        assert!(!error.contains("5ec4e7"), "{error}");
    }
}
