//! Certificates of a source over TLS: which ones `--ca-file` makes trusted, and what a refusal says.

use crate::harness::certificates::{CA_FILE, write, write_self_signed};
use crate::harness::faulty_source::{body_of, good_answer};
use crate::harness::program::{orchestrator, output, texts};
use crate::harness::tls_server::TlsServer;
use crate::harness::{expected_tar, tars_of};
use rcgen::{IsCa, date_time_ymd};
use std::path::Path;
use std::process::Output;

const LINES: u64 = 5;

/// Mirrors a prefix into `archive` from a source that has the certificate in `folder`.
async fn run(folder: &Path, ca_file: Option<&Path>, archive: &Path) -> Output {
    let server = TlsServer::start(folder, async |request| good_answer(&request, LINES)).await;
    let source = format!("https://localhost:{}", server.address().port());
    let mut command = orchestrator();
    command
        .args(["run", "--prefixes", "00", "--source", &source, "--to"])
        .arg(archive);
    if let Some(ca_file) = ca_file {
        command.arg("--ca-file").arg(ca_file);
    }
    output(command).await
}

async fn runs(folder: &Path) {
    let archive = tempfile::tempdir().expect("a folder");
    let output = run(folder, Some(&folder.join(CA_FILE)), archive.path()).await;
    assert!(output.status.success(), "{}", texts(&output));
    let expected = expected_tar("00", |range| body_of(range, LINES));
    assert!(tars_of(archive.path())["00.tar"] == expected);
}

/// Expects a run to be refused with this reason, and to name `--ca-file` only if that would help.
async fn is_refused(folder: &Path, ca_file: Option<&Path>, reason: &str, is_hinted: bool) {
    let archive = tempfile::tempdir().expect("a folder");
    let output = run(folder, ca_file, archive.path()).await;
    let texts = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{texts}");
    let message = format!("failed: its TLS certificate is not trusted ({reason})");
    // The messages on a terminal may be wrapped.
    let unwrapped = texts.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(unwrapped.contains(&message), "{texts}");
    assert_eq!(unwrapped.contains("--ca-file"), is_hinted, "{texts}");
    assert!(tars_of(archive.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_is_trusted_if_it_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    write_self_signed(folder.path(), &["localhost"], |_| ());
    runs(folder.path()).await;
    is_refused(folder.path(), None, "it is a CA's own", true).await;

    write_self_signed(folder.path(), &["localhost"], |parameters| {
        parameters.is_ca = IsCa::NoCa;
    });
    runs(folder.path()).await;
    is_refused(folder.path(), None, "its issuer is unknown", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_certificate_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca_file = folder.path().join(CA_FILE);

    write_self_signed(folder.path(), &["localhost"], |parameters| {
        parameters.not_after = date_time_ymd(2020, 1, 1);
    });
    let reason = "it expired at 2020-01-01T00:00:00Z";
    is_refused(folder.path(), Some(&ca_file), reason, false).await;

    write_self_signed(folder.path(), &["localhost"], |parameters| {
        parameters.not_before = date_time_ymd(2090, 1, 1);
    });
    let reason = "it is not valid before 2090-01-01T00:00:00Z";
    is_refused(folder.path(), Some(&ca_file), reason, false).await;

    write_self_signed(folder.path(), &["other.example"], |_| ());
    let reason = "it is valid for other.example, not for localhost";
    is_refused(folder.path(), Some(&ca_file), reason, false).await;

    // A certificate that another CA than the named one has issued.
    let other = tempfile::tempdir().expect("a folder");
    write(other.path(), &["localhost"]);
    let reason = "its issuer is unknown";
    is_refused(other.path(), Some(&ca_file), reason, true).await;
}
