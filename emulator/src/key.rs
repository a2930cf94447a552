//! Generates, reads and writes the service-account keys that sign requests.

use crate::staging::create_private;
use num_bigint_dig::RandPrime as _;
use ring::signature::{KeyPair as _, RsaKeyPair};
use rsa::pkcs8::{EncodePrivateKey as _, LineEnding};
use rsa::rand_core::{OsRng, RngCore as _};
use rsa::{BigUint, RsaPrivateKey};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread;

/// The size of a generated key, in bits: the smallest that V4 signatures allow.
const KEY_BITS: usize = 2048;

/// The public exponent of a generated key, as usual.
const PUBLIC_EXPONENT: u32 = 65_537;

/// How often a pair of primes may be unsuitable. One in thirty thousand is.
const PAIRS_OF_PRIMES_MAX: u32 = 4;

/// The size of a key file, in bytes. Real ones have about 2 KB.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// A service-account key that cannot be used. The messages never quote key material.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No key could be generated.
    #[error("cannot generate a service-account key")]
    Generate(#[source] rsa::Error),
    /// The generated key could not be encoded.
    #[error("cannot encode the generated service-account key")]
    Encode(#[source] rsa::pkcs8::Error),
    /// The key file could not be read.
    #[error("cannot read the service-account key {}", path.display())]
    Read {
        /// The key file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The key file could not be written.
    #[error("cannot write the service-account key {}", path.display())]
    Write {
        /// The key file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The file is too large for a key file.
    #[error(
        "{} is not a service-account key: {bytes} bytes exceed the limit of {KEY_FILE_BYTES_MAX}",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file does not hold the JSON of a key.
    #[error(
        "{} is not a service-account key: invalid JSON or a missing field at line {line}",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line at which parsing stopped, from 1.
        line: usize,
    },
    /// The private key is in another format.
    #[error("the private key of the service-account key is not PKCS#8 in PEM")]
    NotPkcs8,
    /// The private key is of another kind, or too short.
    #[error(
        "the private key of the service-account key is not an RSA key of at least {KEY_BITS} bits"
    )]
    NotRsa,
}

/// A service-account key, in the format of Google's key files. It is a secret: `Debug` shows the
/// account only, and serializing it exposes the private key.
#[derive(Clone, Serialize, Deserialize)]
pub struct ServiceAccountKey {
    #[serde(rename = "type")]
    kind: String,
    project_id: String,
    private_key_id: String,
    private_key: String,
    client_email: String,
    #[serde(default)]
    token_uri: String,
}

impl fmt::Debug for ServiceAccountKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ServiceAccountKey({})", self.client_email)
    }
}

impl ServiceAccountKey {
    /// Generates a key for an emulator. On two cores, it takes less than a tenth of a second.
    ///
    /// # Errors
    /// The system provides no randomness, or the key cannot be encoded.
    pub fn generate() -> Result<Self, KeyError> {
        let key = generate_private_key().map_err(KeyError::Generate)?;
        let private_key = key
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(KeyError::Encode)?
            .to_string();
        let id = OsRng.next_u64();
        Ok(Self {
            kind: "service_account".to_owned(),
            project_id: "local".to_owned(),
            private_key_id: format!("{id:016x}"),
            private_key,
            client_email: "orchestrator@local.iam.gserviceaccount.com".to_owned(),
            token_uri: String::new(),
        })
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// The file cannot be read or is not a service-account key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |source| KeyError::Read {
            path: path.to_owned(),
            source,
        };
        let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
        if bytes > KEY_FILE_BYTES_MAX {
            return Err(KeyError::TooLarge {
                path: path.to_owned(),
                bytes,
            });
        }
        let text = std::fs::read(path).map_err(unreadable)?;
        // The parser's own message could quote the key.
        serde_json::from_slice(&text).map_err(|error| KeyError::Malformed {
            path: path.to_owned(),
            line: error.line(),
        })
    }

    /// Writes a new key file that only its owner can read. It appears when it is complete.
    ///
    /// # Errors
    /// The file exists already or cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        serde_json::to_vec_pretty(self)
            .map_err(io::Error::from)
            .and_then(|text| create_private(path, |file| file.write_all(&text)))
            .map_err(|source| KeyError::Write {
                path: path.to_owned(),
                source,
            })
    }

    /// The e-mail address of the account that the key belongs to.
    pub fn client_email(&self) -> &str {
        &self.client_email
    }

    /// The public key in the form that ring verifies with: the DER of an RSA public key (PKCS#1).
    ///
    /// # Errors
    /// The private key is not an RSA key of at least 2,048 bits in PKCS#8 and PEM.
    pub fn public_key(&self) -> Result<Vec<u8>, KeyError> {
        Ok(self.key_pair()?.public_key().as_ref().to_vec())
    }

    pub(crate) fn key_pair(&self) -> Result<RsaKeyPair, KeyError> {
        // The sources of both errors are dropped because they could quote the key.
        let der = PrivatePkcs8KeyDer::from_pem_slice(self.private_key.as_bytes())
            .map_err(|_| KeyError::NotPkcs8)?;
        RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| KeyError::NotRsa)
    }
}

/// Searches both primes at once, because the search is most of what a run does before its first
/// request.
fn generate_private_key() -> rsa::Result<RsaPrivateKey> {
    let prime = || OsRng.gen_prime(KEY_BITS / 2);
    let mut outcome = Err(rsa::Error::Internal);
    for _ in 0..PAIRS_OF_PRIMES_MAX {
        let (first, second) = thread::scope(|scope| {
            let second = scope.spawn(prime);
            (prime(), second.join())
        });
        let second = second.map_err(|_| rsa::Error::Internal)?;
        outcome = RsaPrivateKey::from_p_q(first, second, BigUint::from(PUBLIC_EXPONENT));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_signer::KEY;

    #[test]
    fn a_written_key_reads_back_and_is_not_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.json");
        KEY.write(&path).expect("written");
        let read = ServiceAccountKey::read(&path).expect("read");
        assert_eq!(read.client_email(), KEY.client_email());
        assert_eq!(
            read.public_key().expect("a public key"),
            KEY.public_key().expect("a public key")
        );
        assert!(matches!(KEY.write(&path), Err(KeyError::Write { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_a_written_key() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.json");
        KEY.write(&path).expect("written");
        let metadata = std::fs::metadata(&path).expect("metadata");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_error_for_an_unusable_key_does_not_quote_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.json");
        let secret = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj";
        let pem = format!("-----BEGIN PRIVATE KEY-----\\n{secret}\\n-----END PRIVATE KEY-----\\n");
        let fields =
            r#""type":"service_account","project_id":"p","private_key_id":"i","client_email":"e""#;
        for (text, expected) in [
            (
                format!(r#"{{{fields},"private_key":"{pem}""#),
                "invalid JSON",
            ),
            (format!(r#"{{"private_key":"{pem}"}}"#), "a missing field"),
            (
                format!(r#"{{{fields},"private_key":"{secret}"}}"#),
                "not PKCS#8",
            ),
            (
                format!(r#"{{{fields},"private_key":"{pem}"}}"#),
                "not an RSA key",
            ),
            (secret.repeat(2000), "80000 bytes exceed"),
        ] {
            std::fs::write(&path, &text).expect("written");
            let error = ServiceAccountKey::read(&path)
                .and_then(|key| key.public_key())
                .expect_err("not usable");
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(expected), "{shown}");
            assert!(!shown.contains(&secret[..20]), "{shown}");
        }
    }

    #[test]
    fn debug_shows_the_account_only() {
        let shown = format!("{:?}", *KEY);
        assert_eq!(shown, format!("ServiceAccountKey({})", KEY.client_email()));
    }
}
