//! Streams the tar into a PUT of a declared length and compares its checksum with the store's.
//!
//! Dropping an [`Upload`] before [`Upload::finish`] aborts the request: a short body never ends
//! cleanly.

use super::heap;
use super::incoming::read_text;
use super::outgoing::{
    Peer, PendingResponse, Target, Timeouts, header, parsed_retry_after, request, transport_failure,
};
use super::reactor::{Readiness, within};
use crate::engine::tar;
use crate::engine::tar_checksum::TarChecksum;
use crate::limits::{
    CONNECT_TIMEOUT, STORE_ERROR_BYTES_MAX, STORE_ERROR_TIME_MAX, UPLOAD_ANSWER_TIME_MAX,
    UPLOAD_BUFFER_BYTES, UPLOAD_STALL_TIME_MAX, UPLOAD_TIMEOUT,
};
use crate::protocol::crc32c::Crc32c;
use crate::protocol::failure::{Failure, FailureKind};
use crate::protocol::job;
use crate::protocol::phase::Phase;
use crate::protocol::prefix::RangeName;
use crate::protocol::store_answer::{
    crc32c_of_goog_hash, error_code, is_expired, is_transient_status, refusal,
};
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;
use wasi::http::outgoing_handler;
use wasi::http::types::{ErrorCode, Fields, IncomingResponse, Method, OutgoingBody};
use wasi::io::streams::{OutputStream, StreamError};

const TIMEOUTS: Timeouts = Timeouts {
    connect: CONNECT_TIMEOUT,
    first_byte: UPLOAD_TIMEOUT,
    between_bytes: UPLOAD_TIMEOUT,
};

/// The only status that means that the object is stored.
const OK: u16 = 200;

const ZEROS: [u8; 4096] = [0; 4096];

/// What was sent, and how the store identifies it.
pub(super) struct Stored {
    pub(super) crc32c: Crc32c,
    pub(super) generation: Option<String>,
    pub(super) etag: Option<String>,
}

/// Why nothing was stored, or why the outcome is unknown.
pub(super) struct NotStored {
    pub(super) failure: Failure,
    /// What was sent, if all of it was.
    pub(super) sent: Option<Stored>,
}

impl From<Failure> for NotStored {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            sent: None,
        }
    }
}

/// A PUT in progress. Fields drop in this order: WASI requires each to be dropped before its
/// parent.
pub(super) struct Upload {
    readiness: Readiness,
    stream: Option<OutputStream>,
    body: Option<OutgoingBody>,
    response: PendingResponse,
    /// The next bytes of the tar, not sent yet.
    buffer: Vec<u8>,
    /// The checksum of the bytes that have left the buffer.
    checksum: TarChecksum,
    content_length: u64,
    /// Bytes of the tar so far, sent or in the buffer.
    tar_bytes: u64,
    /// What each failure message begins with.
    operation: String,
}

impl Upload {
    /// Starts the PUT and declares its length.
    pub(super) fn open(upload: &job::Upload, content_length: u64) -> Result<Self, Failure> {
        let url = &upload.url;
        let operation = format!("PUT of {} to {}", url.path(), url.authority());
        let rejected =
            |what: &str| Failure::permanent(FailureKind::BadJob, format!("{operation}: {what}"));
        let mut headers: Vec<(String, Vec<u8>)> = upload
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_bytes().to_vec()))
            .collect();
        let length = content_length.to_string().into_bytes();
        headers.push(("content-length".to_owned(), length));
        let headers = Fields::from_list(&headers)
            .map_err(|_| rejected("the host rejected one of the job's upload headers"))?;
        let target = Target {
            is_https: url.is_https(),
            authority: url.authority().as_str(),
            path_and_query: url.expose_path_and_query(),
        };
        let request = request(&Method::Put, &target, headers)
            .ok_or_else(|| rejected("the host rejected the signed URL"))?;
        let body = request
            .body()
            .map_err(|()| rejected("the host provided no request body"))?;
        let stream = body
            .write()
            .map_err(|()| rejected("the host provided no stream for the request body"))?;
        let response = outgoing_handler::handle(request, Some(TIMEOUTS.to_options()))
            .map_err(|code| transport_failure(Peer::Store, &operation, &code))?;
        Ok(Self {
            readiness: Readiness::new(),
            stream: Some(stream),
            body: Some(body),
            response: PendingResponse::new(response),
            buffer: Vec::with_capacity(UPLOAD_BUFFER_BYTES),
            checksum: TarChecksum::default(),
            content_length,
            tar_bytes: 0,
            operation,
        })
    }

    /// Bytes of the tar that the host has accepted.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.tar_bytes - self.buffer.len() as u64
    }

    /// Whether an entry with `size_bytes` of data and the end marker fit into the declared length.
    pub(super) const fn fits(&self, size_bytes: u64) -> bool {
        self.tar_bytes + tar::entry_bytes(size_bytes) + tar::END_BYTES <= self.content_length
    }

    /// Writes one entry, whose data are `size_bytes` in `pieces`. Returns the checksum of its data.
    pub(super) async fn write_entry<'data>(
        &mut self,
        range: RangeName,
        size_bytes: u64,
        pieces: impl Iterator<Item = &'data [u8]>,
        modified_seconds: u64,
    ) -> Result<Crc32c, Failure> {
        let entry = heap::within(Phase::Tar, || {
            tar::entry_header(range, size_bytes, modified_seconds)
        });
        let entry = entry.map_err(|error| {
            let message = format!("the tar header cannot be encoded: {error}");
            Failure::permanent(FailureKind::RangeInvalid, message).at(range)
        })?;
        heap::within(Phase::Checksum, || self.checksum.push_header(&entry));
        self.write(&entry).await?;
        for piece in pieces {
            heap::within(Phase::Checksum, || self.checksum.push_data(piece));
            self.write(piece).await?;
        }
        let crc32c = heap::within(Phase::Checksum, || self.checksum.end_data());
        self.write_zeros(tar::padding_bytes(size_bytes)).await?;
        Ok(crc32c)
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        self.tar_bytes += bytes.len() as u64;
        loop {
            let free = UPLOAD_BUFFER_BYTES - self.buffer.len();
            let (now, later) = bytes.split_at(free.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            if later.is_empty() {
                return Ok(());
            }
            self.send_buffer().await?;
            bytes = later;
        }
    }

    async fn write_zeros(&mut self, mut count: u64) -> Result<(), Failure> {
        self.checksum.push_zeros(count);
        while count > 0 {
            let now = usize::try_from(count).unwrap_or(usize::MAX);
            let now = ZEROS.get(..now).unwrap_or(&ZEROS);
            self.write(now).await?;
            count -= now.len() as u64;
        }
        Ok(())
    }

    async fn send_buffer(&mut self) -> Result<(), Failure> {
        let mut sent = 0;
        let sending = poll_fn(|context| self.poll_send(context, &mut sent));
        let interrupted = within(UPLOAD_STALL_TIME_MAX, sending).await;
        self.buffer.clear();
        let response = match interrupted {
            Some(None) => return Ok(()),
            Some(Some(Interrupted::Answered(response))) => response,
            Some(Some(Interrupted::Closed)) => self.answer().await?,
            None => return Err(self.idle("accepted no data", UPLOAD_STALL_TIME_MAX)),
        };
        Err(self.early_answer(response).await)
    }

    /// Waits for the store's response.
    async fn answer(&mut self) -> Result<Result<IncomingResponse, ErrorCode>, Failure> {
        let response = poll_fn(|context| self.response.poll(context));
        let response = within(UPLOAD_ANSWER_TIME_MAX, response).await;
        response.ok_or_else(|| self.idle("did not answer", UPLOAD_ANSWER_TIME_MAX))
    }

    fn idle(&self, what: &str, time: Duration) -> Failure {
        let seconds = time.as_secs();
        let message = format!("{}: the store {what} for {seconds} s", self.operation);
        Failure::transient(FailureKind::StoreTimeout, message)
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        sent: &mut usize,
    ) -> Poll<Option<Interrupted>> {
        // A store that answers early (403, 412, 503) does not read the rest of the body.
        if let Some(response) = self.response.take() {
            return Poll::Ready(Some(Interrupted::Answered(response)));
        }
        let Some(stream) = &self.stream else {
            return Poll::Ready(Some(Interrupted::Closed));
        };
        while *sent < self.buffer.len() {
            let writable = match stream.check_write() {
                Ok(0) => {
                    match self.readiness.poll(context, || stream.subscribe()) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(()) => continue,
                    };
                }
                Ok(writable) => usize::try_from(writable).unwrap_or(usize::MAX),
                Err(StreamError::Closed | StreamError::LastOperationFailed(_)) => {
                    return Poll::Ready(Some(Interrupted::Closed));
                }
            };
            let end = sent.saturating_add(writable).min(self.buffer.len());
            if stream.write(&self.buffer[*sent..end]).is_err() {
                return Poll::Ready(Some(Interrupted::Closed));
            }
            *sent = end;
        }
        Poll::Ready(None)
    }

    fn transport_failure(&self, code: &ErrorCode) -> Failure {
        transport_failure(Peer::Store, &self.operation, code)
    }

    /// The failure for an answer that arrived before the whole body was sent.
    async fn early_answer(&self, response: Result<IncomingResponse, ErrorCode>) -> Failure {
        match response {
            Err(code) => self.transport_failure(&code),
            Ok(response) if response.status() == OK => {
                let message = format!(
                    "{} was answered {OK} before the whole body was sent",
                    self.operation
                );
                Failure::transient(FailureKind::StoreStatus, message).with_status(OK)
            }
            Ok(response) => self.status_failure(&response).await,
        }
    }

    async fn status_failure(&self, response: &IncomingResponse) -> Failure {
        let status = response.status();
        let code = read_error_code(response).await;
        let message = refusal(&self.operation, "PUT", status, code.as_deref());
        let failure = match status {
            // The next job is signed for the generation that exists then.
            412 => Failure::transient(FailureKind::StorePrecondition, message),
            // The next job is signed anew.
            400..=403 if is_expired(code.as_deref()) => {
                Failure::transient(FailureKind::StoreDenied, message)
            }
            401 | 403 => Failure::permanent(FailureKind::StoreDenied, message),
            300..=399 => {
                let message = message + "; redirects are not followed";
                Failure::permanent(FailureKind::StoreStatus, message)
            }
            _ if is_transient_status(status) => Failure {
                retry_after_seconds: parsed_retry_after(&response.headers())
                    .map(|wait| wait.as_secs()),
                ..Failure::transient(FailureKind::StoreStatus, message)
            },
            _ => Failure::permanent(FailureKind::StoreStatus, message),
        };
        failure.with_status(status)
    }

    /// Ends the tar, pads it to the declared length and checks the store's answer.
    pub(super) async fn finish(mut self) -> Result<Stored, NotStored> {
        let left = self.content_length.saturating_sub(self.tar_bytes);
        self.write_zeros(left).await?;
        self.send_buffer().await?;
        self.readiness = Readiness::new();
        self.stream = None;
        let mut sent = Stored {
            crc32c: self.checksum.checksum(),
            generation: None,
            etag: None,
        };
        match self.confirm(&mut sent).await {
            Ok(()) => Ok(sent),
            Err(failure) => Err(NotStored {
                failure,
                sent: Some(sent),
            }),
        }
    }

    /// Ends the request and compares the store's checksum. Fills in the generation and the ETag.
    async fn confirm(&mut self, sent: &mut Stored) -> Result<(), Failure> {
        if let Some(body) = self.body.take() {
            OutgoingBody::finish(body, None).map_err(|code| self.transport_failure(&code))?;
        }
        let response = self
            .answer()
            .await?
            .map_err(|code| self.transport_failure(&code))?;
        if response.status() != OK {
            return Err(self.status_failure(&response).await);
        }
        let headers = response.headers();
        sent.generation = header(&headers, "x-goog-generation");
        sent.etag = header(&headers, "etag");
        let hashes: Vec<String> = headers
            .get(&"x-goog-hash".to_owned())
            .into_iter()
            .filter_map(|value| String::from_utf8(value).ok())
            .collect();
        let stored = crc32c_of_goog_hash(hashes.iter().map(String::as_str));
        if stored == Some(sent.crc32c) {
            return Ok(());
        }
        let operation = &self.operation;
        let failure = match stored {
            Some(stored) => Failure::transient(
                FailureKind::StoreChecksum,
                format!(
                    "{operation} was stored with CRC32C {stored}, but the data sent have {}",
                    sent.crc32c
                ),
            ),
            // Not every store states it with the answer to a PUT. The orchestrator asks by HEAD.
            None => Failure::transient(
                FailureKind::StoreUnconfirmed,
                format!(
                    "{operation} was answered without a CRC32C in x-goog-hash; is this store GCS or compatible?"
                ),
            ),
        };
        Err(failure.with_status(OK))
    }
}

/// Why the body accepts no more data.
enum Interrupted {
    Answered(Result<IncomingResponse, ErrorCode>),
    Closed,
}

/// The `<Code>` of the store's XML error document, if it has one.
async fn read_error_code(response: &IncomingResponse) -> Option<String> {
    let text = read_text(response, STORE_ERROR_BYTES_MAX);
    let text = within(STORE_ERROR_TIME_MAX, text).await?;
    error_code(&text).map(str::to_owned)
}
