//! The gate of one process: its operations on the store wait here until the search lets them pass.

use crate::run::memory_store::{Fate, Gate, Operation};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};
use std::task::{Poll, Waker};

/// The wait for an unfinished run's uploads is an operation on this file.
pub(super) const CLOCK: &str = "the clock";

/// Beginnings of the names of the files whose order of access matters.
const SHARED: [&str; 5] = ["00.", "01.", "run.", "manifest.", CLOCK];

/// Where a process is: the answers it has received, and the operations that it waits to perform.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// The hash of all answers so far. It decides what the process does next.
    pub(super) history: u64,
    /// The operations that are waiting. Concurrent ones pass in this order.
    waiting: VecDeque<(u64, Operation)>,
    tickets: u64,
    /// The ticket that may pass, and the fate of its operation.
    granted: Option<(u64, Fate)>,
    wakers: Vec<Waker>,
    /// The model's time at which the process last signed a URL for each file.
    pub(super) signed_at: BTreeMap<String, u64>,
}

impl Turn {
    /// The operation that is next to pass.
    pub(super) fn pending(&self) -> Option<&Operation> {
        self.waiting.front().map(|(_, operation)| operation)
    }

    /// Lets the pending operation pass when its process is next polled.
    pub(super) fn grant(&mut self, fate: Fate) {
        let (ticket, _) = self.waiting.front().expect("a pending operation");
        self.granted = Some((*ticket, fate));
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}

/// The gate of one process.
#[derive(Default)]
pub(super) struct Turnstile(Mutex<Turn>);

impl Turnstile {
    pub(super) fn turn(&self) -> MutexGuard<'_, Turn> {
        self.0.lock().expect("not poisoned")
    }
}

impl Gate for Turnstile {
    fn pass(&self, operation: Operation) -> Pin<Box<dyn Future<Output = Fate> + Send + '_>> {
        // Nobody writes to other prefixes, so it does not matter when they are read.
        if let Operation::Read(file) = &operation
            && !SHARED.iter().any(|shared| file.starts_with(shared))
        {
            return Box::pin(std::future::ready(Fate::Answered));
        }
        let ticket = {
            let mut turn = self.turn();
            turn.tickets += 1;
            let ticket = turn.tickets;
            turn.waiting.push_back((ticket, operation));
            ticket
        };
        Box::pin(std::future::poll_fn(move |context| {
            let mut turn = self.turn();
            match turn.granted {
                Some((granted, fate)) if granted == ticket => {
                    turn.granted = None;
                    turn.waiting.pop_front();
                    Poll::Ready(fate)
                }
                _ => {
                    turn.wakers.push(context.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }

    fn note(&self, answer: u64) {
        let mut turn = self.turn();
        let mut hasher = DefaultHasher::new();
        (turn.history, answer).hash(&mut hasher);
        turn.history = hasher.finish();
    }
}
