//! The PUT: a body of a declared length, written through one buffer, its checksum kept on the way and
//! compared with the store's. Which entries are written, and when, is left to the invocation.
//!
//! Dropped before [`Upload::finish`], it aborts: the body is never ended cleanly short of its length.

use super::incoming::read_text;
use super::outgoing::{
    Peer, PendingResponse, Target, Timeouts, header, request, stated_retry_after, transport_failure,
};
use super::reactor::{Readiness, within};
use crate::checksum::Crc32cStream;
use crate::chunk_pool::BodyBytes;
use crate::failure::{Failure, FailureKind};
use crate::job::{self, Crc32c};
use crate::limits::{
    CONNECT_TIMEOUT, STORE_ERROR_BYTES_MAX, STORE_ERROR_TIME_MAX, UPLOAD_ANSWER_TIME_MAX,
    UPLOAD_BUFFER_BYTES, UPLOAD_STALL_TIME_MAX, UPLOAD_TIMEOUT,
};
use crate::prefix::RangeName;
use crate::store_answer::{crc32c_of_goog_hash, error_code, is_passing_status, refusal};
use crate::tar;
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

const ZEROS: [u8; 4096] = [0; 4096];

/// What was sent, and what the store said of it.
pub(super) struct Stored {
    pub(super) crc32c: Crc32c,
    pub(super) generation: Option<String>,
    pub(super) etag: Option<String>,
}

/// Why nothing was stored, or it is not known whether it was.
pub(super) struct NotStored {
    pub(super) failure: Failure,
    /// What was sent, where all of it was.
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

/// The PUT under way. Fields drop in this order: each before what it belongs to.
pub(super) struct Upload {
    readiness: Readiness,
    stream: Option<OutputStream>,
    body: Option<OutgoingBody>,
    response: PendingResponse,
    /// What the tar has next and the body has not.
    buffer: Vec<u8>,
    /// Of what was taken out of the buffer.
    checksum: Crc32cStream,
    content_length: u64,
    /// Bytes of the tar that were put into the buffer, sent or not.
    tar_bytes: u64,
    tried: String,
}

impl Upload {
    /// Opens the PUT and declares its length.
    pub(super) fn open(upload: &job::Upload, content_length: u64) -> Result<Self, Failure> {
        let url = &upload.url;
        let tried = format!("PUT of {} to {}", url.path(), url.authority());
        let refused =
            |what: &str| Failure::lasting(FailureKind::BadJob, format!("{tried}: {what}"));
        let mut headers: Vec<(String, Vec<u8>)> = upload
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_bytes().to_vec()))
            .collect();
        let length = content_length.to_string().into_bytes();
        headers.push(("content-length".to_owned(), length));
        let headers = Fields::from_list(&headers)
            .map_err(|_| refused("the host refused one of the job's upload headers"))?;
        let target = Target {
            is_https: url.is_https(),
            authority: url.authority().as_str(),
            path_and_query: url.expose_path_and_query_to_the_wire(),
        };
        let request = request(&Method::Put, &target, headers)
            .ok_or_else(|| refused("the host refused the signed URL"))?;
        let body = request
            .body()
            .map_err(|()| refused("the host gave no body for the PUT"))?;
        let stream = body
            .write()
            .map_err(|()| refused("the host gave no stream for the PUT's body"))?;
        let response = outgoing_handler::handle(request, Some(TIMEOUTS.to_options()))
            .map_err(|code| transport_failure(Peer::Store, &tried, &code))?;
        Ok(Self {
            readiness: Readiness::new(),
            stream: Some(stream),
            body: Some(body),
            response: PendingResponse::new(response),
            buffer: Vec::with_capacity(UPLOAD_BUFFER_BYTES),
            checksum: Crc32cStream::new(),
            content_length,
            tar_bytes: 0,
            tried,
        })
    }

    /// Whether an entry of `size_bytes` and the end marker still fit into the declared length.
    pub(super) const fn fits(&self, size_bytes: u64) -> bool {
        self.tar_bytes + tar::entry_bytes(size_bytes) + tar::END_BYTES <= self.content_length
    }

    /// Writes one entry.
    pub(super) async fn write_entry(
        &mut self,
        range: RangeName,
        body: &BodyBytes,
        modified_seconds: u64,
    ) -> Result<(), Failure> {
        let size_bytes = body.len() as u64;
        let entry = tar::entry_header(range, size_bytes, modified_seconds).map_err(|error| {
            let message = format!("the tar's header cannot be written: {error}");
            Failure::lasting(FailureKind::RangeInvalid, message).at(range)
        })?;
        self.write(&entry).await?;
        for piece in body.pieces() {
            self.write(piece).await?;
        }
        self.write_zeros(tar::padding_bytes(size_bytes)).await
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
        while count > 0 {
            let now = usize::try_from(count).unwrap_or(usize::MAX);
            let now = ZEROS.get(..now).unwrap_or(&ZEROS);
            self.write(now).await?;
            count -= now.len() as u64;
        }
        Ok(())
    }

    async fn send_buffer(&mut self) -> Result<(), Failure> {
        self.checksum.push(&self.buffer);
        let mut sent = 0;
        let sending = poll_fn(|context| self.poll_send(context, &mut sent));
        let broken = within(UPLOAD_STALL_TIME_MAX, sending).await;
        self.buffer.clear();
        let response = match broken {
            Some(None) => return Ok(()),
            Some(Some(Broken::Answered(response))) => response,
            Some(Some(Broken::Closed)) => self.answer().await?,
            None => return Err(self.stalled("took nothing of the body", UPLOAD_STALL_TIME_MAX)),
        };
        Err(self.early_answer(response).await)
    }

    /// The store's response, or an error in its place.
    async fn answer(&mut self) -> Result<Result<IncomingResponse, ErrorCode>, Failure> {
        let response = poll_fn(|context| self.response.poll(context));
        let response = within(UPLOAD_ANSWER_TIME_MAX, response).await;
        response.ok_or_else(|| self.stalled("did not answer", UPLOAD_ANSWER_TIME_MAX))
    }

    fn stalled(&self, what: &str, time: Duration) -> Failure {
        let message = format!("{}: the store {what} for {} s", self.tried, time.as_secs());
        Failure::passing(FailureKind::StoreTimeout, message)
    }

    fn poll_send(&mut self, context: &mut Context<'_>, sent: &mut usize) -> Poll<Option<Broken>> {
        // A store that answers before it has the body (403, 412, 503) wants no more of it.
        if let Some(response) = self.response.take() {
            return Poll::Ready(Some(Broken::Answered(response)));
        }
        let Some(stream) = &self.stream else {
            return Poll::Ready(Some(Broken::Closed));
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
                    return Poll::Ready(Some(Broken::Closed));
                }
            };
            let end = sent.saturating_add(writable).min(self.buffer.len());
            if stream.write(&self.buffer[*sent..end]).is_err() {
                return Poll::Ready(Some(Broken::Closed));
            }
            *sent = end;
        }
        Poll::Ready(None)
    }

    fn lost(&self, code: &ErrorCode) -> Failure {
        transport_failure(Peer::Store, &self.tried, code)
    }

    async fn early_answer(&self, response: Result<IncomingResponse, ErrorCode>) -> Failure {
        match response {
            Err(code) => self.lost(&code),
            Ok(response) if response.status() == 200 => Failure::passing(
                FailureKind::StoreStatus,
                format!(
                    "{} was answered 200 before the body was sent; nothing can be relied on",
                    self.tried
                ),
            ),
            Ok(response) => self.status_failure(&response).await,
        }
    }

    async fn status_failure(&self, response: &IncomingResponse) -> Failure {
        let status = response.status();
        let code = read_error_code(response).await;
        let message = refusal(&self.tried, "PUT", status, code.as_deref());
        match status {
            // A fresh job is signed for the generation that is there then.
            412 => Failure::passing(FailureKind::StorePrecondition, message),
            401 | 403 => Failure::lasting(FailureKind::StoreDenied, message),
            300..=399 => {
                let message = message + "; redirects are not followed";
                Failure::lasting(FailureKind::StoreStatus, message)
            }
            _ if is_passing_status(status) => Failure {
                retry_after_seconds: stated_retry_after(&response.headers())
                    .map(|asked| asked.as_secs()),
                ..Failure::passing(FailureKind::StoreStatus, message)
            },
            _ => Failure::lasting(FailureKind::StoreStatus, message),
        }
    }

    /// Ends the tar, fills it up to the declared length and waits for the store's verdict.
    pub(super) async fn finish(mut self) -> Result<Stored, NotStored> {
        let left = self.content_length.saturating_sub(self.tar_bytes);
        self.write_zeros(left).await?;
        self.send_buffer().await?;
        self.readiness = Readiness::new();
        self.stream = None;
        let mut sent = Stored {
            crc32c: Crc32c(self.checksum.checksum()),
            generation: None,
            etag: None,
        };
        match self.verdict(&mut sent).await {
            Ok(()) => Ok(sent),
            Err(failure) => Err(NotStored {
                failure,
                sent: Some(sent),
            }),
        }
    }

    async fn verdict(&mut self, sent: &mut Stored) -> Result<(), Failure> {
        if let Some(body) = self.body.take() {
            OutgoingBody::finish(body, None).map_err(|code| self.lost(&code))?;
        }
        let response = self.answer().await?.map_err(|code| self.lost(&code))?;
        let tried = &self.tried;
        if response.status() != 200 {
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
        match crc32c_of_goog_hash(hashes.iter().map(String::as_str)) {
            Some(stored) if stored == sent.crc32c => Ok(()),
            Some(stored) => Err(Failure::passing(
                FailureKind::StoreChecksum,
                format!(
                    "{tried} was stored with CRC32C {stored}, but what was sent has {}",
                    sent.crc32c
                ),
            )),
            None => Err(Failure::lasting(
                FailureKind::StoreChecksum,
                format!(
                    "{tried} was answered without a CRC32C in x-goog-hash; is this store GCS or compatible?"
                ),
            )),
        }
    }
}

/// Why a body takes no more bytes.
enum Broken {
    Answered(Result<IncomingResponse, ErrorCode>),
    Closed,
}

/// The `<Code>` of a store's XML error document, where it has one.
async fn read_error_code(response: &IncomingResponse) -> Option<String> {
    let text = read_text(response, STORE_ERROR_BYTES_MAX);
    let text = within(STORE_ERROR_TIME_MAX, text).await?;
    error_code(&text).map(str::to_owned)
}
