//! The server's end of a connection: it gives up on a peer that does not read, and closes in a way
//! that lets the peer see the last answer.

use super::ServerLimits;
use super::connection::Connection;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

/// The most that is read from a peer after the last answer, in bytes.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The size of one of these reads, in bytes.
const LINGER_READ_BYTES: usize = 16 * 1024;

/// A connection as the HTTP server reads and writes it.
#[derive(Debug)]
pub(super) struct ServedStream {
    stream: TcpStream,
    connection: Arc<Connection>,
    limits: ServerLimits,
    /// The connection's place in its peer's share. It is free for another one when this one closes.
    place: Option<OwnedSemaphorePermit>,
    /// Runs while the peer takes nothing of what is to be written.
    stall: Option<Pin<Box<Sleep>>>,
    linger: Option<Linger>,
    is_shut: bool,
    /// The server stops. It does not wait for peers then.
    stop: CancellationToken,
}

/// Reads on after the last answer. A socket that is closed with unread data is reset, and a peer
/// that is still sending might not see the answer.
#[derive(Debug)]
struct Linger {
    end: Pin<Box<Sleep>>,
    bytes_left: usize,
    _permit: OwnedSemaphorePermit,
}

impl ServedStream {
    pub(super) const fn new(
        stream: TcpStream,
        connection: Arc<Connection>,
        place: OwnedSemaphorePermit,
        limits: ServerLimits,
        stop: CancellationToken,
    ) -> Self {
        Self {
            stream,
            connection,
            limits,
            place: Some(place),
            stall: None,
            linger: None,
            is_shut: false,
            stop,
        }
    }

    /// Fails a write that has been pending for too long.
    fn limit_stall<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let stall_max = self.limits.write_stall_max;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(stall_max)));
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(linger) = &mut self.linger else {
            return Poll::Ready(());
        };
        let mut bytes = [0; LINGER_READ_BYTES];
        loop {
            if linger.end.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
            let read_bytes = buffer.filled().len();
            match linger.bytes_left.checked_sub(read_bytes) {
                Some(left) if read.is_ok() && read_bytes > 0 => linger.bytes_left = left,
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl AsyncRead for ServedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ServedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.limit_stall(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.limit_stall(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.is_shut = true;
            self.place = None;
            let permit = self
                .connection
                .leave()
                .filter(|_| !self.stop.is_cancelled());
            let time_max = self.limits.linger_max;
            self.linger = permit.map(|permit| Linger {
                end: Box::pin(sleep(time_max)),
                bytes_left: LINGER_BYTES_MAX,
                _permit: permit,
            });
        }
        self.poll_linger(context).map(Ok)
    }
}
