//! A TCP relay whose connections can die silently, when they stay open but nothing passes any more, or
//! be refused.

use super::DEADLINE;
use super::source::listener;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The most that one read returns, in bytes.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// Connections that wait to be accepted.
const BACKLOG_MAX: u32 = 1024;

/// A relay in front of one server. Dropping it closes every connection.
pub(crate) struct Relay {
    address: SocketAddr,
    traffic: Arc<Traffic>,
    task: JoinHandle<()>,
}

struct Traffic {
    accepted: AtomicUsize,
    /// Bytes in both directions.
    forwarded: watch::Sender<u64>,
    /// How often the connections were frozen.
    freezes: watch::Sender<u32>,
    /// Whether new connections are frozen from the start.
    is_outage: AtomicBool,
    /// Whether connections are refused.
    is_refusing: watch::Sender<bool>,
}

impl Relay {
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listening = listener().await;
        let address = listening.local_addr().expect("an address");
        let traffic = Arc::new(Traffic {
            accepted: AtomicUsize::new(0),
            forwarded: watch::Sender::new(0),
            freezes: watch::Sender::new(0),
            is_outage: AtomicBool::new(false),
            is_refusing: watch::Sender::new(false),
        });
        let task = tokio::spawn(accept(listening, server, Arc::clone(&traffic)));
        Self {
            address,
            traffic,
            task,
        }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Freezes all connections that exist. New ones work.
    pub(crate) fn freeze(&self) {
        self.traffic.freezes.send_modify(|freezes| *freezes += 1);
    }

    /// Freezes all connections that exist, and during an outage new ones, too.
    pub(crate) fn set_outage(&self, is_outage: bool) {
        self.traffic.is_outage.store(is_outage, Ordering::Relaxed);
        if is_outage {
            self.freeze();
        }
    }

    /// Refuses new connections and closes those that exist, or accepts again.
    pub(crate) fn set_refusing(&self, is_refusing: bool) {
        self.traffic.is_refusing.send_replace(is_refusing);
    }

    /// How many connections there have been.
    pub(crate) fn accepted(&self) -> usize {
        self.traffic.accepted.load(Ordering::Relaxed)
    }

    /// Waits until this many bytes have passed, in both directions together.
    pub(crate) async fn until_forwarded(&self, bytes: u64) {
        let mut forwarded = self.traffic.forwarded.subscribe();
        let is_reached = forwarded.wait_for(|forwarded| *forwarded >= bytes);
        tokio::time::timeout(DEADLINE, is_reached)
            .await
            .expect("in time")
            .expect("a relay");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(mut listening: TcpListener, server: SocketAddr, traffic: Arc<Traffic>) {
    let mut connections = JoinSet::new();
    let mut refusing = traffic.is_refusing.subscribe();
    loop {
        let near = tokio::select! {
            accepted = listening.accept() => match accepted {
                Ok((near, _)) => near,
                Err(_) => return,
            },
            () = until_refusing(&mut refusing, true) => {
                connections.shutdown().await;
                let refused = refuse(listening).expect("the port");
                until_refusing(&mut refusing, false).await;
                listening = refused.listen(BACKLOG_MAX).expect("the port");
                continue;
            }
        };
        let mut freezes = traffic.freezes.subscribe();
        let is_outage = traffic.is_outage.load(Ordering::Relaxed);
        traffic.accepted.fetch_add(1, Ordering::Relaxed);
        let traffic = Arc::clone(&traffic);
        connections.spawn(async move {
            let Ok(mut far) = TcpStream::connect(server).await else {
                return;
            };
            let mut near = near;
            // Nagle's algorithm would add a delay.
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            if !is_outage {
                tokio::select! {
                    // Either side has closed the connection.
                    () = relay(&mut near, &mut far, &traffic) => return,
                    _ = freezes.changed() => {}
                }
            }
            // The sockets stay open until the relay is dropped.
            std::future::pending().await
        });
    }
}

/// Waits until connections are refused, or not any more. The traffic keeps the sender.
async fn until_refusing(refusing: &mut watch::Receiver<bool>, is_refusing: bool) {
    let changed = refusing.wait_for(|current| *current == is_refusing);
    changed.await.expect("a relay");
}

/// Stops listening. A socket that is bound but does not listen keeps the port from others, and the
/// system refuses its connections.
fn refuse(listening: TcpListener) -> io::Result<TcpSocket> {
    let address = listening.local_addr()?;
    drop(listening);
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Relays both directions until either ends.
async fn relay(near: &mut TcpStream, far: &mut TcpStream, traffic: &Traffic) {
    let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
    // A connection that was reset ends like one that was closed.
    let _ = tokio::try_join!(
        forward(near_in, far_out, traffic),
        forward(far_in, near_out, traffic)
    );
}

async fn forward(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    traffic: &Traffic,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES_MAX];
    loop {
        let bytes = from.read(&mut chunk).await?;
        if bytes == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..bytes]).await?;
        let bytes = u64::try_from(bytes).expect("a chunk's length");
        traffic
            .forwarded
            .send_modify(|forwarded| *forwarded += bytes);
    }
}
