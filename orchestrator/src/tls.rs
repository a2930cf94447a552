//! Sets up TLS for all clients: the crypto provider, the trusted certificates and the connector.

mod distrust;
mod verifier;

#[cfg(test)]
pub(crate) use distrust::{IS_OF_CA, UNKNOWN_ISSUER, WRONG_SIGNATURE};
pub(crate) use distrust::{causes, distrust, private_issuer_hint};

use crate::liveness::Liveness;
use crate::proxy::{Proxies, ProxyConnector};
use anyhow::Context as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use prefix_tar::limits::CONNECT_TIMEOUT;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use verifier::ServerVerifier;

/// Makes ring the process's crypto provider. Google's client looks for it there.
pub fn install_crypto_provider() {
    // An error means that an earlier call has installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Connects to servers, with TLS inside of a proxy's tunnel.
pub(crate) type Connector = HttpsConnector<ProxyConnector>;

/// Creates a connector for http and https, with HTTP/2 if the server supports it.
///
/// # Errors
/// The CA file cannot be read, or holds no certificate or an invalid one.
pub(crate) fn connector(
    ca_file: Option<&Path>,
    liveness: &Liveness,
    proxies: Proxies,
) -> anyhow::Result<Connector> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    liveness.apply_to_sockets(&mut http);
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(client_config(ca_file)?)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(ProxyConnector::new(http, proxies)))
}

/// Creates a TLS configuration that trusts the platform's certificates and, if given, those of a CA
/// file: what they have issued, and themselves.
///
/// # Errors
/// The CA file cannot be read, or holds no certificate or an invalid one.
fn client_config(ca_file: Option<&Path>) -> anyhow::Result<ClientConfig> {
    install_crypto_provider();
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    for error in native.errors {
        tracing::debug!(%error, "cannot read a certificate of the platform");
    }
    let mut named = Vec::new();
    if let Some(path) = ca_file {
        let shown = path.display();
        named = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("cannot read the CA file {shown}"))?;
        anyhow::ensure!(
            !named.is_empty(),
            "the CA file {shown} has no PEM certificate"
        );
        for certificate in &named {
            roots
                .add(certificate.clone())
                .with_context(|| format!("the CA file {shown} has an invalid certificate"))?;
        }
    }
    let provider = rustls::crypto::ring::default_provider();
    let algorithms = provider.signature_verification_algorithms;
    let verifier = ServerVerifier::new(roots, named, algorithms);
    Ok(ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}
