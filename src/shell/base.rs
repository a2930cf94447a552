//! Reads the base, an earlier tar of the prefix: first its report, later its entries, in order.
//!
//! Nothing here fails the invocation. A base that is gone or damaged is a reason to fetch the ranges from the source.

use super::heap;
use super::incoming::BodyReader;
use super::outgoing::{
    Peer, PendingResponse, Target, Timeouts, header, request, transport_failure,
};
use super::reactor::{Instant, Sleep};
use crate::engine::base::{BaseEntry, BaseIndex};
use crate::engine::retry::Backoff;
use crate::engine::tar;
use crate::limits::{
    BASE_ATTEMPTS_MAX, BASE_ENTRY_BYTES_MAX, BETWEEN_BYTES_TIMEOUT, CONNECT_TIMEOUT,
    FIRST_BYTE_TIMEOUT, RANGE_FIRST_WAIT_MAX, RANGE_WAIT_MAX, READ_BYTES_MAX, REPORT_BYTES_MAX,
};
use crate::protocol::failure::{Failure, FailureKind};
use crate::protocol::job::{self, Download};
use crate::protocol::mode::Mode;
use crate::protocol::phase::Phase;
use crate::protocol::prefix::{Prefix, RangeName};
use crate::protocol::store_answer::is_transient_status;
use std::future::poll_fn;
use std::rc::Rc;
use wasi::http::outgoing_handler;
use wasi::http::types::{ErrorCode, Fields, IncomingBody, IncomingResponse, Method};

const TIMEOUTS: Timeouts = Timeouts {
    connect: CONNECT_TIMEOUT,
    first_byte: FIRST_BYTE_TIMEOUT,
    between_bytes: BETWEEN_BYTES_TIMEOUT,
};

/// The base of one invocation.
pub(super) struct Base<'job> {
    index: Rc<BaseIndex>,
    prefix: Prefix,
    tar: FileStream<'job>,
    /// The index of the entry that the stream is at.
    next_index: u16,
    /// The data of the entry that was read last.
    data: Vec<u8>,
}

impl<'job> Base<'job> {
    /// Reads the base's report. The tar is opened when its first entry is wanted.
    ///
    /// # Errors
    /// Why the base cannot be used.
    pub(super) async fn open(
        files: &'job job::Base,
        prefix: Prefix,
        mode: Mode,
        source: &str,
    ) -> Result<Self, String> {
        let text = FileStream::new(&files.report).read_whole().await;
        let text = text.map_err(|failure| failure.message)?;
        let index = BaseIndex::from_report(&text, prefix, mode, source)
            .map_err(|fault| format!("the base's {prefix}.json cannot be used: {fault}"))?;
        Ok(Self {
            index: Rc::new(index),
            prefix,
            tar: FileStream::new(&files.tar),
            next_index: 0,
            data: Vec::new(),
        })
    }

    pub(super) const fn index(&self) -> &Rc<BaseIndex> {
        &self.index
    }

    /// The data of the entry that was read last.
    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }

    /// Reads the entry of a range and checks it. Entries before it are skipped.
    ///
    /// # Errors
    /// Why the base cannot be used any more.
    pub(super) async fn read(&mut self, range: RangeName) -> Result<BaseEntry, String> {
        while self.next_index < range.index() {
            let skipped = self.index.size_bytes(self.prefix.range(self.next_index));
            let skipped = self.tar.skip(tar::entry_bytes(u64::from(skipped)));
            skipped.await.map_err(|failure| failure.message)?;
            self.next_index += 1;
        }
        let size_bytes = self.index.size_bytes(range) as usize;
        let entry = self.read_entry(size_bytes);
        let header = entry.await.map_err(|failure| failure.message)?;
        self.next_index = range.index() + 1;
        let checked = heap::within(Phase::Check, || {
            self.index.check(range, &header, &self.data)
        });
        checked.map_err(|fault| format!("range {range} of {} is damaged: {fault}", self.tar.name()))
    }

    /// Reads an entry of so much data; returns its header.
    async fn read_entry(&mut self, size_bytes: usize) -> Result<[u8; tar::BLOCK_BYTES], Failure> {
        let mut header = Vec::with_capacity(tar::BLOCK_BYTES);
        self.tar.take(tar::BLOCK_BYTES, &mut header).await?;
        self.data.clear();
        // A report with a larger size is not valid.
        let size_bytes = size_bytes.min(BASE_ENTRY_BYTES_MAX);
        self.tar.take(size_bytes, &mut self.data).await?;
        self.tar.skip(tar::padding_bytes(size_bytes as u64)).await?;
        let header = header.first_chunk().copied();
        Ok(header.unwrap_or([0; tar::BLOCK_BYTES]))
    }
}

/// A response being read. Fields drop in this order: WASI requires each to be dropped before its parent.
struct OpenFile {
    reader: BodyReader<IncomingBody>,
    _response: IncomingResponse,
}

/// A file in the store as a stream. If it breaks off, it is requested again from there on.
struct FileStream<'job> {
    file: &'job Download,
    open: Option<OpenFile>,
    /// Bytes received so far.
    received_bytes: u64,
    /// The piece that was received last, and how much of it was taken.
    piece: Vec<u8>,
    taken_bytes: usize,
    waits: Backoff,
}

impl<'job> FileStream<'job> {
    fn new(file: &'job Download) -> Self {
        Self {
            file,
            open: None,
            received_bytes: 0,
            piece: Vec::new(),
            taken_bytes: 0,
            waits: Backoff::new(
                fastrand::Rng::new(),
                BASE_ATTEMPTS_MAX,
                RANGE_FIRST_WAIT_MAX,
                RANGE_WAIT_MAX,
            ),
        }
    }

    /// The file, as messages name it. Its path means nothing to a user if the store is a folder's.
    fn name(&self) -> String {
        let file = self.file.url.path().rsplit('/').next();
        format!("the base's {}", file.unwrap_or_default())
    }

    /// What each failure message begins with.
    fn operation(&self) -> String {
        format!("GET of {}", self.name())
    }

    /// Reads a file of at most [`REPORT_BYTES_MAX`].
    async fn read_whole(mut self) -> Result<Vec<u8>, Failure> {
        let mut content = Vec::new();
        while self.receive().await? {
            if content.len() + self.piece.len() > REPORT_BYTES_MAX {
                let message = format!(
                    "{} returned more than {REPORT_BYTES_MAX} bytes, the limit for a report",
                    self.operation()
                );
                return Err(Failure::permanent(FailureKind::StoreStatus, message));
            }
            content.append(&mut self.piece);
        }
        Ok(content)
    }

    /// Appends the next `bytes` bytes to `into`.
    async fn take(&mut self, mut bytes: usize, into: &mut Vec<u8>) -> Result<(), Failure> {
        into.reserve_exact(bytes);
        while bytes > 0 {
            let piece = self.available().await?;
            let now = piece.get(..bytes).unwrap_or(piece);
            into.extend_from_slice(now);
            let taken = now.len();
            self.taken_bytes += taken;
            bytes -= taken;
        }
        Ok(())
    }

    async fn skip(&mut self, mut bytes: u64) -> Result<(), Failure> {
        while bytes > 0 {
            let available = self.available().await?.len();
            let now = usize::try_from(bytes).unwrap_or(usize::MAX).min(available);
            self.taken_bytes += now;
            bytes -= now as u64;
        }
        Ok(())
    }

    /// The bytes that have been received and not taken: at least one.
    async fn available(&mut self) -> Result<&[u8], Failure> {
        if self.taken_bytes == self.piece.len() && !self.receive().await? {
            let message = format!(
                "{} ended after {} bytes, too early",
                self.operation(),
                self.received_bytes
            );
            return Err(Failure::permanent(FailureKind::StoreStatus, message));
        }
        Ok(self.piece.get(self.taken_bytes..).unwrap_or_default())
    }

    /// Receives the next piece; `false` at the end.
    async fn receive(&mut self) -> Result<bool, Failure> {
        loop {
            let failure = match self.attempt().await {
                Ok(piece) => {
                    let piece = piece.unwrap_or_default();
                    self.received_bytes += piece.len() as u64;
                    self.piece = piece;
                    self.taken_bytes = 0;
                    return Ok(!self.piece.is_empty());
                }
                Err(failure) => failure,
            };
            self.open = None;
            match self.waits.next().filter(|_| failure.retryable) {
                Some(wait) => Sleep::until(Instant::now().after(wait)).await,
                None => return Err(failure),
            }
        }
    }

    /// Reads from the response, after requesting it if there is none.
    async fn attempt(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        if self.open.is_none() {
            self.open = Some(self.request().await?);
        }
        let read = match &mut self.open {
            Some(open) => open.reader.read(READ_BYTES_MAX).await,
            None => Ok(None),
        };
        read.map_err(|code| self.transport_failure(&code))
    }

    /// Requests the file from the first byte on that has not been received.
    async fn request(&self) -> Result<OpenFile, Failure> {
        let url = &self.file.url;
        let from = self.received_bytes;
        let mut headers: Vec<(String, Vec<u8>)> = (self.file.headers.iter())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_bytes().to_vec()))
            .collect();
        if from > 0 {
            headers.push(("range".to_owned(), format!("bytes={from}-").into_bytes()));
        }
        let malformed = || self.transport_failure(&ErrorCode::HttpRequestUriInvalid);
        let headers = Fields::from_list(&headers).map_err(|_| malformed())?;
        let target = Target {
            is_https: url.is_https(),
            authority: url.authority().as_str(),
            path_and_query: url.expose_path_and_query(),
        };
        let request = request(&Method::Get, &target, headers).ok_or_else(malformed)?;
        let sent = outgoing_handler::handle(request, Some(TIMEOUTS.to_options()))
            .map_err(|code| self.transport_failure(&code))?;
        let mut pending = PendingResponse::new(sent);
        let response = poll_fn(|context| pending.poll(context))
            .await
            .map_err(|code| self.transport_failure(&code))?;
        self.check_answer(&response, from)?;
        let reader = BodyReader::of_response(&response)
            .ok_or_else(|| self.transport_failure(&ErrorCode::HttpResponseIncomplete))?;
        Ok(OpenFile {
            reader,
            _response: response,
        })
    }

    /// Checks that a response carries the file from byte `from` on.
    fn check_answer(&self, response: &IncomingResponse, from: u64) -> Result<(), Failure> {
        let status = response.status();
        let begins_there = || {
            let content_range = header(&response.headers(), "content-range");
            content_range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
        };
        let is_expected = match from {
            0 => status == 200,
            _ => status == 206 && begins_there(),
        };
        if is_expected {
            return Ok(());
        }
        let message = format!("{} was answered {status}", self.operation());
        let failure = match is_transient_status(status) {
            true => Failure::transient(FailureKind::StoreStatus, message),
            false => Failure::permanent(FailureKind::StoreStatus, message),
        };
        Err(failure.with_status(status))
    }

    fn transport_failure(&self, code: &ErrorCode) -> Failure {
        transport_failure(Peer::Store, &self.operation(), code)
    }
}
