//! One process: it drives the real [`Transaction`] as a run does, against the store in memory.

use super::super::{Admission, Opening, Request, Transaction};
use super::turnstile::{CLOCK, Turn, Turnstile};
use crate::archive::Archive as _;
use crate::destination::Destination;
use crate::run::memory_store::{Files, Gate, Lost, MemoryStore, report};
use crate::run::outcome::StoredPrefix;
use crate::run::plan::PrefixSet;
use futures::task::noop_waker_ref;
use jiff::Timestamp;
use prefix_tar::protocol::failure::{Failure, FailureKind};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use tokio_util::sync::CancellationToken;

/// The source that every process mirrors.
pub(super) const SOURCE: &str = "http://127.0.0.1:8080";

/// Attempts of a process at one prefix.
const ATTEMPTS_MAX: u32 = 4;

/// The command that a process executes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    pub(super) prefixes: &'static str,
    pub(super) force: bool,
    /// Distinguishes the runs that processes begin.
    pub(super) random: u32,
}

impl Command {
    pub(super) const fn plain(prefixes: &'static str, random: u32) -> Self {
        Self {
            prefixes,
            force: false,
            random,
        }
    }

    pub(super) const fn forced(prefixes: &'static str, random: u32) -> Self {
        Self {
            force: true,
            ..Self::plain(prefixes, random)
        }
    }

    pub(super) fn prefix_set(&self) -> PrefixSet {
        self.prefixes.parse().expect("prefixes")
    }
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum End {
    /// Exit code 0.
    Done,
    /// Another exit code.
    Failed,
}

/// A process. It runs only when it is polled.
pub(super) struct Process {
    turnstile: Arc<Turnstile>,
    future: Option<Pin<Box<dyn Future<Output = End>>>>,
    /// How it ended, if it has.
    pub(super) end: Option<End>,
}

impl Process {
    /// Starts a process and lets it run up to its first operation on the store.
    pub(super) fn start(files: &Arc<Mutex<Files>>, command: Command) -> Self {
        let turnstile = Arc::<Turnstile>::default();
        let gate: Arc<dyn Gate> = Arc::<Turnstile>::clone(&turnstile);
        let store = Arc::new(MemoryStore::new(Arc::clone(files), gate));
        let mut process = Self {
            turnstile,
            future: Some(Box::pin(run(store, command))),
            end: None,
        };
        process.poll();
        process
    }

    pub(super) fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turnstile.turn()
    }

    /// Runs up to the next operation on the store.
    pub(super) fn poll(&mut self) {
        let Some(future) = &mut self.future else {
            return;
        };
        let mut context = Context::from_waker(noop_waker_ref());
        if let Poll::Ready(end) = future.as_mut().poll(&mut context) {
            self.future = None;
            self.end = Some(end);
        }
    }

    /// Dies between two operations.
    pub(super) fn crash(&mut self) {
        self.future = None;
        self.end = Some(End::Failed);
    }
}

/// The model's date.
pub(super) fn now() -> Timestamp {
    "2026-11-25T03:17:00Z".parse().expect("a time")
}

/// Opens the transaction, stores every prefix and writes the manifest.
async fn run(store: Arc<MemoryStore>, command: Command) -> End {
    let prefixes = command.prefix_set();
    let mut request = Request {
        source: SOURCE,
        mode: Mode::Sha1,
        prefixes: &prefixes,
        force: command.force,
        now: now(),
        random: command.random,
    };
    let shutdown = CancellationToken::new();
    let opening = loop {
        let destination: Arc<dyn Destination> = Arc::<MemoryStore>::clone(&store);
        match Transaction::open(destination, request, &shutdown).await {
            Ok(Opening::Wait { until }) => {
                store.generation(CLOCK).await.expect("answered");
                request.now = until;
            }
            Ok(opening) => break opening,
            Err(_) => return End::Failed,
        }
    };
    let (transaction, mut stored) = match opening {
        Opening::Complete(_) => return End::Done,
        Opening::Begun {
            transaction,
            stored,
        } => (transaction, stored),
        Opening::Stopped | Opening::Wait { .. } => return End::Failed,
    };
    let done: Vec<Prefix> = stored.iter().map(|stored| stored.prefix).collect();
    for prefix in prefixes.iter().filter(|prefix| !done.contains(prefix)) {
        match store_prefix(&store, &transaction, prefix).await {
            Some(report) => stored.push(StoredPrefix::new(&report, 1)),
            None => return End::Failed,
        }
    }
    let stored: Vec<&StoredPrefix> = stored.iter().collect();
    match transaction.finish(&stored, "then").await {
        Ok(_) => End::Done,
        Err(_) => End::Failed,
    }
}

/// Uploads one prefix as the dispatcher does. Returns its report, or `None` if the run cannot continue.
async fn store_prefix(
    store: &MemoryStore,
    transaction: &Transaction,
    prefix: Prefix,
) -> Option<Report> {
    let tar = format!("{prefix} of {}", transaction.run());
    for _ in 0..ATTEMPTS_MAX {
        let upload = match transaction.admit(prefix).await.ok()? {
            Admission::Stored(report) => return Some(*report),
            Admission::Upload(upload) => upload,
        };
        match store.upload(prefix, &upload, &tar, SOURCE).await {
            Ok(Some(report)) => return transaction.commit(prefix, report, false).await.ok(),
            Ok(None) | Err(Lost::Expired) => {}
            Err(Lost::Answer) => {
                let sent = report(prefix, SOURCE, &tar);
                let mut failure = Failure::transient(FailureKind::StoreUnreachable, "lost");
                let settled = transaction.settle(prefix, &sent, &mut failure).await;
                if let Ok(Some(report)) = settled {
                    return Some(report);
                }
            }
        }
    }
    None
}
