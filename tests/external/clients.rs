//! Clients that people use, from npm and PyPI, ask a rehosted archive. `make clients` installs them.

use crate::Test;
use crate::harness::certificates::{self, CA_FILE, CERTIFICATE_FILE, KEY_FILE};
use crate::harness::mirror_program::MirrorProgram;
use crate::harness::program::{output, texts};
use crate::harness::source::Source;
use crate::harness::{generated, repository, run_config, run_whole};
use orchestrator::generate::HASHES_PER_RANGE;
use sha1::{Digest as _, Sha1};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A password that is in the archive, and how often.
const KNOWN: (&str, u64) = ("correct horse", 4711);

/// A password that is not, although its range is.
const UNKNOWN: &str = "staple battery";

/// The clients, and the program that runs each of them.
const CLIENTS: [(&str, &str); 5] = [
    ("hibp", "ask.mjs"),
    ("hibp-padded", "ask.mjs"),
    ("zxcvbn", "ask.mjs"),
    ("django", "ask.py"),
    ("django-padded", "ask.py"),
];

pub(crate) fn tests() -> Vec<Test> {
    let is_installed = installed().join("node_modules").is_dir() && python().is_file();
    let missing = (!is_installed).then_some("the clients are not installed (make clients)");
    vec![Test::new(
        "clients_find_a_known_password_over_http_and_https_and_no_other",
        missing,
        clients_find_a_known_password_over_http_and_https_and_no_other,
    )]
}

/// Where `make clients` installs them.
fn installed() -> PathBuf {
    repository().join("target/clients")
}

fn python() -> PathBuf {
    installed().join("python/bin/python")
}

async fn clients_find_a_known_password_over_http_and_https_and_no_other() {
    let archive = archive_with_passwords().await;
    let certificate = tempfile::tempdir().expect("a folder");
    certificates::write(certificate.path(), &["127.0.0.1"]);
    let tls = [CERTIFICATE_FILE, KEY_FILE].map(|name| certificate.path().join(name));
    let tls = tls.each_ref().map(|file| file.to_str().expect("a path"));
    let tls = ["--tls-cert", tls[0], "--tls-key", tls[1]];
    for options in [&[][..], &tls] {
        let served = MirrorProgram::of_folder(archive.path(), options);
        let url = served.url();
        for (client, program) in CLIENTS {
            for (password, count) in [KNOWN, (UNKNOWN, 0)] {
                let mut command = match program {
                    "ask.py" => Command::new(python()),
                    _ => Command::new("node"),
                };
                // Node finds its modules beside the program.
                command
                    .arg(installed().join(program))
                    .args([client, url, password])
                    .env("NODE_EXTRA_CA_CERTS", certificate.path().join(CA_FILE));
                let output = output(command).await;
                let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                let texts = texts(&output);
                assert_eq!(found, count.to_string(), "{client} at {url}: {texts}");
            }
        }
    }
}

/// An archive of the prefixes of both passwords. Only the known one is in its range.
async fn archive_with_passwords() -> tempfile::TempDir {
    let hashes = [KNOWN.0, UNKNOWN].map(|password| hex::encode_upper(Sha1::digest(password)));
    let prefixes = hashes.each_ref().map(|hash| &hash[..2]).join(",");
    let ranges = generated(&prefixes, HASHES_PER_RANGE);
    let [known, _] = &hashes;
    insert(ranges.path(), known, KNOWN.1);
    let archive = tempfile::tempdir().expect("a folder");
    let source = Source::of_folder(ranges.path()).await;
    run_whole(run_config(&source.url(), archive.path(), &prefixes)).await;
    archive
}

/// Adds a hash to the file of its range.
fn insert(ranges: &Path, hash: &str, count: u64) {
    let (range, suffix) = hash.split_at(5);
    let path = ranges.join(format!("{range}.txt"));
    let text = std::fs::read_to_string(&path).expect("a range");
    let line = format!("{suffix}:{count}");
    let mut lines: Vec<&str> = text.split("\r\n").filter(|line| !line.is_empty()).collect();
    lines.push(&line);
    lines.sort_unstable();
    std::fs::write(path, lines.join("\r\n")).expect("written");
}
