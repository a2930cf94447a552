use super::*;
use crate::archive::layout::{MANIFEST_NAME, tar_name};
use crate::archive::manifest::{Manifest, ManifestObject, Totals};
use crate::archive::{Archive, Base, StoredFile, StoredObject, TarReader};
use hyper::body::Body as _;
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::Prefix;
use std::ops::Range;
use std::sync::Mutex;

/// The prefix that the archive holds.
const HELD: Prefix = Prefix::from_number(0xAB);

/// An archive of which nothing but the manifest can be read.
struct Unreadable {
    /// The manifest's generation, or what comes back instead.
    generation: Arc<Mutex<Result<Base, bool>>>,
    is_transient: bool,
}

impl Unreadable {
    fn error(&self, file: &str) -> ReadError {
        ReadError::Unreadable {
            file: file.to_owned(),
            reason: "the test says so".to_owned(),
            is_transient: self.is_transient,
        }
    }
}

#[async_trait::async_trait]
impl Archive for Unreadable {
    async fn read(&self, file: &str, _: usize) -> Result<Option<StoredFile>, ReadError> {
        if file != MANIFEST_NAME {
            return Err(self.error(file));
        }
        let object = ManifestObject {
            prefix: HELD,
            object: tar_name(HELD),
            content_length: 1024,
            crc32c: Crc32c(0),
            generation: None,
            run: None,
        };
        let manifest = Manifest {
            tool: "prefix-tar".to_owned(),
            version: String::new(),
            run: None,
            source: String::new(),
            mode: Mode::Sha1,
            started: String::new(),
            finished: "2026-11-25T00:00:00Z".to_owned(),
            totals: Totals::default(),
            objects: vec![object],
        };
        Ok(Some(StoredFile {
            content: serde_json::to_vec(&manifest).expect("JSON"),
            generation: "1".to_owned(),
        }))
    }

    async fn generation(&self, file: &str) -> Result<Base, ReadError> {
        let generation = self.generation.lock().expect("not poisoned").clone();
        generation.map_err(|is_transient| ReadError::Unreadable {
            file: file.to_owned(),
            reason: "the test says so".to_owned(),
            is_transient,
        })
    }

    async fn object(&self, prefix: Prefix) -> Result<Option<StoredObject>, ReadError> {
        Err(self.error(&tar_name(prefix)))
    }

    async fn has_tar(&self, prefix: Prefix) -> Result<bool, ReadError> {
        Err(self.error(&tar_name(prefix)))
    }

    async fn open_tar(&self, prefix: Prefix) -> Result<Option<TarReader>, ReadError> {
        Err(self.error(&tar_name(prefix)))
    }

    async fn read_tar_bytes(
        &self,
        prefix: Prefix,
        _: Range<u64>,
    ) -> Result<Option<Bytes>, ReadError> {
        Err(self.error(&tar_name(prefix)))
    }
}

/// A mirror of an archive whose ranges cannot be read, and the manifest's generation.
fn mirror(is_transient: bool) -> (Mirror, Arc<Mutex<Result<Base, bool>>>) {
    let generation = Arc::new(Mutex::new(Ok(Some("1".to_owned()))));
    let archive: Arc<dyn Archive> = Arc::new(Unreadable {
        generation: Arc::clone(&generation),
        is_transient,
    });
    let current = CurrentArchive::new(Box::new(move || vec![Arc::clone(&archive)]), None);
    (Mirror::new(current, String::new(), 1 << 20), generation)
}

async fn get(mirror: &Mirror, path: &str) -> Response<Full<Bytes>> {
    let request = Request::get(path).body(()).expect("a request");
    mirror.answer(&request).await
}

#[tokio::test]
async fn what_cannot_be_read_now_may_be_asked_for_again() {
    let (mirror, _) = mirror(true);
    assert_eq!(mirror.open().await.expect("open"), Refreshed::Opened);
    let response = get(&mirror, "/range/AB000").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "5");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn what_cannot_be_read_at_all_is_an_error_of_the_server() {
    let (mirror, _) = mirror(false);
    mirror.open().await.expect("open");
    let response = get(&mirror, "/range/AB000").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!response.headers().contains_key("retry-after"));
    let metrics = mirror.metrics.text(None).expect("metrics");
    assert!(metrics.contains("upstream_errors_total 1"), "{metrics}");
}

#[tokio::test]
async fn an_archive_is_opened_once_per_generation_and_kept_if_its_manifest_is_lost() {
    let (mirror, generation) = mirror(false);
    *generation.lock().expect("not poisoned") = Ok(None);
    assert_eq!(mirror.open().await.expect("looked"), Refreshed::Missing);
    let response = get(&mirror, "/range/AB000").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&mirror, "/readyz").await.status(), 503);
    let mut epochs = Vec::new();
    for (now, refreshed) in [
        (Ok(Some("1".to_owned())), Ok(Refreshed::Opened)),
        (Ok(Some("1".to_owned())), Ok(Refreshed::Unchanged)),
        (Ok(Some("2".to_owned())), Ok(Refreshed::Opened)),
        (Ok(None), Ok(Refreshed::Missing)),
        (Err(true), Err(())),
        (Ok(Some("2".to_owned())), Ok(Refreshed::Unchanged)),
    ] {
        *generation.lock().expect("not poisoned") = now;
        assert_eq!(mirror.open().await.map_err(drop), refreshed);
        epochs.push(mirror.current.get().expect("open").epoch);
        assert_eq!(get(&mirror, "/readyz").await.status(), 200);
    }
    assert_eq!(epochs, [0, 0, 1, 1, 1, 1]);
}

#[tokio::test]
async fn no_body_is_sent_for_head() {
    let (mirror, _) = mirror(false);
    for path in ["/healthz", "/range/XYZ", "/metrics"] {
        let request = Request::head(path).body(()).expect("a request");
        let response = mirror.answer(&request).await;
        assert_eq!(response.body().size_hint().exact(), Some(0));
        assert!(response.headers().contains_key("content-length"), "{path}");
    }
}
