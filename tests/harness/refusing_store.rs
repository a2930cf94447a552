//! A store in this process that refuses the requests that a test chooses.

use super::program::orchestrator;
use super::source::listener;
use super::store_program::BUCKET;
use bytes::Bytes;
use emulator::error::StoreError;
use emulator::key::ServiceAccountKey;
use emulator::signature::Verifier;
use emulator::{Buckets, Emulator};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use orchestrator::http_server::HttpServer;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// The path of the archive in the bucket.
const PATH: &str = "a";

/// A store with one archive.
pub(crate) struct RefusingStore {
    server: HttpServer,
    folder: tempfile::TempDir,
}

impl RefusingStore {
    /// Starts a store. `refusal` gets every request, and what verifies its signature, and returns
    /// the error to refuse it with.
    pub(crate) async fn start(
        refusal: impl Fn(&Parts, &Verifier) -> Option<StoreError> + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = ServiceAccountKey::generate().expect("a key");
        key.write(&folder.path().join("key.json")).expect("written");
        let root = folder.path().join("buckets");
        std::fs::create_dir_all(root.join(BUCKET)).expect("a bucket");
        let verifier = || Verifier::trusting(&key).expect("a verifier");
        let emulator = Emulator::new(Buckets::In(root), verifier());
        let (refusal, verifier) = (Arc::new(refusal), Arc::new(verifier()));
        let server = HttpServer::start(listener().await, move |request: Request<Incoming>| {
            let (emulator, refusal) = (Arc::clone(&emulator), Arc::clone(&refusal));
            let verifier = Arc::clone(&verifier);
            async move {
                let (parts, body) = request.into_parts();
                match refusal(&parts, &verifier) {
                    Some(error) => refused(&parts.method, &error),
                    None => emulator.answer(&parts, &mut Some(body)).await,
                }
            }
        });
        Self {
            server: server.expect("a server"),
            folder,
        }
    }

    /// The folder that holds the archive.
    pub(crate) fn archive(&self) -> PathBuf {
        self.folder.path().join("buckets").join(BUCKET).join(PATH)
    }

    /// A command whose last argument is the archive.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = orchestrator();
        command
            .args(arguments)
            .arg(format!("gs://{BUCKET}/{PATH}"))
            .env("STORAGE_EMULATOR_HOST", self.server.address().to_string())
            .env(
                "GOOGLE_APPLICATION_CREDENTIALS",
                self.folder.path().join("key.json"),
            );
        command
    }
}

/// The answer with an error. As from GCS, one to HEAD has no body.
fn refused(method: &Method, error: &StoreError) -> Response<UnsyncBoxBody<Bytes, io::Error>> {
    error.to_document().map(|document| {
        let document = if method == Method::HEAD {
            Bytes::new()
        } else {
            document
        };
        Full::new(document).map_err(io::Error::other).boxed_unsync()
    })
}
