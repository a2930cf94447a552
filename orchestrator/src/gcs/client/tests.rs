//! The client with a store that answers from a script.

use super::*;
use crate::http_server::HttpServer;
use emulator::key::ServiceAccountKey;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// An answer: its status and its `<Code>`.
type Scripted = (u16, &'static str);

const EXPIRED: Scripted = (403, "ExpiredToken");
const SKEWED: Scripted = (403, "RequestTimeTooSkewed");
const DENIED: Scripted = (403, "AccessDenied");
const MISSING: Scripted = (404, "NoSuchKey");
const WHOLE: Scripted = (200, "");
const PARTIAL: Scripted = (206, "");

/// A client, and the methods of the requests that its store has received.
struct Scene {
    client: BucketClient,
    methods: Arc<Mutex<Vec<Method>>>,
    _server: HttpServer,
}

impl Scene {
    /// A store that gives these answers, and the last one again and again.
    async fn new(script: &'static [Scripted]) -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await;
        let methods = Arc::<Mutex<Vec<Method>>>::default();
        let seen = Arc::clone(&methods);
        let server = HttpServer::start(listener.expect("a port"), move |request| {
            let number = {
                let mut seen = seen.lock().expect("not poisoned");
                seen.push(request.method().clone());
                seen.len()
            };
            let (status, code) = script[number.min(script.len()) - 1];
            async move {
                let body = match code {
                    "" => String::new(),
                    code => format!("<Error><Code>{code}</Code></Error>"),
                };
                let response = Response::builder().status(status);
                response
                    .body(Full::<Bytes>::from(body))
                    .expect("a response")
            }
        });
        let server = server.expect("a server");
        let origin = Origin::new(false, &server.address().to_string());
        let key = ServiceAccountKey::generate().expect("a key");
        let signer = UrlSigner::new(&key, origin.to_string(), "pwned".to_owned());
        let limits = ClientLimits {
            first_wait_max: Duration::from_millis(1),
            ..ClientLimits::default()
        };
        let path = "gs://pwned/a".parse().expect("a path");
        let signer = signer.expect("a signer");
        let client = BucketClient::with_signer(path, origin, signer, None, limits);
        Self {
            client: client.expect("a client"),
            methods,
            _server: server,
        }
    }

    fn requests(&self) -> usize {
        self.methods.lock().expect("not poisoned").len()
    }
}

#[tokio::test]
async fn a_request_is_signed_again_when_its_signature_has_expired() {
    for refused in [&[EXPIRED, WHOLE], &[SKEWED, WHOLE]] {
        let scene = Scene::new(refused).await;
        let answer = scene.client.get("AB.json", None).await.expect("an answer");
        assert!(answer.is_some());
        assert_eq!(scene.requests(), 2);
        let scene = Scene::new(refused).await;
        let opened = scene.client.stream("AB.tar", 0).await.expect("an answer");
        assert!(opened.is_some());
        assert_eq!(scene.requests(), 2);
    }
}

#[tokio::test]
async fn a_clock_that_stays_wrong_is_named_and_a_later_run_may_succeed() {
    let scene = Scene::new(&[SKEWED]).await;
    let error = scene
        .client
        .get("AB.json", None)
        .await
        .expect_err("refused");
    assert!(error.is_transient());
    assert_eq!(
        error.to_string(),
        "GET of a/AB.json was answered 403 RequestTimeTooSkewed; is the clock of the signing machine correct?"
    );
    assert_eq!(scene.requests(), ATTEMPTS_MAX as usize);
}

#[tokio::test]
async fn a_url_that_has_expired_is_not_sent_again_but_its_error_is_transient() {
    let scene = Scene::new(&[EXPIRED, WHOLE]).await;
    let headers = BTreeMap::new();
    let url = scene.client.sign_put("AB.json", &headers, EXPIRY).await;
    let url = url.expect("a URL");
    let put = scene
        .client
        .put_signed(&url, "AB.json", &headers, Bytes::new());
    let answer = put.await.expect("an answer");
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(scene.requests(), 1);
    assert!(answer.into_error().is_transient());
}

#[tokio::test]
async fn a_head_that_is_denied_means_absence_only_if_the_account_may_not_read() {
    let head = async |script| {
        let scene = Scene::new(script).await;
        let found = scene.client.find(Method::HEAD, "AB.tar", None).await;
        found.map(|answer| answer.is_some())
    };
    assert!(head(&[WHOLE]).await.expect("an answer"));
    assert!(!head(&[MISSING]).await.expect("an answer"));
    assert!(!head(&[DENIED, DENIED]).await.expect("an answer"));
    for unclear in [&[SKEWED, SKEWED], &[SKEWED, PARTIAL], &[SKEWED, MISSING]] {
        let error = head(unclear).await.expect_err("nothing is known");
        assert!(error.is_transient(), "{error}");
    }
}
