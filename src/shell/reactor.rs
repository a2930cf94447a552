//! The loop that waits: polls one future, and sleeps on every pollable that it waits for.
//! What is waited for is left to the futures.
//!
//! The SDK's own executor takes no notice of a wake that comes from within (a body given back to the pool
//! wakes a range that waits for memory), and makes a new pollable for every wait.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use wasi::io::poll::{Pollable, poll};

/// One place in the list of what is waited for.
enum Slot {
    Vacant,
    Waiting { pollable: Pollable, waker: Waker },
    Ready,
}

thread_local! {
    /// One invocation has one thread and one loop. The list is as long as the window and a few more.
    static SLOTS: RefCell<Vec<Slot>> = const { RefCell::new(Vec::new()) };
}

/// A wait for one pollable at a time. It must be dropped before the resource that the pollable belongs to:
/// make it the field before it.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    slot: Option<usize>,
}

impl Readiness {
    pub(super) const fn new() -> Self {
        Self { slot: None }
    }

    /// Ready once the pollable was; `subscribe` is asked for one only when none is being waited for.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        subscribe: impl FnOnce() -> Pollable,
    ) -> Poll<()> {
        SLOTS.with_borrow_mut(|slots| match self.slot {
            Some(slot) => match slots.get_mut(slot) {
                Some(Slot::Waiting { waker, .. }) => {
                    waker.clone_from(context.waker());
                    Poll::Pending
                }
                _ => {
                    self.slot = None;
                    vacate(slots, slot);
                    Poll::Ready(())
                }
            },
            None => {
                let waiting = Slot::Waiting {
                    pollable: subscribe(),
                    waker: context.waker().clone(),
                };
                self.slot = Some(occupy(slots, waiting));
                Poll::Pending
            }
        })
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            SLOTS.with_borrow_mut(|slots| vacate(slots, slot));
        }
    }
}

fn occupy(slots: &mut Vec<Slot>, waiting: Slot) -> usize {
    match slots.iter().position(|slot| matches!(slot, Slot::Vacant)) {
        Some(vacant) => {
            slots[vacant] = waiting;
            vacant
        }
        None => {
            slots.push(waiting);
            slots.len() - 1
        }
    }
}

fn vacate(slots: &mut [Slot], slot: usize) {
    if let Some(slot) = slots.get_mut(slot) {
        *slot = Slot::Vacant;
    }
}

/// Set by every wake, so that a wake from within is not slept through.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a future to its end.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        woken.0.store(false, Ordering::Relaxed);
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        if !woken.0.load(Ordering::Relaxed) {
            wait();
        }
    }
}

/// Sleeps until at least one of the pollables is ready, then wakes who waits for it.
fn wait() {
    let wakers = SLOTS.with_borrow_mut(|slots| {
        let mut waiting = Vec::with_capacity(slots.len());
        let mut pollables = Vec::with_capacity(slots.len());
        for (index, slot) in slots.iter().enumerate() {
            if let Slot::Waiting { pollable, .. } = slot {
                waiting.push(index);
                pollables.push(pollable);
            }
        }
        assert!(
            !pollables.is_empty(),
            "the invocation waits for something that nobody will wake it for"
        );
        let ready = poll(&pollables);
        drop(pollables);
        let mut wakers = Vec::with_capacity(ready.len());
        for index in ready {
            let slot = usize::try_from(index)
                .ok()
                .and_then(|index| waiting.get(index))
                .and_then(|slot| slots.get_mut(*slot));
            if let Some(slot) = slot
                && let Slot::Waiting { waker, .. } = std::mem::replace(slot, Slot::Ready)
            {
                wakers.push(waker);
            }
        }
        wakers
    });
    for waker in wakers {
        waker.wake();
    }
}
