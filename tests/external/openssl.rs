//! A certificate that `openssl req` made: it is trusted if it is named, with and without the CA flag.

use crate::Test;
use crate::harness::certificates::{CA_FILE, CERTIFICATE_FILE, KEY_FILE};
use crate::harness::faulty_source::{body_of, good_answer};
use crate::harness::program::succeeds;
use crate::harness::tls_server::TlsServer;
use crate::harness::{expected_tar, run_config, run_whole, tars_of};
use std::path::Path;
use std::process::Command;

/// Lines of a range. Few, because only the certificate matters.
const LINES: u64 = 5;

pub(crate) fn tests() -> Vec<Test> {
    let is_installed = Command::new("openssl").arg("version").output().is_ok();
    let missing =
        (!is_installed).then_some("openssl is not installed (Debian: apt-get install openssl)");
    vec![Test::new(
        "what_openssl_req_makes_is_trusted_if_it_is_named",
        missing,
        what_openssl_req_makes_is_trusted_if_it_is_named,
    )]
}

async fn what_openssl_req_makes_is_trusted_if_it_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    for extensions in [
        &["subjectAltName=DNS:localhost"][..],
        &[
            "subjectAltName=DNS:localhost",
            "basicConstraints=critical,CA:FALSE",
        ],
    ] {
        make_certificate(folder.path(), extensions);
        let server =
            TlsServer::start(folder.path(), async |request| good_answer(&request, LINES)).await;
        let source = format!("https://localhost:{}", server.address().port());
        let archive = tempfile::tempdir().expect("a folder");
        let mut config = run_config(&source.parse().expect("a source"), archive.path(), "00");
        config.ca_file = Some(folder.path().join(CA_FILE));
        run_whole(config).await;
        let expected = expected_tar("00", |range| body_of(range, LINES));
        assert!(tars_of(archive.path())["00.tar"] == expected);
    }
}

/// Makes a self-signed certificate for localhost that is its own CA file.
fn make_certificate(folder: &Path, extensions: &[&str]) {
    let certificate = folder.join(CERTIFICATE_FILE);
    let key = folder.join(KEY_FILE);
    let mut arguments = vec![
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ];
    for extension in extensions {
        arguments.extend(["-addext", extension]);
    }
    let mut arguments: Vec<_> = arguments.into_iter().map(AsRef::as_ref).collect();
    arguments.extend(["-keyout".as_ref(), key.as_os_str()]);
    arguments.extend(["-out".as_ref(), certificate.as_os_str()]);
    succeeds("openssl", &arguments);
    std::fs::copy(&certificate, folder.join(CA_FILE)).expect("a copy");
}
