//! Certificates as `openssl req -x509` makes them, and wrong ones.

use super::*;
use crate::tls::distrust::{IS_OF_CA, UNKNOWN_ISSUER, WRONG_SIGNATURE, distrust};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::ClientConfig;
use rustls::crypto::ring::{default_provider, sign::any_supported_type};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What is different about a self-signed certificate.
type Change = fn(&mut CertificateParams);

fn parameters(names: &[&str], change: Change) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names).expect("parameters");
    change(&mut parameters);
    parameters
}

fn self_signed(names: &[&str], change: Change) -> (CertificateDer<'static>, KeyPair) {
    let key = KeyPair::generate().expect("a key");
    let certificate = parameters(names, change).self_signed(&key);
    (certificate.expect("a certificate").into(), key)
}

/// What `openssl req -x509` adds unless its configuration says otherwise.
fn ca(parameters: &mut CertificateParams) {
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

fn plain(_: &mut CertificateParams) {}

fn verifier(named: &[&CertificateDer<'static>]) -> ServerVerifier {
    let named: Vec<_> = named.iter().map(|named| (*named).clone()).collect();
    let mut roots = RootCertStore::empty();
    for certificate in &named {
        roots.add(certificate.clone()).expect("a root");
    }
    let algorithms = default_provider().signature_verification_algorithms;
    ServerVerifier::new(roots, named, algorithms)
}

/// Verifies a certificate that a server presents, alone. Returns the reason if it is refused.
fn verify(
    verifier: &ServerVerifier,
    certificate: &CertificateDer<'_>,
    name: &str,
) -> Result<(), String> {
    let name = ServerName::try_from(name).expect("a name");
    let now = UnixTime::now();
    match verifier.verify_server_cert(certificate, &[], &name, &[], now) {
        Ok(_) => Ok(()),
        Err(error) => Err(distrust(&error).expect("a reason")),
    }
}

#[test]
fn a_self_signed_certificate_that_the_ca_file_has_is_trusted_for_its_own_names() {
    let changes: [(&str, Change); 3] = [
        ("a CA's", ca),
        ("without basic constraints", plain),
        ("not a CA's", |parameters| {
            parameters.is_ca = IsCa::ExplicitNoCa;
        }),
    ];
    for (what, change) in changes {
        let (certificate, _) = self_signed(&["localhost", "127.0.0.1"], change);
        let verifier = verifier(&[&certificate]);
        assert_eq!(
            verify(&verifier, &certificate, "localhost"),
            Ok(()),
            "{what}"
        );
        assert_eq!(
            verify(&verifier, &certificate, "127.0.0.1"),
            Ok(()),
            "{what}"
        );
        assert_eq!(
            verify(&verifier, &certificate, "other.example").expect_err(what),
            "it is valid for localhost and 127.0.0.1, not for other.example"
        );
    }
}

#[test]
fn a_certificate_of_an_unknown_issuer_is_trusted_only_if_the_ca_file_has_it() {
    let named_ca: Change = |parameters| {
        ca(parameters);
        let name = &mut parameters.distinguished_name;
        name.push(DnType::CommonName, "A CA");
    };
    let issuer_key = KeyPair::generate().expect("a key");
    let issuer = Issuer::new(parameters(&[], named_ca), issuer_key);
    let key = KeyPair::generate().expect("a key");
    let issued = parameters(&["localhost"], plain).signed_by(&key, &issuer);
    let issued: CertificateDer<'_> = issued.expect("a certificate").into();
    assert_eq!(verify(&verifier(&[&issued]), &issued, "localhost"), Ok(()));
    let (other, _) = self_signed(&["localhost"], ca);
    // Another CA of the same name.
    let (namesake, _) = self_signed(&[], named_ca);
    for (named, reason) in [
        (&[][..], UNKNOWN_ISSUER),
        (&[&other], UNKNOWN_ISSUER),
        (&[&namesake], WRONG_SIGNATURE),
    ] {
        let refused = verify(&verifier(named), &issued, "localhost");
        assert_eq!(refused.expect_err(reason), reason);
    }
}

#[test]
fn a_self_signed_certificate_that_the_ca_file_does_not_have_is_refused() {
    let (named, _) = self_signed(&["localhost"], ca);
    // The same subject and names, but another key.
    let (certificate, _) = self_signed(&["localhost"], ca);
    assert_eq!(
        verify(&verifier(&[&named]), &certificate, "localhost").expect_err("a CA's"),
        IS_OF_CA
    );
    let (certificate, _) = self_signed(&["localhost"], plain);
    let refused = verify(&verifier(&[]), &certificate, "localhost");
    assert_eq!(refused.expect_err("a stranger"), UNKNOWN_ISSUER);
}

#[test]
fn a_certificate_that_the_ca_file_has_is_refused_out_of_its_time_and_for_another_purpose() {
    let cases: [(Change, &str); 5] = [
        (
            |parameters| {
                ca(parameters);
                parameters.not_after = date_time_ymd(2020, 1, 1);
            },
            "it expired at 2020-01-01T00:00:00Z",
        ),
        (
            |parameters| parameters.not_after = date_time_ymd(2020, 1, 1),
            "it expired at 2020-01-01T00:00:00Z",
        ),
        (
            |parameters| {
                ca(parameters);
                parameters.not_before = date_time_ymd(2090, 1, 1);
            },
            "it is not valid before 2090-01-01T00:00:00Z",
        ),
        (
            |parameters| parameters.not_before = date_time_ymd(2090, 1, 1),
            "it is not valid before 2090-01-01T00:00:00Z",
        ),
        (
            |parameters| {
                let client = ExtendedKeyUsagePurpose::ClientAuth;
                parameters.extended_key_usages = vec![client];
            },
            "it is not for servers",
        ),
    ];
    for (change, reason) in cases {
        let (certificate, _) = self_signed(&["localhost"], change);
        let refused = verify(&verifier(&[&certificate]), &certificate, "localhost");
        assert_eq!(refused.expect_err(reason), reason);
    }
}

#[test]
fn the_validity_of_a_named_certificate_is_checked_by_itself() {
    // UTCTime up to 2049, GeneralizedTime from 2050 on.
    for year in [2049, 2050, 9999] {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = parameters(&["localhost"], ca);
        parameters.not_before = date_time_ymd(2020, 2, 29);
        parameters.not_after = date_time_ymd(year, 12, 31);
        let certificate = parameters.self_signed(&key).expect("a certificate");
        let certificate = CertificateDer::from(certificate);
        let at = |seconds: i64| {
            let seconds = u64::try_from(seconds).expect("after 1970");
            UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
        };
        let (from, to) = (
            date_time_ymd(2020, 2, 29).unix_timestamp(),
            date_time_ymd(year, 12, 31).unix_timestamp(),
        );
        for (seconds, is_valid) in [(from - 1, false), (from, true), (to, true), (to + 1, false)] {
            let checked = check_validity(&certificate, at(seconds));
            assert_eq!(
                checked.is_ok(),
                is_valid,
                "{year} at {seconds}: {checked:?}"
            );
        }
        for cut in [0, 1, 4, 10, 40, 120] {
            let cut = CertificateDer::from(certificate[..cut].to_vec());
            let error = check_validity(&cut, at(from)).expect_err("a cut certificate");
            assert_eq!(error, CertificateError::BadEncoding.into());
        }
    }
}

#[test]
fn a_reason_shows_a_few_host_names_and_nothing_else_of_the_certificate() {
    let (certificate, _) = self_signed(&["a.example", "*.b.example", "c", "d", "e", "::1"], plain);
    let refused = verify(&verifier(&[&certificate]), &certificate, "localhost");
    assert_eq!(
        refused.expect_err("another name"),
        "it is valid for a.example and *.b.example and c and d and 2 more, not for localhost"
    );
    let (certificate, _) = self_signed(&["evil\u{1b}[2Jname"], plain);
    let refused = verify(&verifier(&[&certificate]), &certificate, "localhost");
    assert_eq!(
        refused.expect_err("no name"),
        "it is valid for no host name, as it has no subjectAltName for one, not for localhost"
    );
}

/// Presents one certificate with the key of another.
#[derive(Debug)]
struct Impostor(Arc<CertifiedKey>);

impl ResolvesServerCert for Impostor {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Shakes hands with a server that has the certificate's key, or another one.
async fn handshake(has_key: bool, versions: &[&'static rustls::SupportedProtocolVersion]) -> bool {
    let (certificate, key) = self_signed(&["localhost"], ca);
    let (_, other) = self_signed(&["localhost"], ca);
    let key = if has_key { key } else { other };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(default_provider());
    let certified = CertifiedKey::new(
        vec![certificate.clone()],
        any_supported_type(&key).expect("a key"),
    );
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Impostor(Arc::new(certified))));
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier(&[&certificate])))
        .with_no_client_auth();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("localhost").expect("a name");
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let connector = TlsConnector::from(Arc::new(client));
    let (connected, _) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    connected.is_ok()
}

#[tokio::test]
async fn a_server_must_have_the_key_of_the_certificate_that_it_presents() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        assert!(handshake(true, &[version]).await, "{version:?}");
        assert!(!handshake(false, &[version]).await, "{version:?}");
    }
}
