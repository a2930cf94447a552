//! Reads a bucket of the emulator whose answers to GET break.

use super::*;
use crate::archive::Replaced;
use crate::gcs::client::ClientLimits;
use crate::http_server::HttpServer;
use crate::origin::Origin;
use crate::sign::UrlSigner;
use bytes::Bytes;
use emulator::key::ServiceAccountKey;
use emulator::permissions::{Permissions, Role};
use emulator::signature::Verifier;
use emulator::{Buckets, Emulator, StoreBody};
use http::Request;
use http::header::RANGE;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::TcpListener;

const PREFIX: Prefix = Prefix::from_number(0xAB);

const MIB: usize = 1024 * 1024;

/// What happens to the body of an answer.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The connection is cut after about this many bytes.
    Cut(u64),
    /// Nothing follows after about this many bytes.
    Stall(u64),
    /// The byte range of the request is ignored.
    Whole,
}

/// A body that breaks before it exceeds `left` bytes.
struct Broken {
    body: StoreBody,
    left: u64,
    stalls: bool,
}

impl hyper::body::Body for Broken {
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
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            None if self.stalls => Poll::Pending,
            None => Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into()))),
        }
    }
}

/// A bucket with one tar, and the byte ranges of the GETs that it was sent.
struct Store {
    archive: BucketArchive,
    gets: Arc<Mutex<Vec<Option<String>>>>,
    tar: Vec<u8>,
    folder: tempfile::TempDir,
    _server: HttpServer,
}

impl Store {
    /// Starts a store. `plan` gets the tar's file and the number of the GET, from 1.
    async fn start(
        permissions: Permissions,
        plan: impl Fn(&Path, usize) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = file_in(folder.path());
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a bucket");
        let mut random = fastrand::Rng::with_seed(7);
        let tar: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
            .take(4 * MIB)
            .collect();
        std::fs::write(&path, &tar).expect("written");

        let key = ServiceAccountKey::generate().expect("a key");
        let buckets = Buckets::In(folder.path().to_owned());
        let verifier = Verifier::trusting(&key).expect("a verifier");
        let store = Emulator::with_permissions(buckets, verifier, permissions);
        let gets = Arc::<Mutex<Vec<Option<String>>>>::default();
        let (seen, plan) = (Arc::clone(&gets), Arc::new(plan));
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await;
        let server = HttpServer::start(listener.expect("a port"), move |request| {
            let (store, seen, plan) = (Arc::clone(&store), Arc::clone(&seen), Arc::clone(&plan));
            let path = path.clone();
            async move { answer(&store, &seen, &*plan, &path, request).await }
        });
        let server = server.expect("a server");
        let origin = Origin::new(false, &server.address().to_string());
        let signer = UrlSigner::new(&key, origin.to_string(), "pwned".to_owned());
        let path = "gs://pwned/a".parse().expect("a path");
        let signer = signer.expect("a signer");
        let client = BucketClient::with_signer(path, origin, signer, None, ClientLimits::default());
        let client = client.expect("a client");
        let mut archive = BucketArchive::new(Arc::new(client));
        archive.download.first_wait_max = Duration::from_millis(1);
        archive.download.wait_max = Duration::from_millis(1);
        archive.download.idle_timeout = Duration::from_millis(500);
        Self {
            archive,
            gets,
            tar,
            folder,
            _server: server,
        }
    }

    /// Reads the tar to its end.
    async fn download(&self) -> io::Result<Vec<u8>> {
        let tar = self.archive.open_tar(PREFIX).await.expect("an open tar");
        let mut tar = tar.expect("a tar");
        let reading = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            tar.read_to_end(&mut bytes).map(|_| bytes)
        });
        reading.await.expect("no panic")
    }

    /// The first byte of each GET.
    fn starts(&self) -> Vec<usize> {
        let gets = self.gets.lock().expect("not poisoned");
        gets.iter()
            .map(|range| match range {
                None => 0,
                Some(range) => range
                    .strip_prefix("bytes=")
                    .and_then(|range| range.strip_suffix('-'))
                    .and_then(|start| start.parse().ok())
                    .expect("an open byte range"),
            })
            .collect()
    }
}

fn file_in(folder: &Path) -> PathBuf {
    folder.join("pwned/a/AB.tar")
}

async fn answer(
    store: &Emulator,
    seen: &Mutex<Vec<Option<String>>>,
    plan: &(impl Fn(&Path, usize) -> Option<Fault> + Send + Sync),
    path: &Path,
    request: Request<Incoming>,
) -> http::Response<StoreBody> {
    let (mut parts, body) = request.into_parts();
    let mut fault = None;
    if parts.method == Method::GET {
        let range = parts.headers.get(RANGE);
        let range = range.map(|range| range.to_str().expect("text").to_owned());
        let number = {
            let mut seen = seen.lock().expect("not poisoned");
            seen.push(range);
            seen.len()
        };
        fault = plan(path, number);
    }
    if matches!(fault, Some(Fault::Whole)) {
        parts.headers.remove(RANGE);
    }
    let answer = store.answer(&parts, &mut Some(body)).await;
    let (left, stalls) = match fault {
        Some(Fault::Cut(left)) => (left, false),
        Some(Fault::Stall(left)) => (left, true),
        Some(Fault::Whole) | None => return answer,
    };
    answer.map(|body| Broken { body, left, stalls }.boxed_unsync())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_resumes_at_the_byte_that_it_reached() {
    for fault in [Fault::Cut(MIB as u64), Fault::Stall(MIB as u64)] {
        let store = Store::start(Permissions::ALL, move |_, number| {
            (number <= 3).then_some(fault)
        })
        .await;
        let bytes = store.download().await.expect("the whole tar");
        assert!(bytes == store.tar, "{fault:?}: other bytes");
        let starts = store.starts();
        assert_eq!(starts.len(), 4, "{fault:?}: {starts:?}");
        assert!(
            starts.is_sorted_by(|one, next| one < next),
            "{fault:?}: {starts:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_whose_connections_are_always_lost_ends_after_six() {
    let store = Store::start(Permissions::ALL, |_, _| Some(Fault::Cut(MIB as u64 / 4))).await;
    let error = store.download().await.expect_err("no tar").to_string();
    assert!(error.starts_with("6 connections were lost"), "{error}");
    assert_eq!(store.starts().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tar_that_is_replaced_or_removed_while_it_is_read_is_not_continued() {
    type Change = fn(&Path);
    let shorter: Change = |path| std::fs::write(path, [7; 9]).expect("written");
    let other: Change = |path| std::fs::write(path, vec![7; 4 * MIB]).expect("written");
    let removed: Change = |path| std::fs::remove_file(path).expect("removed");
    for change in [shorter, other, removed] {
        let store = Store::start(Permissions::ALL, move |path, number| {
            if number == 2 {
                change(path);
            }
            (number == 1).then_some(Fault::Cut(MIB as u64))
        })
        .await;
        let error = store.download().await.expect_err("another tar");
        let cause = error.get_ref().expect("a cause");
        assert!(cause.is::<Replaced>(), "{error}");
        assert_eq!(store.starts().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_ignores_byte_ranges_yields_an_error_and_no_wrong_bytes() {
    let store = Store::start(Permissions::ALL, |_, number| {
        Some(match number {
            1 => Fault::Cut(MIB as u64),
            _ => Fault::Whole,
        })
    })
    .await;
    let error = store.download().await.expect_err("no tar").to_string();
    assert!(
        error.starts_with("GET of a/AB.tar was answered 200 without the byte range from "),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_file_is_missing_for_a_run_and_an_error_for_a_reader() {
    let permissions = Permissions::of_roles(&[Role::ObjectCreator]);
    let store = Store::start(permissions, |_, _| None).await;
    let read = store.archive.read("manifest.json", 100).await;
    assert_eq!(read.expect("counts as missing"), None);
    let archive = store.archive.for_reading_only();
    let error = archive.read("manifest.json", 100).await;
    let error = error.expect_err("denied").to_string();
    assert!(error.contains("needs storage.objects.get"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn byte_ranges_of_a_tar_are_read_and_a_shorter_tar_is_invalid() {
    let store = Store::start(Permissions::ALL, |_, _| None).await;
    let bytes = store.archive.read_tar_bytes(PREFIX, 512..1024).await;
    assert_eq!(bytes.expect("read").as_deref(), store.tar.get(512..1024));
    std::fs::write(file_in(store.folder.path()), [7; 600]).expect("written");
    for byte_range in [512..1024, 600..1024] {
        let error = store.archive.read_tar_bytes(PREFIX, byte_range).await;
        assert!(matches!(error, Err(ReadError::Invalid { .. })), "{error:?}");
    }
}
