//! The local store in this process, whose answers to GET break according to a plan.

use super::program::{orchestrator, output};
use super::source::listener;
use bytes::Bytes;
use emulator::key::ServiceAccountKey;
use emulator::signature::Verifier;
use emulator::{Buckets, Emulator, StoreBody};
use http::header::RANGE;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming};
use orchestrator::http_server::HttpServer;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

/// What happens to a GET.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GetFault {
    /// The connection is cut after about this many bytes of the body.
    CutAt(u64),
    /// This status, without a body.
    Status(u16),
}

type Plan = dyn Fn(&str, usize) -> Option<GetFault> + Send + Sync;

/// The byte ranges that were requested of each file, in order.
type Gets = BTreeMap<String, Vec<Option<String>>>;

/// A store with the bucket `pwned`, whose answers to GET break.
pub(crate) struct BrokenStore {
    server: HttpServer,
    gets: Arc<Mutex<Gets>>,
    folder: tempfile::TempDir,
}

impl BrokenStore {
    /// Starts a store. `plan` gets the last part of an object's name and the number of the GET for
    /// it, from 1.
    pub(crate) async fn start(
        plan: impl Fn(&str, usize) -> Option<GetFault> + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let buckets = folder.path().join("buckets");
        std::fs::create_dir_all(buckets.join("pwned")).expect("a bucket");
        let key = ServiceAccountKey::generate().expect("a key");
        key.write(&folder.path().join("key.json")).expect("written");
        let verifier = Verifier::trusting(&key).expect("a verifier");
        let store = Emulator::new(Buckets::In(buckets), verifier);
        let gets = Arc::<Mutex<Gets>>::default();
        let (seen, plan): (_, Arc<Plan>) = (Arc::clone(&gets), Arc::new(plan));
        let server = HttpServer::start(listener().await, move |request: Request<Incoming>| {
            let (store, seen, plan) = (Arc::clone(&store), Arc::clone(&seen), Arc::clone(&plan));
            async move {
                let fault = fault(&request, &seen, &*plan);
                answer(&store, fault, request).await
            }
        });
        Self {
            server: server.expect("a server"),
            gets,
            folder,
        }
    }

    /// The folder with the objects under `gs://pwned/a`.
    pub(crate) fn archive(&self) -> PathBuf {
        self.folder.path().join("buckets/pwned/a")
    }

    /// Runs `orchestrator verify gs://pwned/a`.
    pub(crate) async fn verify(&self, arguments: &[&str]) -> Output {
        let mut command = orchestrator();
        command
            .args(["verify", "gs://pwned/a"])
            .args(arguments)
            .env("STORAGE_EMULATOR_HOST", self.server.address().to_string())
            .env(
                "GOOGLE_APPLICATION_CREDENTIALS",
                self.folder.path().join("key.json"),
            );
        output(command).await
    }

    /// The byte ranges that were requested of a file, in order.
    pub(crate) fn gets(&self, file: &str) -> Vec<Option<String>> {
        let gets = self.gets.lock().expect("not poisoned");
        gets.get(file).cloned().unwrap_or_default()
    }
}

fn fault(request: &Request<Incoming>, seen: &Mutex<Gets>, plan: &Plan) -> Option<GetFault> {
    if request.method() != Method::GET {
        return None;
    }
    let file = request.uri().path().rsplit('/').next().expect("a name");
    let range = request.headers().get(RANGE);
    let range = range.map(|range| range.to_str().expect("text").to_owned());
    let mut seen = seen.lock().expect("not poisoned");
    let gets = seen.entry(file.to_owned()).or_default();
    gets.push(range);
    plan(file, gets.len())
}

async fn answer(
    store: &Emulator,
    fault: Option<GetFault>,
    request: Request<Incoming>,
) -> Response<StoreBody> {
    let left = match fault {
        Some(GetFault::Status(status)) => {
            let empty = Full::default().map_err(io::Error::other).boxed_unsync();
            let mut answer = Response::new(empty);
            *answer.status_mut() = http::StatusCode::from_u16(status).expect("a status");
            return answer;
        }
        Some(GetFault::CutAt(bytes)) => bytes,
        None => u64::MAX,
    };
    let (parts, body) = request.into_parts();
    let answer = store.answer(&parts, &mut Some(body)).await;
    answer.map(|body| CutBody { body, left }.boxed_unsync())
}

/// A body that fails before it exceeds `left` bytes.
struct CutBody {
    body: StoreBody,
    left: u64,
}

impl hyper::body::Body for CutBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let Some(Ok(frame)) = frame else {
            return Poll::Ready(frame);
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        Poll::Ready(match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Some(Ok(frame))
            }
            None => Some(Err(io::ErrorKind::ConnectionReset.into())),
        })
    }
}
