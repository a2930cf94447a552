//! A certificate authority that nobody else trusts, and a certificate of it.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::path::Path;

/// The authority's certificate.
pub(crate) const CA_FILE: &str = "ca.pem";

/// The server's certificate.
pub(crate) const CERTIFICATE_FILE: &str = "certificate.pem";

/// The server's key.
pub(crate) const KEY_FILE: &str = "key.pem";

/// Writes an authority, and a certificate and its key for `names`, into a folder.
pub(crate) fn write(folder: &Path, names: &[&str]) {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().expect("a key");
    let authority_certificate = authority.self_signed(&authority_key).expect("a CA");
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
        std::fs::write(folder.join(name), text).expect("written");
    }
}
