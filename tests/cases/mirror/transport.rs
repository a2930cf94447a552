//! HTTP/2 and TLS, and a certificate that is replaced.

use super::{Mirrored, get};
use crate::harness::certificates::{self, CA_FILE, CERTIFICATE_FILE, KEY_FILE};
use crate::harness::mirror_program::MirrorProgram;
use crate::harness::program::{orchestrator, output, texts};
use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::path::Path;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// Sends a request over a connection of the client.
async fn send<Connector: Connect + Clone + Send + Sync + 'static>(
    client: &Client<Connector, Full<Bytes>>,
    method: Method,
    url: &str,
) -> Result<Response<Bytes>, Error> {
    let request = Request::builder().method(method).uri(url);
    let response = client.request(request.body(Full::default()).expect("a request"));
    let (parts, body) = response.await?.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    Ok(Response::from_parts(parts, body))
}

/// What works in each protocol.
async fn works<Connector: Connect + Clone + Send + Sync + 'static>(
    client: &Client<Connector, Full<Bytes>>,
    version: Version,
    url: &str,
    mirrored: &Mirrored,
) {
    let path = format!("{url}/range/AB123");
    let response = send(client, Method::GET, &path).await.expect("a response");
    assert_eq!(
        (response.version(), response.status().as_u16()),
        (version, 200)
    );
    assert!(response.body() == &mirrored.body("AB123"));
    let head = send(client, Method::HEAD, &path).await.expect("a response");
    assert_eq!(
        head.headers()["content-length"],
        response.body().len().to_string().as_str()
    );
    let options = send(client, Method::OPTIONS, &path).await;
    assert_eq!(options.expect("a response").status(), 204);
    let refused = send(client, Method::POST, &path).await;
    assert_eq!(refused.expect("a response").status(), 405);
    // As many at once as a large window.
    let many = (0..128).map(|index| {
        let range = format!("AB{index:03X}");
        async move {
            let response = send(client, Method::GET, &format!("{url}/range/{range}")).await;
            assert!(response.expect("a response").body() == &mirrored.body(&range));
        }
    });
    futures::future::join_all(many).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_served_to_clients_that_know_it() {
    let mirrored = Mirrored::new().await;
    let mirror = MirrorProgram::of_folder(mirrored.archive.path(), &[]);
    let client = Client::builder(TokioExecutor::new()).build_http();
    works(&client, Version::HTTP_11, mirror.url(), &mirrored).await;
    let mut builder = Client::builder(TokioExecutor::new());
    let client = builder.http2_only(true).build_http();
    works(&client, Version::HTTP_2, mirror.url(), &mirrored).await;
    // HTTP/2 of range files: HEAD has a length and no body there, too.
    let mut command = orchestrator();
    command.arg("serve").arg("-d").arg(mirrored.ranges.path());
    let files = MirrorProgram::start(command, &[]);
    let path = format!("{}/range/AB123", files.url());
    let head = send(&client, Method::HEAD, &path)
        .await
        .expect("a response");
    assert_eq!(head.version(), Version::HTTP_2);
    assert!(head.headers().contains_key("content-length"));
}

/// A client that trusts the CA file in a folder only.
fn https_client(folder: &Path) -> Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>> {
    orchestrator::tls::install_crypto_provider();
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(folder.join(CA_FILE));
    roots
        .add(certificate.expect("a certificate"))
        .expect("added");
    let tls = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_http1()
        .enable_http2()
        .build();
    Client::builder(TokioExecutor::new()).build(connector)
}

/// Makes a certificate for `localhost`, and the CA that has issued it.
fn certified() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    certificates::write(folder.path(), &["localhost"]);
    // Only its owner may read a key.
    let key = folder.path().join(KEY_FILE);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(key, mode).expect("permissions");
    folder
}

fn serve_tls(mirrored: &Mirrored, identity: &Path) -> MirrorProgram {
    let mut command = orchestrator();
    command
        .arg("serve")
        .arg(mirrored.archive.path())
        .arg("--tls-cert")
        .arg(identity.join(CERTIFICATE_FILE))
        .arg("--tls-key")
        .arg(identity.join(KEY_FILE));
    MirrorProgram::start(command, &[])
}

fn localhost(mirror: &MirrorProgram) -> String {
    mirror.url().replace("127.0.0.1", "localhost")
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_negotiates_http2_and_a_new_certificate_is_used_after_sighup() {
    let (mirrored, first, second) = (Mirrored::new().await, certified(), certified());
    let mirror = serve_tls(&mirrored, first.path());
    let url = localhost(&mirror);
    assert!(url.starts_with("https://"), "{url}");
    works(
        &https_client(first.path()),
        Version::HTTP_2,
        &url,
        &mirrored,
    )
    .await;

    let health = format!("{url}/healthz");
    let is_trusted = async |folder: &Path| {
        let response = send(&https_client(folder), Method::GET, &health).await;
        response.is_ok()
    };
    assert!(!is_trusted(second.path()).await);

    // A key that does not fit: the earlier pair stays.
    let copy = |file: &str| {
        std::fs::copy(second.path().join(file), first.path().join(file)).expect("copied");
    };
    copy(KEY_FILE);
    mirror.signal("HUP");
    mirror
        .has_logged("the earlier certificate stays in use")
        .await;
    assert!(is_trusted(first.path()).await);

    copy(CERTIFICATE_FILE);
    mirror.signal("HUP");
    mirror.has_logged("the certificate was read again").await;
    assert!(is_trusted(second.path()).await);
    assert!(!is_trusted(first.path()).await);
    let log = mirror.stopped().await;
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_does_not_end_a_server_without_tls() {
    let mirrored = Mirrored::new().await;
    let mirror = MirrorProgram::of_folder(mirrored.archive.path(), &[]);
    mirror.signal("HUP");
    mirror.has_logged("no certificate to read again").await;
    let response = get(mirror.url(), "/range/AB000", &[]).await;
    assert!(response.body() == &mirrored.body("AB000"));
    assert_eq!(mirror.stopped().await.lines().last(), Some("stopping"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_tls_is_turned_away_and_disturbs_nobody() {
    let (mirrored, identity) = (Mirrored::new().await, certified());
    let mirror = serve_tls(&mirrored, identity.path());
    let mut plain = TcpStream::connect(mirror.authority())
        .await
        .expect("connected");
    let request = b"GET /range/AB000 HTTP/1.1\r\nhost: x\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut plain, request)
        .await
        .expect("sent");
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.expect("closed");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let silent = TcpStream::connect(mirror.authority())
        .await
        .expect("connected");
    let health = format!("{}/healthz", localhost(&mirror));
    let response = send(&https_client(identity.path()), Method::GET, &health).await;
    assert_eq!(response.expect("a response").status(), 200);
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_does_not_fit_is_refused_at_the_start() {
    let (mirrored, first, second) = (Mirrored::new().await, certified(), certified());
    let refused = async |certificate: &Path, key: &Path| {
        let mut command = orchestrator();
        command
            .arg("serve")
            .arg(mirrored.archive.path())
            .arg("--tls-cert")
            .arg(certificate)
            .arg("--tls-key")
            .arg(key);
        let refused = output(command).await;
        assert_eq!(refused.status.code(), Some(1), "{}", texts(&refused));
        texts(&refused)
    };
    let certificate = first.path().join(CERTIFICATE_FILE);
    let message = refused(&certificate, &second.path().join(KEY_FILE)).await;
    assert!(message.contains("are no pair"), "{message}");
    let message = refused(&certificate, &certificate).await;
    assert!(message.contains("has no valid private key"), "{message}");
    let message = refused(&first.path().join(KEY_FILE), &first.path().join(KEY_FILE)).await;
    assert!(message.contains("has no PEM certificate"), "{message}");
}
