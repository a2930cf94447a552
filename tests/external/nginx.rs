//! A source that is nginx, an independent server.

mod server;

use crate::Test;
use crate::harness::program::{orchestrator, output, texts};
use crate::harness::source::Source;
use crate::harness::{files_of, generated, run_config, run_whole, tars_of};
use orchestrator::generate::HASHES_PER_RANGE;
use orchestrator::run::RunConfig;
use prefix_tar::protocol::source::{Encoding, SourceUrl};
use server::Nginx;
use std::process::Command;

pub(crate) fn tests() -> Vec<Test> {
    let is_installed = Command::new("nginx").arg("-v").output().is_ok();
    let missing =
        (!is_installed).then_some("nginx is not installed (Debian: apt-get install nginx-light)");
    vec![
        Test::new(
            "nginx_gives_the_same_tars_as_another_server_plain_with_gzip_and_over_http_2",
            missing,
            nginx_gives_the_same_tars_as_another_server_plain_with_gzip_and_over_http_2,
        ),
        Test::new(
            "a_certificate_of_nginx_that_is_not_trusted_is_refused_with_a_hint",
            missing,
            a_certificate_of_nginx_that_is_not_trusted_is_refused_with_a_hint,
        ),
    ]
}

async fn nginx_gives_the_same_tars_as_another_server_plain_with_gzip_and_over_http_2() {
    let ranges = generated("00-01", HASHES_PER_RANGE);
    let archive = tempfile::tempdir().expect("a folder");
    let source = Source::of_folder(ranges.path()).await;
    run_whole(run_config(&source.url(), archive.path(), "00-01")).await;
    let tars = tars_of(archive.path());

    let nginx = Nginx::start(ranges.path());
    let same = async |source: SourceUrl, change: &dyn Fn(&mut RunConfig), what: &str| {
        let other = tempfile::tempdir().expect("a folder");
        let mut config = run_config(&source, other.path(), "00-01");
        change(&mut config);
        run_whole(config).await;
        assert!(tars_of(other.path()) == tars, "{what} gives other tars");
    };
    same(nginx.plain(), &|_| (), "nginx").await;
    let gzip = |config: &mut RunConfig| config.encoding = Some(Encoding::Gzip);
    same(nginx.gzip(), &gzip, "nginx with gzip").await;
    let seen = nginx.protocols_seen();
    assert!(!seen.contains("HTTP/2.0"), "{seen:?}");
    for window in [1, 64, 128] {
        let tls = |config: &mut RunConfig| {
            config.ca_file = Some(nginx.ca_file());
            config.dispatch.window = Some(window);
        };
        same(
            nginx.tls(),
            &tls,
            "nginx over TLS with HTTP/2 and a private CA",
        )
        .await;
    }
    let seen = nginx.protocols_seen();
    assert!(seen.contains("HTTP/2.0"), "{seen:?}");
}

async fn a_certificate_of_nginx_that_is_not_trusted_is_refused_with_a_hint() {
    let ranges = generated("00", 5);
    let nginx = Nginx::start(ranges.path());
    let url = nginx.tls().to_string();
    let archive = tempfile::tempdir().expect("a folder");
    let mut command = orchestrator();
    command
        .args(["run", "--source", &url, "-p", "1", "--to"])
        .arg(archive.path());
    let output = output(command).await;
    let texts = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{texts}");
    for words in ["TLS certificate is not trusted", "--ca-file", &url] {
        assert!(texts.contains(words), "{words:?} is not in: {texts}");
    }
    let names: Vec<String> = files_of(archive.path()).into_keys().collect();
    assert_eq!(names, ["run.json"]);
}
