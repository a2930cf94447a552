//! A stand-in for the services of Google and of another cloud that sign without a local key.
//!
//! The metadata server is plain HTTP, as it is in the cloud. The others are behind TLS, with a
//! certificate that only `SSL_CERT_FILE` makes trusted. The program under test finds them through
//! the variables that gcloud and Google's client libraries document.
//!
//! <https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/signBlob>

use super::certificates::{CA_FILE, write};
use super::source::listener;
use super::tls_server;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use orchestrator::http_server::HttpServer;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// The token that the metadata server gives.
pub(crate) const METADATA_TOKEN: &str = "ya29.metadata-5ec4e7";

/// The token of the user that impersonates an account.
pub(crate) const USER_TOKEN: &str = "ya29.user-5ec4e7";

/// The token by which another cloud identifies a workload.
pub(crate) const SUBJECT_TOKEN: &str = "workload-5ec4e7";

/// What the security token service gives for it.
pub(crate) const FEDERATED_TOKEN: &str = "ya29.federated-5ec4e7";

/// The token of the impersonated account.
pub(crate) const IMPERSONATED_TOKEN: &str = "ya29.impersonated-5ec4e7";

/// Instead of a permitted token: signBlob never answers.
pub(crate) const NEVER_ANSWERED: &str = "never answered";

/// A name that its certificate has besides its address.
const NAME: &str = "google.example";

/// Google, as far as signing goes.
pub(crate) struct Google {
    services: JoinHandle<()>,
    address: String,
    metadata: HttpServer,
    folder: tempfile::TempDir,
    answers: Arc<Answers>,
}

struct Answers {
    account: String,
    key: RsaKeyPair,
    /// The tokens that signBlob accepts.
    permitted: Vec<&'static str>,
    seen: Mutex<Vec<String>>,
}

impl Google {
    /// Starts a Google that has the account of a service-account key, and signs for it if the
    /// caller has one of the tokens `permitted`.
    pub(crate) async fn start(key_file: &Path, permitted: &[&'static str]) -> Self {
        orchestrator::tls::install_crypto_provider();
        let key: Value =
            serde_json::from_slice(&std::fs::read(key_file).expect("a key")).expect("JSON");
        let pem = key["private_key"].as_str().expect("a private key");
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).expect("PKCS#8");
        let answers = Arc::new(Answers {
            account: key["client_email"].as_str().expect("an account").to_owned(),
            key: RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).expect("an RSA key"),
            permitted: permitted.to_vec(),
            seen: Mutex::default(),
        });
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), &["127.0.0.1", NAME]);
        let listening = listener().await;
        let address = listening.local_addr().expect("an address").to_string();
        let acceptor = tls_server::acceptor(folder.path(), &[]);
        let services = tokio::spawn(serve(listening, acceptor, Arc::clone(&answers)));
        let shared = Arc::clone(&answers);
        let metadata = HttpServer::start(listener().await, move |request| {
            let answers = Arc::clone(&shared);
            async move { answers.answer(request).await }
        });
        Self {
            services,
            address,
            metadata: metadata.expect("a server"),
            folder,
            answers,
        }
    }

    /// Makes a program find this Google, and no credentials but those that a test gives it.
    pub(crate) fn configure(&self, command: &mut Command) {
        let base = format!("https://{}", self.address);
        command
            .env_remove("GOOGLE_APPLICATION_CREDENTIALS")
            .env_remove("CLOUDSDK_CONFIG")
            .env("HOME", self.folder.path())
            .env("GCE_METADATA_HOST", self.metadata.address().to_string())
            .env("CLOUDSDK_AUTH_TOKEN_HOST", format!("{base}/token"))
            .env(
                "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS",
                format!("{base}/"),
            )
            .env("SSL_CERT_FILE", self.folder.path().join(CA_FILE));
    }

    /// Where IAM Credentials is, for a program that reaches it by a name, through a proxy.
    pub(crate) fn named_base(&self) -> String {
        let port = self.address.rsplit_once(':').expect("a port").1;
        format!("https://{NAME}:{port}/")
    }

    /// The file that `gcloud auth application-default login --impersonate-service-account` writes.
    pub(crate) fn impersonated_credentials(&self) -> Value {
        json!({
            "type": "impersonated_service_account",
            "service_account_impersonation_url": self.impersonation_url(),
            "source_credentials": {
                "type": "authorized_user",
                "client_id": "client",
                "client_secret": "5ec4e7",
                "refresh_token": "5ec4e7"
            }
        })
    }

    /// The file that `gcloud iam workload-identity-pools create-cred-config` writes for a workload
    /// whose cloud puts a token into a file.
    pub(crate) fn federated_credentials(&self) -> Value {
        let token_file = self.folder.path().join("subject-token");
        std::fs::write(&token_file, SUBJECT_TOKEN).expect("written");
        json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/cloud",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("https://{}/v1/token", self.address),
            "service_account_impersonation_url": self.impersonation_url(),
            "credential_source": { "file": token_file }
        })
    }

    fn impersonation_url(&self) -> String {
        let account = &self.answers.account;
        format!(
            "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{account}:generateAccessToken"
        )
    }

    /// How many requests had a path with this ending.
    pub(crate) fn requests(&self, ending: &str) -> usize {
        let seen = self.answers.seen.lock().expect("not poisoned");
        seen.iter().filter(|path| path.ends_with(ending)).count()
    }
}

impl Drop for Google {
    fn drop(&mut self) {
        self.services.abort();
    }
}

async fn serve(listening: TcpListener, acceptor: TlsAcceptor, answers: Arc<Answers>) {
    while let Ok((stream, _)) = listening.accept().await {
        tokio::spawn(serve_connection(
            stream,
            acceptor.clone(),
            Arc::clone(&answers),
        ));
    }
}

async fn serve_connection(stream: TcpStream, acceptor: TlsAcceptor, answers: Arc<Answers>) {
    // A client that does not trust the certificate reports it itself.
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
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if let Some(path) = path.strip_prefix("/computeMetadata/v1/") {
            let flavor = head.headers.get("metadata-flavor");
            return if flavor.is_some_and(|flavor| flavor == "Google") {
                self.metadata(path)
            } else {
                answer(403, "text/plain", "Missing Metadata-Flavor:Google header.")
            };
        }
        let body = body.collect().await.map(|body| body.to_bytes());
        let body = body.unwrap_or_default();
        match path.rsplit_once(':') {
            None if path == "/token" => token_answer(USER_TOKEN),
            None if path == "/v1/token" && has_subject(&body) => token_answer(FEDERATED_TOKEN),
            Some((account, verb)) if account.ends_with(&self.account) => {
                self.account(verb, bearer, &body).await
            }
            _ => answer(404, "text/plain", "not found"),
        }
    }

    fn metadata(&self, path: &str) -> Response<Full<Bytes>> {
        match path {
            "instance/service-accounts/default/token" => token_answer(METADATA_TOKEN),
            "instance/service-accounts/default/email" => answer(200, "text/plain", &self.account),
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
            "generateAccessToken" if matches!(bearer, Some(USER_TOKEN | FEDERATED_TOKEN)) => {
                json_answer(&json!({
                    "accessToken": IMPERSONATED_TOKEN, "expireTime": "2099-01-01T00:00:00Z"
                }))
            }
            "signBlob" if self.permitted.contains(&NEVER_ANSWERED) => std::future::pending().await,
            "signBlob" if is_permitted => self.signed(body),
            "signBlob" => answer(
                403,
                "application/json",
                r#"{"error":{"code":403,"message":"Permission 'iam.serviceAccounts.signBlob' denied on resource (or it may not exist).","status":"PERMISSION_DENIED"}}"#,
            ),
            _ => answer(404, "text/plain", "not found"),
        }
    }

    fn signed(&self, body: &[u8]) -> Response<Full<Bytes>> {
        let request: Value = serde_json::from_slice(body).expect("JSON");
        let payload = BASE64_STANDARD.decode(request["payload"].as_str().expect("text"));
        let payload = payload.expect("base64");
        let mut signature = vec![0; self.key.public().modulus_len()];
        let random = ring::rand::SystemRandom::new();
        self.key
            .sign(&RSA_PKCS1_SHA256, &random, &payload, &mut signature)
            .expect("signed");
        let signature = BASE64_STANDARD.encode(signature);
        json_answer(&json!({ "keyId": "1", "signedBlob": signature }))
    }
}

/// Whether the form of a token exchange has the workload's token.
fn has_subject(form: &[u8]) -> bool {
    let form = std::str::from_utf8(form).unwrap_or_default();
    let subject = form
        .split('&')
        .find_map(|pair| pair.strip_prefix("subject_token="));
    subject == Some(SUBJECT_TOKEN)
}

fn token_answer(token: &str) -> Response<Full<Bytes>> {
    json_answer(&json!({
        "access_token": token, "expires_in": 3600, "token_type": "Bearer"
    }))
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
