//! The connections of the bucket's client.

use super::{NO_PINGS, PINGS_ONLY, RECOVERED_WITHIN, SHORT};
use crate::harness::certificates::{CA_FILE, write};
use crate::harness::relay::Relay;
use crate::harness::source::listener;
use crate::harness::tls_server::TlsServer;
use emulator::Emulator;
use emulator::key::ServiceAccountKey;
use emulator::signature::Verifier;
use http::Method;
use http_body_util::BodyExt as _;
use orchestrator::destination::folder::serve;
use orchestrator::gcs::client::{BucketClient, ClientLimits};
use orchestrator::http_server::HttpServer;
use orchestrator::origin::Origin;
use orchestrator::sign::UrlSigner;
use std::sync::Arc;
use std::time::Instant;

/// An object that does not fit into the buffers of a connection.
const LARGE: &str = "00.tar";

/// Its length.
const LARGE_BYTES: usize = 64 * 1024 * 1024;

/// A bucket with two objects, behind a relay.
struct Bucket {
    relay: Relay,
    key: ServiceAccountKey,
    folder: tempfile::TempDir,
    is_https: bool,
    _server: Server,
}

enum Server {
    Plain { _server: HttpServer },
    Tls { _server: TlsServer },
}

impl Bucket {
    async fn start(is_https: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), &["127.0.0.1"]);
        std::fs::write(folder.path().join("manifest.json"), "{}").expect("written");
        let large = vec![b'A'; LARGE_BYTES];
        std::fs::write(folder.path().join(LARGE), large).expect("written");
        let key = ServiceAccountKey::generate().expect("a key");
        let buckets = emulator::Buckets::One {
            name: "pwned".to_owned(),
            folder: folder.path().to_owned(),
        };
        let verifier = Verifier::trusting(&key).expect("a verifier");
        let emulator = Emulator::new(buckets, verifier);
        let (address, server) = if is_https {
            let server = TlsServer::start(folder.path(), move |request| {
                let emulator = Arc::clone(&emulator);
                async move { emulator.respond(request).await }
            })
            .await;
            (server.address(), Server::Tls { _server: server })
        } else {
            let server = serve(listener().await, emulator).expect("a server");
            (server.address(), Server::Plain { _server: server })
        };
        Self {
            relay: Relay::start(address).await,
            key,
            folder,
            is_https,
            _server: server,
        }
    }

    fn client(&self, limits: ClientLimits) -> BucketClient {
        let origin = Origin::new(self.is_https, &self.relay.address().to_string());
        let signer = UrlSigner::new(&self.key, origin.to_string(), "pwned".to_owned());
        let ca_file = self.folder.path().join(CA_FILE);
        BucketClient::with_signer(
            "gs://pwned".parse().expect("a path"),
            origin,
            signer.expect("a signer"),
            Some(&ca_file),
            limits,
        )
        .expect("a client")
    }
}

async fn find(client: &BucketClient) {
    let found = client.find(Method::GET, "manifest.json", None).await;
    let found = found.expect("an answer").expect("an object");
    assert_eq!(&found.body[..], b"{}");
}

/// Freezes the client's connections, and expects its next request to be answered in a short time
/// over a new one.
async fn find_after_a_freeze(bucket: &Bucket, client: &BucketClient) {
    bucket.relay.freeze();
    let (frozen, before) = (Instant::now(), bucket.relay.accepted());
    find(client).await;
    let elapsed = frozen.elapsed();
    assert!(elapsed < RECOVERED_WITHIN, "{elapsed:?}");
    assert!(bucket.relay.accepted() > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_buckets_client_replaces_connections_of_http1_that_died_while_idle() {
    /// More connections than a request has attempts.
    const CONNECTIONS: usize = 8;
    let bucket = Bucket::start(false).await;
    let client = bucket.client(ClientLimits {
        attempt_time_max: SHORT,
        liveness: NO_PINGS,
        ..ClientLimits::default()
    });
    // A body that is not read to its end keeps its connection.
    let mut bodies = Vec::new();
    for _ in 0..CONNECTIONS {
        let body = client.stream(LARGE, 0).await.expect("an answer");
        bodies.push(body.expect("an object"));
    }
    for body in bodies {
        body.body.collect().await.expect("a body");
    }
    assert_eq!(bucket.relay.accepted(), CONNECTIONS);
    find_after_a_freeze(&bucket, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_buckets_client_replaces_a_dead_connection_of_http2_after_a_timeout() {
    let bucket = Bucket::start(true).await;
    let client = bucket.client(ClientLimits {
        attempt_time_max: SHORT,
        liveness: NO_PINGS,
        ..ClientLimits::default()
    });
    find(&client).await;
    find_after_a_freeze(&bucket, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_tell_the_buckets_client_of_a_dead_connection_long_before_the_attempt_ends() {
    let bucket = Bucket::start(true).await;
    let client = bucket.client(ClientLimits {
        liveness: PINGS_ONLY,
        ..ClientLimits::default()
    });
    find(&client).await;
    find_after_a_freeze(&bucket, &client).await;
}
