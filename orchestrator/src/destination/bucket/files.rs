//! The archive in a bucket, read as streams by threads that may wait, for `verify`.
//! What is looked for in it is left to `verify`.

use super::BucketDestination;
use crate::verify::ArchiveFiles;
use bytes::{Buf as _, Bytes};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::io::{self, Read};
use std::time::Duration;
use tokio::runtime::Handle;

/// How long the next piece of an object is waited for.
const PIECE_TIME_MAX: Duration = Duration::from_secs(60);

/// An archive in a bucket. Not to be used by a task: it waits.
#[derive(Debug)]
pub struct BucketFiles {
    destination: BucketDestination,
    runtime: Handle,
}

impl BucketFiles {
    /// The archive at a destination, whose requests are made by `runtime`.
    pub const fn new(destination: BucketDestination, runtime: Handle) -> Self {
        Self {
            destination,
            runtime,
        }
    }
}

impl ArchiveFiles for BucketFiles {
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Read>>> {
        let object = self.destination.to.object(name);
        let opened = self
            .runtime
            .block_on(self.destination.requests.open(&object))
            .map_err(|error| io::Error::other(format!("{error:#}")))?;
        match opened {
            Ok(body) => Ok(Some(Box::new(ObjectReader {
                body,
                piece: Bytes::new(),
                runtime: self.runtime.clone(),
            }))),
            Err(answer) if answer.status == StatusCode::NOT_FOUND => Ok(None),
            Err(answer) => Err(io::Error::other(answer.unexpected().to_string())),
        }
    }

    fn has(&self, name: &str) -> bool {
        let asked = self.destination.ask(Method::HEAD, name);
        self.runtime
            .block_on(asked)
            .is_ok_and(|answer| answer.is_some())
    }
}

/// The bytes of an object as they come.
struct ObjectReader {
    body: Incoming,
    piece: Bytes,
    runtime: Handle,
}

impl Read for ObjectReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let body = &mut self.body;
            let next = async { tokio::time::timeout(PIECE_TIME_MAX, body.frame()).await };
            match self.runtime.block_on(next) {
                Err(_) => return Err(io::Error::from(io::ErrorKind::TimedOut)),
                Ok(None) => return Ok(0),
                Ok(Some(Err(error))) => return Err(io::Error::other(error)),
                Ok(Some(Ok(frame))) => self.piece = frame.into_data().unwrap_or_default(),
            }
        }
        let bytes = self.piece.len().min(into.len());
        self.piece.copy_to_slice(&mut into[..bytes]);
        Ok(bytes)
    }
}
