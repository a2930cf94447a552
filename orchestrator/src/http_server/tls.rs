//! [`TlsIdentity`]: the certificate and the key that a server shows, which can be replaced while it serves.

use crate::tls::install_crypto_provider;
use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use tokio_rustls::TlsAcceptor;

/// The protocols that a client can choose, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A certificate chain and its private key, from two PEM files.
#[derive(Debug)]
pub struct TlsIdentity {
    certificate_file: PathBuf,
    key_file: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

impl TlsIdentity {
    /// Reads both files.
    ///
    /// # Errors
    /// One of them cannot be read or is not valid, or the key belongs to another certificate.
    pub fn read(certificate_file: PathBuf, key_file: PathBuf) -> anyhow::Result<Self> {
        let current = configuration(&certificate_file, &key_file)?;
        Ok(Self {
            certificate_file,
            key_file,
            current: RwLock::new(Arc::new(current)),
        })
    }

    /// Reads both files again, for connections from now on. After an error, the earlier pair stays.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn reread(&self) -> anyhow::Result<()> {
        let new = Arc::new(configuration(&self.certificate_file, &self.key_file)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }
}

fn configuration(certificate_file: &Path, key_file: &Path) -> anyhow::Result<ServerConfig> {
    install_crypto_provider();
    let shown = certificate_file.display();
    let certificates = CertificateDer::pem_file_iter(certificate_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read the certificate file {shown}"))?;
    anyhow::ensure!(
        !certificates.is_empty(),
        "the certificate file {shown} has no PEM certificate"
    );
    let key = private_key(key_file)?;
    let mut configuration = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .with_context(|| format!("{shown} and {} are no pair", key_file.display()))?;
    configuration.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
    Ok(configuration)
}

/// Reads a private key. An error does not quote the file.
fn private_key(file: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let shown = file.display();
    let text = std::fs::read(file).with_context(|| format!("cannot read the key file {shown}"))?;
    PrivateKeyDer::from_pem_slice(&text)
        .ok()
        .with_context(|| format!("the key file {shown} has no valid private key in PEM"))
}
