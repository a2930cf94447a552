//! Tests signing by Google, against a stand-in on loopback.

use super::*;
use crate::http_server::HttpServer;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use std::sync::Mutex;

/// The paths of the requests, each with its token.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// Answers every request that signing makes; `sign_blob` chooses the answer to the nth signBlob.
struct FakeGoogle {
    server: HttpServer,
    seen: Seen,
    folder: tempfile::TempDir,
}

enum SignBlob {
    Sign,
    Status(u16),
    Never,
    Large,
}

impl FakeGoogle {
    async fn start(sign_blob: impl Fn(usize) -> SignBlob + Send + Sync + 'static) -> Self {
        let seen = Seen::default();
        let (recorded, sign_blob) = (Arc::clone(&seen), Arc::new(sign_blob));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let server = HttpServer::start(listener.expect("a socket"), move |request| {
            let (seen, sign_blob) = (Arc::clone(&recorded), Arc::clone(&sign_blob));
            async move { answer(request, &seen, &*sign_blob).await }
        });
        Self {
            server: server.expect("a server"),
            seen,
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    fn google(&self) -> Google {
        Google {
            http: crate::http_client::new(None).expect("a client"),
            endpoints: Endpoints {
                iam_credentials: Some(self.url()),
                token: Some(format!("{}/token", self.url())),
                metadata: self.server.address().to_string(),
            },
        }
    }

    fn machine(&self) -> UrlSigner {
        UrlSigner::with_machine_account(self.google(), ENDPOINT.to_owned(), "archive".to_owned())
    }

    fn with_file(&self, credentials: &Value) -> anyhow::Result<UrlSigner> {
        let path = self.folder.path().join("credentials.json");
        std::fs::write(&path, credentials.to_string())?;
        UrlSigner::with_file(
            &path,
            self.google(),
            ENDPOINT.to_owned(),
            "archive".to_owned(),
        )
    }

    /// The tokens of the requests whose path has this ending.
    fn tokens(&self, ending: &str) -> Vec<String> {
        let seen = self.seen.lock().expect("not poisoned");
        let matching = seen.iter().filter(|(path, _)| path.ends_with(ending));
        matching.map(|(_, token)| token.clone()).collect()
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: &Seen,
    sign_blob: &(dyn Fn(usize) -> SignBlob + Send + Sync),
) -> Response<Full<Bytes>> {
    let token = request.headers().get("authorization");
    let token = token
        .map_or("", |token| token.to_str().expect("text"))
        .to_owned();
    let path = request.uri().path().to_owned();
    let body = request
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    let number = {
        let mut seen = seen.lock().expect("not poisoned");
        seen.push((path.clone(), token));
        seen.iter()
            .filter(|(path, _)| path.ends_with(":signBlob"))
            .count()
    };
    let (status, text) = match path.rsplit(['/', ':']).next() {
        Some("email") => (200, KEY.client_email().to_owned()),
        Some("token") => (200, token_answer("machine or user")),
        Some("sts") => (200, token_answer(&subject_of(&body))),
        Some("generateAccessToken") => {
            let token =
                json!({ "accessToken": "impersonated", "expireTime": "2099-01-01T00:00:00Z" });
            (200, token.to_string())
        }
        Some("signBlob") => match sign_blob(number) {
            SignBlob::Sign => (200, signed_blob(&body)),
            SignBlob::Status(status) => (status, "{}".to_owned()),
            SignBlob::Never => std::future::pending().await,
            SignBlob::Large => (200, " ".repeat(exchange::ANSWER_BYTES_MAX + 1)),
        },
        _ => (404, String::new()),
    };
    Response::builder()
        .status(status)
        .header("metadata-flavor", "Google")
        .body(Full::new(Bytes::from(text)))
        .expect("an answer")
}

fn token_answer(token: &str) -> String {
    json!({ "access_token": token.replace(' ', "-"), "expires_in": 3600 }).to_string()
}

/// The token that a workload presents in a token exchange.
fn subject_of(body: &[u8]) -> String {
    let form = std::str::from_utf8(body).expect("text");
    let subject = form
        .split('&')
        .find_map(|pair| pair.strip_prefix("subject_token="));
    format!("for {}", subject.expect("a subject"))
}

fn signed_blob(body: &[u8]) -> String {
    let request: Value = serde_json::from_slice(body).expect("JSON");
    let payload = BASE64_STANDARD.decode(request["payload"].as_str().expect("text"));
    let key = serde_json::to_value(&*KEY).expect("JSON");
    let pem = key["private_key"].as_str().expect("a key").as_bytes();
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem).expect("PKCS#8");
    let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).expect("an RSA key");
    let mut signature = vec![0; pair.public().modulus_len()];
    let random = ring::rand::SystemRandom::new();
    pair.sign(
        &RSA_PKCS1_SHA256,
        &random,
        &payload.expect("base64"),
        &mut signature,
    )
    .expect("signed");
    json!({ "keyId": "1", "signedBlob": BASE64_STANDARD.encode(signature) }).to_string()
}

async fn sign(signer: &UrlSigner) -> Result<SignedUrl, SignError> {
    let minute = Duration::from_secs(60);
    signer
        .sign(Method::PUT, "AB.tar", &BTreeMap::new(), minute)
        .await
}

async fn assert_signs(signer: &UrlSigner) {
    let url = sign(signer).await.expect("signed");
    assert_eq!(verdict(&Method::PUT, &url, &BTreeMap::new()), Ok(()));
}

#[tokio::test]
async fn the_account_of_the_machine_signs_with_one_token() {
    let google = FakeGoogle::start(|_| SignBlob::Sign).await;
    let signer = google.machine();
    assert_signs(&signer).await;
    assert_signs(&signer).await;
    assert_eq!(google.tokens(":signBlob"), ["Bearer machine-or-user"; 2]);
    assert_eq!(google.tokens("/default/token").len(), 1);
    assert_eq!(google.tokens("/default/email").len(), 1);
}

#[tokio::test]
async fn an_impersonated_account_signs_for_a_user() {
    let google = FakeGoogle::start(|_| SignBlob::Sign).await;
    let email = KEY.client_email();
    let credentials = json!({
        "type": "impersonated_service_account",
        "service_account_impersonation_url": format!(
            "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{email}:generateAccessToken"
        ),
        "delegates": [],
        "source_credentials": {
            "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"
        }
    });
    assert_signs(&google.with_file(&credentials).expect("a signer")).await;
    assert_eq!(
        google.tokens(":generateAccessToken"),
        ["Bearer machine-or-user"]
    );
    assert_eq!(google.tokens(":signBlob"), ["Bearer impersonated"]);
}

#[tokio::test]
async fn an_identity_of_another_cloud_signs_by_an_impersonated_account() {
    let google = FakeGoogle::start(|_| SignBlob::Sign).await;
    let subject = google.folder.path().join("subject");
    std::fs::write(&subject, "workload-5ec4e7\n").expect("written");
    let (url, email) = (google.url(), KEY.client_email());
    let credentials = json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{url}/sts"),
        "service_account_impersonation_url":
            format!("{url}/v1/projects/-/serviceAccounts/{email}:generateAccessToken"),
        // Without a format, which is then text.
        "credential_source": { "file": subject }
    });
    assert_signs(&google.with_file(&credentials).expect("a signer")).await;
    assert_eq!(
        google.tokens(":generateAccessToken"),
        ["Bearer for-workload-5ec4e7"]
    );
    assert_eq!(google.tokens(":signBlob"), ["Bearer impersonated"]);
}

#[tokio::test]
async fn a_key_file_signs_without_google() {
    let google = FakeGoogle::start(|_| SignBlob::Never).await;
    let key = serde_json::to_value(&*KEY).expect("JSON");
    assert_signs(&google.with_file(&key).expect("a signer")).await;
    assert_eq!(google.tokens("").len(), 0);
}

#[tokio::test]
async fn a_transient_failure_of_sign_blob_is_retried() {
    let google = FakeGoogle::start(|number| match number {
        1 => SignBlob::Status(503),
        2 => SignBlob::Status(429),
        _ => SignBlob::Sign,
    });
    let google = google.await;
    assert_signs(&google.machine()).await;
    assert_eq!(google.tokens(":signBlob").len(), 3);
}

#[tokio::test]
async fn each_failure_of_sign_blob_is_transient_or_permanent() {
    for (status, is_transient, expected) in [
        (503, true, "Google answered 503; try later"),
        (408, true, "Google answered 408; try later"),
        (429, true, "Google answered 429; try later"),
        (403, false, "roles/iam.serviceAccountTokenCreator"),
        (401, false, "iamcredentials.googleapis.com"),
        (404, false, "Google answered 404; check that the account"),
        (302, false, "Google answered 302"),
    ] {
        let google = FakeGoogle::start(move |_| SignBlob::Status(status)).await;
        let mut signer = google.machine();
        // Too short for a second attempt.
        signer.time_max = Duration::from_millis(200);
        let error = sign(&signer).await.expect_err("not signed");
        assert_eq!(error.is_transient(), is_transient, "{error}");
        let shown = error.to_string();
        assert!(
            shown.starts_with("cannot sign a URL for AB.tar: "),
            "{shown}"
        );
        assert!(shown.contains(expected), "{shown}");
        if !is_transient {
            assert_eq!(google.tokens(":signBlob").len(), 1, "{shown}");
        }
    }
}

#[tokio::test]
async fn a_signature_that_never_comes_ends_at_the_bound() {
    let google = FakeGoogle::start(|_| SignBlob::Never).await;
    let mut signer = google.machine();
    assert_eq!(signer.time_max, Duration::from_secs(45));
    signer.time_max = Duration::from_secs(1);
    let error = sign(&signer).await.expect_err("not signed");
    assert!(error.is_transient());
    assert!(
        error
            .to_string()
            .ends_with("Google, which signs for the account, did not answer in 1 s")
    );
}

#[tokio::test]
async fn an_answer_without_end_is_not_read() {
    let google = FakeGoogle::start(|_| SignBlob::Large).await;
    let error = sign(&google.machine()).await.expect_err("not signed");
    assert!(
        error.to_string().contains("more than 65536 bytes"),
        "{error}"
    );
    assert!(!error.is_transient());
}

#[tokio::test]
async fn no_connection_to_google_is_transient_and_no_metadata_server_is_not() {
    let google = FakeGoogle::start(|_| SignBlob::Sign).await;
    let mut unreachable = google.google();
    unreachable.endpoints.iam_credentials = Some("http://127.0.0.1:1".to_owned());
    let mut signer =
        UrlSigner::with_machine_account(unreachable, ENDPOINT.to_owned(), "archive".to_owned());
    signer.time_max = Duration::from_millis(200);
    let error = sign(&signer).await.expect_err("not signed");
    assert!(
        error
            .to_string()
            .contains("the connection to Google failed"),
        "{error}"
    );
    assert!(error.is_transient());

    let mut nowhere = google.google();
    nowhere.endpoints.metadata = "127.0.0.1:1".to_owned();
    let signer =
        UrlSigner::with_machine_account(nowhere, ENDPOINT.to_owned(), "archive".to_owned());
    let error = sign(&signer).await.expect_err("not signed");
    assert!(matches!(error, SignError::NoCredentials { .. }), "{error}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn no_token_is_sent_unencrypted_to_another_machine() {
    let google = FakeGoogle::start(|_| SignBlob::Sign).await;
    let mut plain = google.google();
    plain.endpoints.iam_credentials = Some("http://iamcredentials.example".to_owned());
    let signer = UrlSigner::with_machine_account(plain, ENDPOINT.to_owned(), "archive".to_owned());
    let error = sign(&signer).await.expect_err("not signed");
    assert!(
        error
            .to_string()
            .contains("the URL of Google is not a valid https URL"),
        "{error}"
    );
    assert!(!error.is_transient());
}

#[tokio::test]
async fn credentials_that_cannot_sign_say_what_to_do() {
    let google = FakeGoogle::start(|_| SignBlob::Sign).await;
    let secret = "5ec4e7";
    for (credentials, expected) in [
        (
            json!({ "type": "authorized_user", "refresh_token": secret }),
            "--impersonate-service-account=ACCOUNT",
        ),
        (
            json!({ "type": "external_account", "credential_source": { "file": secret } }),
            "--service-account=ACCOUNT",
        ),
        (
            json!({
                "type": "external_account",
                "service_account_impersonation_url": "https://iamcredentials.googleapis.com/",
                "credential_source": { "executable": { "command": secret } }
            }),
            "executable, which is not supported",
        ),
        (
            json!({
                "type": "impersonated_service_account",
                "source_credentials": { "type": "service_account", "private_key": secret }
            }),
            "supported is authorized_user",
        ),
        (
            json!({ "type": "service_account", "private_key": secret }),
            "not usable",
        ),
        (json!({ "type": "gdch", "key": secret }), "supported are"),
        (json!([secret]), "supported are"),
    ] {
        let error = google.with_file(&credentials).expect_err("not usable");
        let shown = format!("{error:#} {error:?}");
        assert!(shown.contains(expected), "{shown}");
        assert!(!shown.contains(secret), "{shown}");
    }
}
