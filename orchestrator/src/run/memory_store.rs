//! An archive in memory, for tests: every operation first passes a gate, so that a test decides in which order several
//! processes act, and what becomes of each operation.

use crate::archive::layout::tar_name;
use crate::archive::{Archive, Base, ReadError, StoredFile, StoredObject, TarIndex, TarReader};
use crate::destination::{Destination, DestinationError, WritePermit, Written};
use crate::gcs::client::RequestError;
use crate::origin::Origin;
use crate::sign::only_generation;
use bytes::Bytes;
use http::StatusCode;
use prefix_tar::engine::range_body::line_bytes_min;
use prefix_tar::engine::tar;
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::job::{Download, Upload};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::{Report, Seconds};
use prefix_tar::protocol::signed_url::SignedUrl;
use prefix_tar::protocol::store_answer::is_transient_status;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// The header with the condition of an upload.
const CONDITION: &str = "x-goog-if-generation-match";

/// The bytes of each range of a tar in memory: two of the shortest lines.
const RANGE_BYTES: u32 = 2 * line_bytes_min(Mode::Sha1) as u32;

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Content {
    /// A tar, by what its ranges are: a source and a moment.
    Tar(String),
    /// A file of the books.
    Text(Text),
}

/// A text that is cheap to copy and to hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    digest: u64,
    bytes: Arc<[u8]>,
}

impl Text {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Self {
            digest: hasher.finish(),
            bytes: bytes.into(),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.digest.hash(hasher);
    }
}

/// A file and how often it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct File {
    pub(super) content: Content,
    pub(super) generation: u64,
}

/// Files by name. A removed file keeps its generation, as in a bucket no generation comes back.
pub(super) type Files = BTreeMap<String, File>;

/// What becomes of an operation that changes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fate {
    /// It happens, and its answer arrives.
    Answered,
    /// It happens, but its answer is lost.
    AnswerLost,
    /// Its URL has expired.
    Expired,
    /// It does not happen, but is confirmed.
    Forgotten,
}

/// Where an operation waits for its turn.
pub(super) trait Gate: Send + Sync {
    /// Waits for the turn of an operation on a file. `change` is its condition, if it changes the file.
    fn pass(&self, operation: Operation) -> Pin<Box<dyn Future<Output = Fate> + Send + '_>>;

    /// Notes the hash of what an operation returned. What a process does next depends on nothing else.
    fn note(&self, _answer: u64) {}
}

/// An operation on the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    /// It changes nothing.
    Read(String),
    /// A URL is signed for a change.
    Sign(String),
    /// A conditional write, with the content.
    Write(String, Option<u64>, Content),
}

/// A gate that is open.
pub(super) struct Open;

impl Gate for Open {
    fn pass(&self, _operation: Operation) -> Pin<Box<dyn Future<Output = Fate> + Send + '_>> {
        Box::pin(std::future::ready(Fate::Answered))
    }
}

/// One process's view of the store.
pub(super) struct MemoryStore {
    pub(super) files: Arc<Mutex<Files>>,
    pub(super) gate: Arc<dyn Gate>,
    origin: Origin,
    /// The status of every attempt to sign an upload, if it fails.
    pub(super) sign_status: Option<u16>,
    /// The checksum that the metadata of every tar states, if it is not the tar's own.
    pub(super) stated_crc32c: Option<Crc32c>,
}

impl MemoryStore {
    pub(super) fn new(files: Arc<Mutex<Files>>, gate: Arc<dyn Gate>) -> Self {
        Self {
            files,
            gate,
            origin: Origin::new(false, "127.0.0.1:1"),
            sign_status: None,
            stated_crc32c: None,
        }
    }

    pub(super) fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().expect("not poisoned")
    }

    async fn read_at<T>(&self, file: &str, read: impl FnOnce(Option<&File>) -> T + Send) -> T {
        self.gate.pass(Operation::Read(file.to_owned())).await;
        let (answer, file_hash) = {
            let files = self.files();
            let found = files.get(file);
            let mut hasher = DefaultHasher::new();
            found.hash(&mut hasher);
            (read(found), hasher.finish())
        };
        self.gate.note(file_hash);
        answer
    }

    /// Writes a file if its generation is as expected, and returns the new one.
    async fn write_at(
        &self,
        file: &str,
        base: Option<u64>,
        content: Content,
    ) -> Result<Option<u64>, Lost> {
        let operation = Operation::Write(file.to_owned(), base, content.clone());
        let fate = self.gate.pass(operation).await;
        let answer = match fate {
            Fate::Expired => Err(Lost::Expired),
            Fate::Forgotten => Ok(Some(base.unwrap_or(0) + 1)),
            Fate::Answered => Ok(apply(&mut self.files(), file, base, content)),
            Fate::AnswerLost => {
                apply(&mut self.files(), file, base, content);
                Err(Lost::Answer)
            }
        };
        let mut hasher = DefaultHasher::new();
        answer.hash(&mut hasher);
        self.gate.note(hasher.finish());
        answer
    }

    /// Uploads a tar as the component does: over the generation that the job permits. Returns its report, or `None` if
    /// the store refused it.
    pub(super) async fn upload(
        &self,
        prefix: Prefix,
        upload: &Upload,
        tar: &str,
        source: &str,
    ) -> Result<Option<Report>, Lost> {
        let condition = upload.headers.get(CONDITION).expect("a condition");
        let base = match condition.as_str() {
            "0" => None,
            generation => Some(generation.parse().expect("a generation")),
        };
        let content = Content::Tar(tar.to_owned());
        let generation = self.write_at(&tar_name(prefix), base, content).await?;
        Ok(generation.map(|generation| Report {
            generation: Some(generation.to_string()),
            ..report(prefix, source, tar)
        }))
    }
}

/// Why an operation has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lost {
    Answer,
    Expired,
}

/// Writes a file if its generation is as expected, and returns the new one.
pub(super) fn apply(
    files: &mut Files,
    name: &str,
    base: Option<u64>,
    content: Content,
) -> Option<u64> {
    let current = files.get(name).map(|file| file.generation);
    if current != base {
        return None;
    }
    let generation = current.unwrap_or(0) + 1;
    files.insert(
        name.to_owned(),
        File {
            content,
            generation,
        },
    );
    Some(generation)
}

/// The report of a tar in memory.
pub(super) fn report(prefix: Prefix, source: &str, tar: &str) -> Report {
    let index = index_of(tar);
    Report {
        prefix,
        source: source.to_owned(),
        mode: Mode::Sha1,
        run: None,
        ranges: 4096,
        hashes: index.hashes,
        data_bytes: index.data_bytes,
        content_length: index.content_length,
        crc32c: index.crc32c,
        requests: 4096,
        retries: 0,
        seconds: Seconds::default(),
        linear_memory_peak: 4,
        generation: None,
        etag: None,
        range_etags: vec![String::new(); index.range_bytes.len()],
        range_crc32c: index.range_crc32c,
        range_bytes: index.range_bytes,
        cached_errors: Vec::new(),
        reuse: None,
        seen: None,
    }
}

fn index_of(tar: &str) -> TarIndex {
    TarIndex {
        range_bytes: vec![RANGE_BYTES; 4096],
        range_crc32c: vec![Crc32c(0); 4096],
        hashes: 2 * 4096,
        data_bytes: 4096 * u64::from(RANGE_BYTES),
        content_length: content_length(),
        crc32c: crc32c_of(tar),
    }
}

fn content_length() -> u64 {
    tar::tar_bytes(4096 * tar::entry_bytes(u64::from(RANGE_BYTES)))
}

pub(super) fn crc32c_of(tar: &str) -> Crc32c {
    Crc32c(crc32c::crc32c(tar.as_bytes()))
}

#[async_trait::async_trait]
impl Archive for MemoryStore {
    async fn read(&self, file: &str, _bytes_max: usize) -> Result<Option<StoredFile>, ReadError> {
        let found = self
            .read_at(file, |found| {
                let found = found?;
                match &found.content {
                    Content::Text(text) => Some((text.clone(), found.generation)),
                    _ => None,
                }
            })
            .await;
        Ok(found.map(|(content, generation)| StoredFile {
            content: content.bytes().to_vec(),
            generation: generation.to_string(),
        }))
    }

    async fn generation(&self, file: &str) -> Result<Base, ReadError> {
        let generation = self
            .read_at(file, |found| found.map(|found| found.generation))
            .await;
        Ok(generation.map(|generation| generation.to_string()))
    }

    async fn object(&self, prefix: Prefix) -> Result<Option<StoredObject>, ReadError> {
        let object = self
            .read_at(&tar_name(prefix), |found| {
                let found = found?;
                let crc32c = match &found.content {
                    Content::Tar(tar) => crc32c_of(tar),
                    _ => Crc32c(0),
                };
                Some(StoredObject {
                    content_length: content_length(),
                    crc32c: self.stated_crc32c.unwrap_or(crc32c),
                    generation: found.generation.to_string(),
                    etag: None,
                })
            })
            .await;
        Ok(object)
    }

    async fn has_tar(&self, prefix: Prefix) -> Result<bool, ReadError> {
        Ok(self
            .read_at(&tar_name(prefix), |found| found.is_some())
            .await)
    }

    async fn open_tar(&self, _prefix: Prefix) -> Result<Option<TarReader>, ReadError> {
        unreachable!("`index_tar` is answered without reading")
    }

    async fn index_tar(
        &self,
        prefix: Prefix,
        _mode: Mode,
    ) -> Result<Option<Result<TarIndex, String>>, ReadError> {
        let content = self
            .read_at(&tar_name(prefix), |found| Some(found?.content.clone()))
            .await;
        Ok(content.map(|content| match content {
            Content::Tar(tar) => Ok(index_of(&tar)),
            Content::Text(_) => Err("it is damaged".to_owned()),
        }))
    }

    async fn read_tar_bytes(
        &self,
        _prefix: Prefix,
        _byte_range: Range<u64>,
    ) -> Result<Option<Bytes>, ReadError> {
        unreachable!("a run reads no part of a tar")
    }
}

#[async_trait::async_trait]
impl Destination for MemoryStore {
    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn archive(&self) -> &dyn Archive {
        self
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn upload_life(&self) -> Duration {
        Duration::from_secs(960)
    }

    async fn sign_upload(&self, prefix: Prefix, base: &Base) -> Result<Upload, DestinationError> {
        self.gate.pass(Operation::Sign(tar_name(prefix))).await;
        if let Some(status) = self.sign_status {
            return Err(DestinationError::Request(RequestError::Refused {
                message: format!("PUT of AB.tar was answered {status}"),
                status: StatusCode::from_u16(status).expect("a status"),
                is_transient: is_transient_status(status),
            }));
        }
        let condition = base.clone().unwrap_or_else(|| "0".to_owned());
        Ok(Upload {
            url: SignedUrl::new("http://127.0.0.1:1/b/o?s".to_owned()).expect("a URL"),
            headers: BTreeMap::from([(CONDITION.to_owned(), condition)]),
        })
    }

    async fn sign_download(
        &self,
        file: &str,
        generation: &str,
    ) -> Result<Download, DestinationError> {
        self.gate.pass(Operation::Read(file.to_owned())).await;
        Ok(Download {
            url: SignedUrl::new("http://127.0.0.1:1/b/o?s".to_owned()).expect("a URL"),
            headers: only_generation(generation),
        })
    }

    async fn discard(&self, prefix: Prefix, generation: &str) -> Result<(), DestinationError> {
        self.gate.pass(Operation::Read(tar_name(prefix))).await;
        let mut files = self.files();
        let is_there = files
            .get(&tar_name(prefix))
            .is_some_and(|file| file.generation.to_string() == generation);
        if is_there {
            files.remove(&tar_name(prefix));
        }
        Ok(())
    }

    async fn permit_write(&self, file: &str, base: Base) -> Result<WritePermit, DestinationError> {
        self.gate.pass(Operation::Sign(file.to_owned())).await;
        Ok(WritePermit {
            file: file.to_owned(),
            base,
            signed: None,
        })
    }

    async fn write(
        &self,
        permit: WritePermit,
        content: Vec<u8>,
    ) -> Result<Written, DestinationError> {
        let base = permit
            .base
            .map(|generation| generation.parse().expect("a generation"));
        let content = Content::Text(Text::new(content));
        let written = self.write_at(&permit.file, base, content.clone()).await;
        match written {
            Ok(Some(generation)) => Ok(Written::Done {
                generation: generation.to_string(),
            }),
            Ok(None) => Ok(Written::Conflict),
            Err(Lost::Expired) => Err(DestinationError::Request(RequestError::Refused {
                message: format!("PUT of {} was answered 403 ExpiredToken", permit.file),
                status: StatusCode::FORBIDDEN,
                is_transient: true,
            })),
            // A bucket's client sends it again, is refused, and then looks.
            Err(Lost::Answer) => {
                let found = self
                    .read_at(&permit.file, |found| {
                        let found = found?;
                        (found.content == content).then_some(found.generation)
                    })
                    .await;
                Ok(found.map_or(Written::Conflict, |generation| Written::Done {
                    generation: generation.to_string(),
                }))
            }
        }
    }
}
