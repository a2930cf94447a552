//! [`Download`]: a tar in a bucket as a blocking reader. After a lost connection, it resumes at the
//! byte that it reached, as long as the object is the same.

use super::{stored_length, text};
use crate::archive::Replaced;
use crate::gcs::client::{BucketClient, RequestError};
use bytes::{Buf as _, Bytes};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prefix_tar::engine::retry::Backoff;
use std::error::Error as _;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// How long a download waits, and how often it resumes.
#[derive(Clone, Copy, Debug)]
pub(super) struct DownloadSettings {
    /// Connections for one tar. Each is opened with attempts of its own.
    pub(super) connections_max: u32,
    /// The longest wait before the second connection. It doubles with each.
    pub(super) first_wait_max: Duration,
    /// The longest wait before any connection.
    pub(super) wait_max: Duration,
    /// The longest wait for the next piece of the tar.
    pub(super) idle_timeout: Duration,
}

impl Default for DownloadSettings {
    fn default() -> Self {
        Self {
            connections_max: 6,
            first_wait_max: Duration::from_millis(250),
            wait_max: Duration::from_secs(8),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// A tar as a blocking reader. Its thread must not be one of the runtime's.
pub(super) struct Download {
    client: Arc<BucketClient>,
    file: String,
    runtime: Handle,
    settings: DownloadSettings,
    waits: Backoff,
    body: Incoming,
    /// The unread rest of the latest piece.
    piece: Bytes,
    /// Bytes that have arrived.
    received: u64,
    /// The object's length, if the store states it.
    length: Option<u64>,
    /// Identifies the object's version.
    version: Option<String>,
}

impl Download {
    /// Opens a file. Returns `None` if there is none.
    ///
    /// # Errors
    /// The request failed or was refused.
    pub(super) async fn open(
        client: Arc<BucketClient>,
        file: String,
        settings: DownloadSettings,
    ) -> Result<Option<Self>, RequestError> {
        let opened = client.stream(&file, 0).await?;
        Ok(opened.map(|opened| Self {
            client,
            file,
            runtime: Handle::current(),
            settings,
            waits: Backoff::new(
                fastrand::Rng::new(),
                settings.connections_max,
                settings.first_wait_max,
                settings.wait_max,
            ),
            piece: Bytes::new(),
            received: 0,
            length: stored_length(&opened.headers),
            version: version(&opened.headers),
            body: opened.body,
        }))
    }

    /// The next piece. Returns `None` at the end.
    async fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let idle_timeout = self.settings.idle_timeout;
            let lost = match tokio::time::timeout(idle_timeout, self.body.frame()).await {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => {
                        self.received += piece.len() as u64;
                        return Ok(Some(piece));
                    }
                    // Trailers contain no data.
                    Err(_) => continue,
                },
                Ok(None) if self.length.is_none() => return Ok(None),
                Ok(None) => "the answer ended early".to_owned(),
                Ok(Some(Err(error))) => {
                    let cause = error.source().map(ToString::to_string);
                    cause.unwrap_or_else(|| error.to_string())
                }
                Err(_) => format!("idle for {idle_timeout:?}"),
            };
            if self.length.is_some_and(|length| self.received >= length) {
                return Ok(None);
            }
            self.resume(&lost).await?;
        }
    }

    /// Requests the rest of the file.
    async fn resume(&mut self, lost: &str) -> io::Result<()> {
        let (file, received) = (&self.file, self.received);
        let Some(wait) = self.waits.next() else {
            let connections = self.settings.connections_max;
            return Err(io::Error::other(format!(
                "{connections} connections were lost, the last after {received} bytes: {lost}"
            )));
        };
        tracing::debug!(file, received, lost, "resuming a download");
        tokio::time::sleep(wait).await;
        match self.client.stream(file, received).await {
            Ok(Some(opened)) if version(&opened.headers) == self.version => {
                self.body = opened.body;
                Ok(())
            }
            Ok(_) => Err(io::Error::other(Replaced)),
            // The object is shorter than it was.
            Err(RequestError::Refused { status, .. })
                if status == StatusCode::RANGE_NOT_SATISFIABLE =>
            {
                Err(io::Error::other(Replaced))
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

/// Identifies an object's version: its generation, or its ETag if the store has no generations.
fn version(headers: &HeaderMap) -> Option<String> {
    let version = text(headers, "x-goog-generation").or_else(|| text(headers, "etag"));
    version.map(str::to_owned)
}

impl Read for Download {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let runtime = self.runtime.clone();
        while self.piece.is_empty() {
            match runtime.block_on(self.next_piece())? {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let bytes = self.piece.len().min(into.len());
        let (filled, _) = into.split_at_mut(bytes);
        self.piece.copy_to_slice(filled);
        Ok(bytes)
    }
}
