//! Shares a server's connections among its peers.
//!
//! A peer is an address. Each has a share of connections that are served. Further ones wait, and
//! those of the peer that have sent no request for a moment make room for them: silent connections
//! keep nobody out. What a peer does with its share does not concern the others.

use super::ServerLimits;
use crate::open_files;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Connections of one peer beyond its share, which wait or linger.
const WAITING_PER_PEER: usize = 8192;

/// Connections of one peer that linger at once, so that its clients see why they were refused.
const LINGERING_PER_PEER: usize = 64;

/// How long a connection may wait for a request while another one of its peer waits for its place.
const HEAD_GRACE: Duration = Duration::from_millis(100);

/// File descriptors that connections leave to the rest of the process.
const FILES_RESERVED: usize = 128;

/// The open connections of all peers.
#[derive(Debug)]
pub(super) struct Admissions {
    limits: ServerLimits,
    /// Connections of one peer that are served at once. Others may wait, so that a silent one makes room.
    share: usize,
    /// Connections of one peer, with those that wait or linger.
    per_peer_max: usize,
    /// Connections of all peers. It exceeds what a single peer can have.
    open_max: usize,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    open: usize,
    peers: HashMap<IpAddr, (usize, Arc<Peer>)>,
}

/// What the connections of one address share.
#[derive(Debug)]
struct Peer {
    share: Arc<Semaphore>,
    /// Answers of HTTP/2 connections, which have many at once. Together they may be as many as those of a share of
    /// HTTP/1.1 connections.
    answers: Arc<Semaphore>,
    lingering: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

/// The connections that wait for a request, in the order in which they began to.
#[derive(Debug, Default)]
struct Idle {
    next: u64,
    since: BTreeMap<u64, (Instant, CancellationToken)>,
}

impl Admissions {
    pub(super) fn new(limits: ServerLimits) -> Arc<Self> {
        let wanted = limits.connections_per_peer + WAITING_PER_PEER;
        let open_max = (2 * wanted).min(files_max());
        let per_peer_max = wanted.min(open_max / 4 * 3);
        Arc::new(Self {
            limits,
            share: limits.connections_per_peer.min(per_peer_max / 2),
            per_peer_max,
            open_max,
            book: Mutex::default(),
        })
    }

    /// Counts a new connection; `None` if its peer, or all peers together, have too many.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let address = peer_of(address);
        let mut book = lock(&self.book);
        if book.open >= self.open_max {
            return None;
        }
        let share = self.share;
        let (count, peer) = book.peers.entry(address).or_insert_with(|| {
            let peer = Peer {
                share: Arc::new(Semaphore::new(share)),
                answers: Arc::new(Semaphore::new(share)),
                lingering: Arc::new(Semaphore::new(LINGERING_PER_PEER)),
                idle: Mutex::default(),
            };
            (0, Arc::new(peer))
        });
        if *count >= self.per_peer_max {
            return None;
        }
        *count += 1;
        let peer = Arc::clone(peer);
        book.open += 1;
        Some(Seat {
            admissions: Arc::clone(self),
            address,
            peer,
        })
    }
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    admissions: Arc<Admissions>,
    address: IpAddr,
    peer: Arc<Peer>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut book = lock(&self.admissions.book);
        book.open -= 1;
        if let Some((count, _)) = book.peers.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                book.peers.remove(&self.address);
            }
        }
    }
}

impl Seat {
    /// Waits for a place in the peer's share; `None` if there is none in time.
    pub(super) async fn admit(&self) -> Option<OwnedSemaphorePermit> {
        let mut permit = pin!(Arc::clone(&self.peer.share).acquire_owned());
        let mut give_up = pin!(sleep(self.admissions.limits.admission_timeout));
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                biased;
                permit = &mut permit => return permit.ok(),
                () = &mut give_up => return None,
                () = sleep(pause) => pause = lock(&self.peer.idle).close_longest(),
            }
        }
    }

    /// Waits until the peer may have another answer of an HTTP/2 connection in progress.
    pub(super) async fn answer_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.peer.answers).acquire_owned().await.ok()
    }

    /// A permit to linger, if not too many connections of the peer do.
    pub(super) fn linger(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.peer.lingering).try_acquire_owned().ok()
    }

    /// Makes the connection known as one that waits for a request. `close` tells it to make room.
    pub(super) fn wait_for_request(&self, close: &CancellationToken) -> IdleKey {
        let mut idle = lock(&self.peer.idle);
        let key = idle.next;
        idle.next += 1;
        idle.since.insert(key, (Instant::now(), close.clone()));
        IdleKey(key)
    }

    /// Ends [`Self::wait_for_request`].
    pub(super) fn end_wait(&self, IdleKey(key): IdleKey) {
        lock(&self.peer.idle).since.remove(&key);
    }
}

/// A connection among those that wait for a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdleKey(u64);

impl Idle {
    /// Closes the connection that has waited longest, unless it has just begun. Returns when to ask
    /// again.
    fn close_longest(&mut self) -> Duration {
        let Some(longest) = self.since.first_entry() else {
            return HEAD_GRACE;
        };
        let waited = longest.get().0.elapsed();
        if waited < HEAD_GRACE {
            return HEAD_GRACE - waited;
        }
        let (_, close) = longest.remove();
        close.cancel();
        HEAD_GRACE
    }
}

/// Whom an address belongs to: a network of IPv6 addresses is one peer, since a client can choose
/// among them.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

/// The file descriptors that connections may take, as far as the system says.
fn files_max() -> usize {
    open_files::limit()
        .saturating_sub(FILES_RESERVED)
        .max(FILES_RESERVED)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_addresses_is_one_peer_and_an_ipv4_address_is_one() {
        let peer = |text: &str| peer_of(text.parse().expect("an address"));
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff::9"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
    }

    #[tokio::test]
    async fn a_peer_is_forgotten_when_its_last_connection_ends() {
        let admissions = Admissions::new(ServerLimits::default());
        let seat = admissions.enter([192, 0, 2, 1].into()).expect("a seat");
        let other = admissions.enter([192, 0, 2, 1].into()).expect("a seat");
        drop(seat);
        assert_eq!(lock(&admissions.book).peers.len(), 1);
        drop(other);
        let book = lock(&admissions.book);
        assert_eq!((book.open, book.peers.len()), (0, 0));
    }

    #[tokio::test]
    async fn one_peer_cannot_take_every_connection() {
        let admissions = Admissions::new(ServerLimits::default());
        let seats: Vec<Seat> =
            std::iter::from_fn(|| admissions.enter([192, 0, 2, 1].into())).collect();
        assert_eq!(seats.len(), admissions.per_peer_max);
        assert!(admissions.enter([192, 0, 2, 2].into()).is_some());
    }
}
