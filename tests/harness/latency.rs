//! A TCP proxy that adds network latency in both directions.

use super::source::listener;
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The most that one read returns, in bytes.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// Chunks in flight in one direction of a connection. Together they hold up to 16 MiB, so the queue
/// causes no backpressure.
const CHUNKS_MAX: usize = 256;

/// A proxy in front of one server. It accepts no more connections once dropped.
pub(crate) struct LatencyProxy {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl LatencyProxy {
    /// Starts a proxy that makes `server` appear `round_trip` away. Connecting also takes one round
    /// trip.
    pub(crate) async fn start(server: SocketAddr, round_trip: Duration) -> Self {
        let listening = listener().await;
        let address = listening.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listening.accept().await {
                tokio::spawn(async move {
                    tokio::time::sleep(round_trip).await;
                    let Ok(far) = TcpStream::connect(server).await else {
                        return;
                    };
                    // Nagle's algorithm would add a delay of its own.
                    let _ = (near.set_nodelay(true), far.set_nodelay(true));
                    let ((near_in, near_out), (far_in, far_out)) =
                        (near.into_split(), far.into_split());
                    tokio::spawn(forward(near_in, far_out, round_trip / 2));
                    forward(far_in, near_out, round_trip / 2).await;
                });
            }
        });
        Self { address, task }
    }

    /// Where the proxy listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for LatencyProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Forwards one direction of a connection, delayed by `delay`, until the sender closes it.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Bytes)>(CHUNKS_MAX);
    let writing = tokio::spawn(async move {
        while let Some((due, chunk)) = chunks.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The peer may have closed the connection already.
        let _ = to.shutdown().await;
    });
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES_MAX);
        match from.read_buf(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let due = Instant::now() + delay;
        if sender.send((due, chunk.freeze())).await.is_err() {
            break;
        }
    }
    drop(sender);
    // A failed write ends the connection too, so the result does not matter.
    let _ = writing.await;
}
