//! Issues a server certificate from a new certificate authority (CA) that no system trusts.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::path::Path;

/// The file of the CA's certificate.
pub(crate) const CA_FILE: &str = "ca.pem";

/// The file of the server's certificate.
pub(crate) const CERTIFICATE_FILE: &str = "certificate.pem";

/// The file of the server's private key.
pub(crate) const KEY_FILE: &str = "key.pem";

/// Creates a CA and a certificate for `names`. Writes both certificates and the server's key into
/// `folder`.
pub(crate) fn write(folder: &Path, names: &[&str]) {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let name = &mut authority.distinguished_name;
    name.push(DnType::CommonName, "A CA of the tests");
    let authority_key = KeyPair::generate().expect("a CA key");
    let authority_certificate = authority
        .self_signed(&authority_key)
        .expect("a CA certificate");
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names)
        .expect("parameters")
        .signed_by(&key, &issuer)
        .expect("a certificate");
    for (name, text) in [
        (CA_FILE, authority_certificate.pem()),
        (CERTIFICATE_FILE, certificate.pem()),
        (KEY_FILE, key.serialize_pem()),
    ] {
        std::fs::write(folder.join(name), text).expect("a written file");
    }
}

/// Creates a self-signed certificate for `names`, as plain `openssl req -x509` does: it is a CA's
/// own. `change` makes it different. Writes it as the server's and as the CA file, and its key.
pub(crate) fn write_self_signed(
    folder: &Path,
    names: &[&str],
    change: impl FnOnce(&mut CertificateParams),
) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names).expect("parameters");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut parameters);
    let key = KeyPair::generate().expect("a key");
    let certificate = parameters.self_signed(&key).expect("a certificate").pem();
    for (name, text) in [
        (CA_FILE, &certificate),
        (CERTIFICATE_FILE, &certificate),
        (KEY_FILE, &key.serialize_pem()),
    ] {
        std::fs::write(folder.join(name), text).expect("a written file");
    }
}
