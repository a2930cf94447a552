//! Distance: what is sent to an address arrives later, in both directions, as over a network of that round trip.

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

/// What is read at once, in bytes.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Pieces of a connection on their way in one direction: 16 MiB, which holds nobody up.
const PIECES_MAX: usize = 256;

/// A distance to a server.
pub(crate) struct Distant {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Distant {
    /// A server that answers this much later than it does. A connection, too, takes a round trip.
    pub(crate) async fn to(server: SocketAddr, round_trip: Duration) -> Self {
        let listening = listener().await;
        let address = listening.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listening.accept().await {
                tokio::spawn(async move {
                    tokio::time::sleep(round_trip).await;
                    let Ok(far) = TcpStream::connect(server).await else {
                        return;
                    };
                    // Small pieces are not to wait for each other on top.
                    let _ = (near.set_nodelay(true), far.set_nodelay(true));
                    let ((near_in, near_out), (far_in, far_out)) =
                        (near.into_split(), far.into_split());
                    tokio::spawn(carry(near_in, far_out, round_trip / 2));
                    carry(far_in, near_out, round_trip / 2).await;
                });
            }
        });
        Self { address, task }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Distant {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries one direction of a connection until it ends.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Bytes)>(PIECES_MAX);
    let written = tokio::spawn(async move {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // Who has gone away needs no end.
        let _ = to.shutdown().await;
    });
    loop {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES_MAX);
        match from.read_buf(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let due = Instant::now() + delay;
        if sender.send((due, piece.freeze())).await.is_err() {
            break;
        }
    }
    drop(sender);
    // It has ended whichever way it did.
    let _ = written.await;
}
