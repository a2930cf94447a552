//! Bearer tokens for the component's door: made here, or read from where the user keeps one.
//! What a token is, and how it is compared, is the component's crate's.

use anyhow::Context as _;
use base64::Engine as _;
use prefix_tar::token::Token;
use rand::TryRng as _;
use std::io::{Read as _, Write as _};
use std::path::Path;

/// The environment variable with a token, for who has no file for it. `ps` shows an environment to its owner.
const TOKEN_VARIABLE: &str = "PREFIX_TAR_TOKEN";

/// What is read of a token file, in bytes.
const FILE_BYTES_MAX: u64 = 4096;

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

/// Reads a token from its file. White space around it is left out.
///
/// # Errors
/// The file cannot be read, or has no token in it. The message does not repeat what it has.
pub fn read(path: &Path) -> anyhow::Result<Token> {
    let shown = path.display();
    let file = std::fs::File::open(path).with_context(|| {
        format!("cannot read the token file {shown}; `orchestrator token` makes one")
    })?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read the token file {shown}"))?;
    Token::new(text.trim().to_owned()).with_context(|| format!("{shown} has no token in it"))
}

/// Takes the token from the environment.
///
/// # Errors
/// There is none, or it is no token.
pub fn from_environment() -> anyhow::Result<Token> {
    let text = std::env::var(TOKEN_VARIABLE).ok().with_context(|| {
        format!("there is no token: name its file by --token-file, or set {TOKEN_VARIABLE}")
    })?;
    Token::new(text).with_context(|| format!("{TOKEN_VARIABLE} is no token"))
}

/// Writes a token to a file of its own, readable by its owner only.
///
/// # Errors
/// The file is there already, or cannot be written.
pub fn write(token: &Token, path: &Path) -> anyhow::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .and_then(|mut file| writeln!(file, "{}", token.expose_to_its_owner()))
        .with_context(|| format!("cannot write the token file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tokens_are_never_the_same() {
        let made = || generate().expect("a token").digest();
        assert_ne!(made(), made());
    }

    #[test]
    fn a_token_reads_back_from_its_file_which_is_its_owner_s_alone() {
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
