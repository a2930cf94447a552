//! What Google answers to who wants to sign without a key at hand: the metadata server, the token endpoint, and
//! iamcredentials' signBlob. Google's client reaches the latter two by name and over TLS, so they are behind a
//! proxy that has a certificate for these names; the program itself is as it ships.
//!
//! <https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/signBlob>

use super::certificates::{CA_FILE, CERTIFICATE_FILE, KEY_FILE, write};
use super::source::listener;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use google_cloud_auth::credentials::service_account;
use google_cloud_auth::signer::Signer;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use orchestrator::http_server::HttpServer;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// The token that the metadata server gives.
pub(crate) const METADATA_TOKEN: &str = "ya29.metadata-5ec4e7";

/// The token that the user of an impersonated account has.
pub(crate) const USER_TOKEN: &str = "ya29.user-5ec4e7";

/// The token of the impersonated account.
pub(crate) const IMPERSONATED_TOKEN: &str = "ya29.impersonated-5ec4e7";

/// A permission to ask for signatures that never come.
pub(crate) const IGNORED: &str = "ignored";

/// A proxy's request is short, in bytes.
const CONNECT_BYTES_MAX: usize = 4096;

/// Google, as far as signing goes.
pub(crate) struct Google {
    proxy: JoinHandle<()>,
    proxy_address: String,
    metadata: HttpServer,
    folder: tempfile::TempDir,
    answers: Arc<Answers>,
}

struct Answers {
    account: String,
    signer: Signer,
    /// Who signBlob is permitted to, by their tokens.
    permitted: Vec<&'static str>,
    seen: Mutex<Vec<String>>,
}

impl Google {
    /// Google with the account of a service-account key, which it signs with for who has one of these tokens.
    pub(crate) async fn start(key_file: &Path, permitted: &[&'static str]) -> Self {
        orchestrator::tls::install_crypto_provider();
        let key: Value =
            serde_json::from_slice(&std::fs::read(key_file).expect("a key")).expect("JSON");
        let account = key["client_email"].as_str().expect("an account").to_owned();
        let signer = service_account::Builder::new(key).build_signer();
        let answers = Arc::new(Answers {
            account,
            signer: signer.expect("a signer"),
            permitted: permitted.to_vec(),
            seen: Mutex::default(),
        });
        let folder = tempfile::tempdir().expect("a folder");
        let names = ["iamcredentials.googleapis.com", "oauth2.googleapis.com"];
        write(folder.path(), &names);
        let (listening, acceptor) = (listener().await, tls_of(folder.path()));
        let proxy_address = listening.local_addr().expect("an address").to_string();
        let proxied = Arc::clone(&answers);
        let proxy = tokio::spawn(async move {
            while let Ok((stream, _)) = listening.accept().await {
                tokio::spawn(serve_behind_connect(
                    stream,
                    acceptor.clone(),
                    Arc::clone(&proxied),
                ));
            }
        });
        let asked = Arc::clone(&answers);
        let metadata = HttpServer::start(listener().await, move |request| {
            let asked = Arc::clone(&asked);
            async move { asked.answer(request).await }
        });
        Self {
            proxy,
            proxy_address,
            metadata: metadata.expect("a server"),
            folder,
            answers,
        }
    }

    /// Has a program find this Google, and no other credentials than those that a test gives it.
    pub(crate) fn tell(&self, command: &mut Command) {
        command
            .env_remove("GOOGLE_APPLICATION_CREDENTIALS")
            .env("HOME", self.folder.path())
            .env("GCE_METADATA_HOST", self.metadata.address().to_string())
            .env("HTTPS_PROXY", format!("http://{}", self.proxy_address))
            .env("SSL_CERT_FILE", self.folder.path().join(CA_FILE));
    }

    /// The credentials that `gcloud auth application-default login --impersonate-service-account` writes.
    pub(crate) fn impersonated_credentials(&self) -> Value {
        let account = &self.answers.account;
        json!({
            "type": "impersonated_service_account",
            "service_account_impersonation_url": format!(
                "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{account}:generateAccessToken"
            ),
            "source_credentials": {
                "type": "authorized_user",
                "client_id": "client",
                "client_secret": "5ec4e7",
                "refresh_token": "5ec4e7"
            }
        })
    }

    /// How often something was asked for whose path ends so.
    pub(crate) fn asked_for(&self, ending: &str) -> usize {
        let seen = self.answers.seen.lock().expect("not poisoned");
        seen.iter().filter(|path| path.ends_with(ending)).count()
    }
}

impl Drop for Google {
    fn drop(&mut self) {
        self.proxy.abort();
    }
}

fn tls_of(folder: &Path) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(folder.join(CERTIFICATE_FILE));
    let key = PrivateKeyDer::from_pem_file(folder.join(KEY_FILE));
    let configuration = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.expect("a certificate")],
            key.expect("a key"),
        );
    TlsAcceptor::from(Arc::new(configuration.expect("a configuration")))
}

/// One connection to the proxy: CONNECT, then TLS in the name of who was asked for.
async fn serve_behind_connect(mut stream: TcpStream, acceptor: TlsAcceptor, answers: Arc<Answers>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(head.len() < CONNECT_BYTES_MAX, "a CONNECT is short");
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    assert!(head.starts_with(b"CONNECT "), "a proxy is asked to connect");
    let connected = stream.write_all(b"HTTP/1.1 200 connected\r\n\r\n").await;
    if connected.is_err() {
        return;
    }
    // A client that does not trust the certificate shows it by its own error.
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let service = service_fn(move |request| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(answers.answer(request).await) }
    });
    // It ends with the client.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Answers {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        self.seen.lock().expect("not poisoned").push(path.clone());
        let bearer = head
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .map(str::to_owned);
        if let Some(path) = path.strip_prefix("/computeMetadata/v1/") {
            if head
                .headers
                .get("metadata-flavor")
                .is_none_or(|flavor| flavor != "Google")
            {
                return answer(403, "text/plain", "Missing Metadata-Flavor:Google header.");
            }
            return self.metadata(path);
        }
        let body = body.collect().await.map(|body| body.to_bytes());
        let body = body.unwrap_or_default();
        match path.rsplit_once(':') {
            None if path == "/token" => json_answer(&json!({
                "access_token": USER_TOKEN, "expires_in": 3600, "token_type": "Bearer"
            })),
            Some((account, verb)) if account.ends_with(&self.account) => {
                self.account(verb, bearer.as_deref(), &body).await
            }
            _ => answer(404, "text/plain", "not found"),
        }
    }

    fn metadata(&self, path: &str) -> Response<Full<Bytes>> {
        match path {
            "instance/service-accounts/default/token" => json_answer(&json!({
                "access_token": METADATA_TOKEN, "expires_in": 3600, "token_type": "Bearer"
            })),
            "instance/service-accounts/default/email" => answer(200, "text/plain", &self.account),
            "universe/universe-domain" => answer(200, "text/plain", "googleapis.com"),
            _ => answer(404, "text/plain", "not found"),
        }
    }

    async fn account(
        &self,
        verb: &str,
        bearer: Option<&str>,
        body: &[u8],
    ) -> Response<Full<Bytes>> {
        let is_permitted = bearer.is_some_and(|token| self.permitted.contains(&token));
        match verb {
            "generateAccessToken" if bearer == Some(USER_TOKEN) => json_answer(&json!({
                "accessToken": IMPERSONATED_TOKEN, "expireTime": "2099-01-01T00:00:00Z"
            })),
            "signBlob" if self.permitted.contains(&IGNORED) => std::future::pending().await,
            "signBlob" if is_permitted => {
                let request: Value = serde_json::from_slice(body).expect("JSON");
                let payload = BASE64_STANDARD.decode(request["payload"].as_str().expect("text"));
                let signature = self.signer.sign(payload.expect("base64")).await;
                let signature = BASE64_STANDARD.encode(signature.expect("signed"));
                json_answer(&json!({ "keyId": "1", "signedBlob": signature }))
            }
            "signBlob" => answer(
                403,
                "application/json",
                r#"{"error":{"code":403,"message":"Permission 'iam.serviceAccounts.signBlob' denied on resource (or it may not exist).","status":"PERMISSION_DENIED"}}"#,
            ),
            _ => answer(404, "text/plain", "not found"),
        }
    }
}

fn json_answer(value: &Value) -> Response<Full<Bytes>> {
    answer(200, "application/json", &value.to_string())
}

fn answer(status: u16, content_type: &str, text: &str) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .header("metadata-flavor", "Google")
        .body(Full::new(Bytes::from(text.to_owned())))
        .expect("an answer")
}
