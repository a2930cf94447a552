//! Runs one future to completion: polls it, and sleeps until a pollable is ready or a timer is due.
//!
//! The SDK's executor misses a wake from inside the guest, such as memory returned to the pool that
//! another range waits for. It also creates a new pollable for every wait.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use wasi::clocks::monotonic_clock;
use wasi::io::poll::{Pollable, poll};

/// Timers are rounded up to a multiple of this, so that one pollable serves many of them.
const TIMER_GRAIN_NANOSECONDS: u64 = 20_000_000;

/// A place in the list of pollables.
enum Slot {
    Vacant,
    Waiting { pollable: Pollable, waker: Waker },
    Ready,
}

thread_local! {
    /// An invocation has one thread and one loop. The list is slightly longer than the window.
    static SLOTS: RefCell<Vec<Slot>> = const { RefCell::new(Vec::new()) };

    /// The timers. The list is slightly longer than the window.
    static TIMERS: RefCell<Timers> = const { RefCell::new(Timers::new()) };
}

/// A point in time, in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instant(u64);

impl Instant {
    /// The current time.
    pub(super) fn now() -> Self {
        Self(monotonic_clock::now())
    }

    /// This time plus `duration`.
    pub(super) fn after(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }

    /// The time since `earlier`; zero if `earlier` is later.
    pub(super) const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    const fn rounded_up(self) -> Self {
        Self(
            self.0
                .div_ceil(TIMER_GRAIN_NANOSECONDS)
                .saturating_mul(TIMER_GRAIN_NANOSECONDS),
        )
    }
}

struct Timer {
    id: u64,
    at: Instant,
    waker: Waker,
}

struct Timers {
    next_id: u64,
    waiting: Vec<Timer>,
    /// The earliest timer and its pollable, kept until another timer is the earliest.
    earliest: Option<(Instant, Pollable)>,
}

impl Timers {
    const fn new() -> Self {
        Self {
            next_id: 0,
            waiting: Vec::new(),
            earliest: None,
        }
    }

    fn prepare_earliest(&mut self) {
        let earliest = self.waiting.iter().map(|timer| timer.at).min();
        match earliest {
            None => self.earliest = None,
            Some(at) if self.earliest.as_ref().is_none_or(|(known, _)| *known != at) => {
                self.earliest = Some((at, monotonic_clock::subscribe_instant(at.0)));
            }
            Some(_) => {}
        }
    }

    /// Removes the timers that are due and collects their wakers.
    fn take_due(&mut self, wakers: &mut Vec<Waker>) {
        let now = Instant::now();
        self.waiting.retain(|timer| {
            let is_due = timer.at <= now;
            if is_due {
                wakers.push(timer.waker.clone());
            }
            !is_due
        });
    }
}

/// Waits until a time. Dropping it cancels the wait.
#[derive(Debug)]
pub(super) struct Sleep {
    at: Instant,
    id: Option<u64>,
}

impl Sleep {
    pub(super) const fn until(at: Instant) -> Self {
        Self {
            at: at.rounded_up(),
            id: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        TIMERS.with_borrow_mut(|timers| match self.id {
            Some(id) => match timers.waiting.iter_mut().find(|timer| timer.id == id) {
                Some(timer) => {
                    timer.waker.clone_from(context.waker());
                    Poll::Pending
                }
                None => {
                    self.id = None;
                    Poll::Ready(())
                }
            },
            None => {
                let id = timers.next_id;
                timers.next_id += 1;
                self.id = Some(id);
                timers.waiting.push(Timer {
                    id,
                    at: self.at,
                    waker: context.waker().clone(),
                });
                Poll::Pending
            }
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            TIMERS.with_borrow_mut(|timers| timers.waiting.retain(|timer| timer.id != id));
        }
    }
}

/// The output of `work`, or `None` if it takes longer than `time`. Work that is ready at once does
/// not read the clock.
pub(super) async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut sleep = None;
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => {
            let sleep = sleep.get_or_insert_with(|| Sleep::until(Instant::now().after(time)));
            Pin::new(sleep).poll(context).map(|()| None)
        }
    })
    .await
}

/// Waits for one pollable at a time. It must be dropped before the resource that the pollable
/// belongs to, so declare it as an earlier field.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    slot: Option<usize>,
}

impl Readiness {
    pub(super) const fn new() -> Self {
        Self { slot: None }
    }

    /// Ready when the pollable is. `subscribe` is called only to begin a wait.
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

/// Set by every wake, so that the loop does not sleep after a wake from inside the guest.
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

/// Sleeps until a pollable is ready or a timer is due, then wakes the tasks that wait for it.
fn wait() {
    let wakers =
        SLOTS.with_borrow_mut(|slots| TIMERS.with_borrow_mut(|timers| wait_for(slots, timers)));
    for waker in wakers {
        waker.wake();
    }
}

fn wait_for(slots: &mut [Slot], timers: &mut Timers) -> Vec<Waker> {
    timers.prepare_earliest();
    let mut waiting = Vec::with_capacity(slots.len());
    let mut pollables = Vec::with_capacity(slots.len() + 1);
    for (index, slot) in slots.iter().enumerate() {
        if let Slot::Waiting { pollable, .. } = slot {
            waiting.push(index);
            pollables.push(pollable);
        }
    }
    if let Some((_, pollable)) = &timers.earliest {
        pollables.push(pollable);
    }
    assert!(
        !pollables.is_empty(),
        "the invocation waits, but nothing can wake it"
    );
    let ready = poll(&pollables);
    drop(pollables);
    let mut wakers = Vec::with_capacity(ready.len());
    for index in ready {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(slot) = waiting.get(index).and_then(|slot| slots.get_mut(*slot)) else {
            timers.take_due(&mut wakers);
            continue;
        };
        if let Slot::Waiting { waker, .. } = std::mem::replace(slot, Slot::Ready) {
            wakers.push(waker);
        }
    }
    wakers
}
