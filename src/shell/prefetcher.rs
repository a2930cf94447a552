//! Fetches the ranges of a prefix in order, a window ahead.

use super::fetch::{Arrival, Fetcher};
use super::heap;
use crate::engine::base::BaseIndex;
use crate::engine::chunk_pool::ChunkPool;
use crate::engine::window::Window;
use crate::protocol::failure::Failure;
use crate::protocol::phase::Phase;
use crate::protocol::prefix::{Prefix, RANGES_PER_PREFIX};
use futures::stream::{FuturesOrdered, StreamExt as _};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

type Fetch = Pin<Box<dyn Future<Output = Result<Arrival, Failure>>>>;

/// The ranges of a prefix, in order.
pub(super) struct Prefetcher {
    fetcher: Rc<Fetcher>,
    pool: Rc<ChunkPool>,
    prefix: Prefix,
    window: Window,
    /// The index of the next range to request.
    next_index: u16,
    /// What is known of the ranges, so that only those that have changed are fetched.
    base: Option<Rc<BaseIndex>>,
    in_flight: FuturesOrdered<Fetch>,
    /// Ranges that arrived before they were wanted. Together with those in flight, at most the
    /// window.
    arrived: VecDeque<Arrival>,
    failed: Option<Failure>,
}

impl Prefetcher {
    pub(super) fn new(
        fetcher: Rc<Fetcher>,
        pool: Rc<ChunkPool>,
        prefix: Prefix,
        window: Window,
        base: Option<Rc<BaseIndex>>,
    ) -> Self {
        Self {
            fetcher,
            pool,
            prefix,
            window,
            next_index: 0,
            base,
            in_flight: FuturesOrdered::new(),
            arrived: VecDeque::new(),
            failed: None,
        }
    }

    /// Begins again at the range with this index, and fetches every range from there on, whatever is known of it.
    pub(super) fn restart_without_base(&mut self, index: u16) {
        self.base = None;
        self.in_flight.clear();
        self.arrived.clear();
        self.failed = None;
        self.next_index = index;
        self.pool.set_head(index);
    }

    /// Range requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The next range in order; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Arrival>, Failure> {
        poll_fn(|context| {
            self.advance(context);
            if let Some(arrival) = self.arrived.pop_front() {
                return Poll::Ready(Ok(Some(arrival)));
            }
            match self.failed.take() {
                Some(failure) => Poll::Ready(Err(failure)),
                None if self.in_flight.is_empty() => Poll::Ready(Ok(None)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Runs `work` while ranges keep arriving.
    pub(super) async fn alongside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            self.advance(context);
            work.as_mut().poll(context)
        })
        .await
    }

    /// Sends the requests that the window allows and collects the ranges that have arrived.
    fn advance(&mut self, context: &mut Context<'_>) {
        loop {
            self.fill_window();
            match self.in_flight.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(arrival))) => {
                    let index = arrival.range().index();
                    self.window.observe(arrival.size_bytes(), index == 0);
                    self.pool.set_head(index + 1);
                    self.arrived.push_back(arrival);
                }
                Poll::Ready(Some(Err(failure))) => {
                    self.in_flight.clear();
                    self.failed = Some(failure);
                }
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    fn fill_window(&mut self) {
        if self.fetcher.take_throttled() {
            self.window.throttle();
        }
        while self.failed.is_none()
            && self.next_index < RANGES_PER_PREFIX
            && self.in_flight.len() + self.arrived.len() < self.window.requests()
        {
            let range = self.prefix.range(self.next_index);
            let known = self.base.as_ref().map(|base| base.take(range));
            let fetch = Rc::clone(&self.fetcher).fetch(range, known);
            let fetch = heap::during(Phase::Fetch, fetch);
            let fetch = heap::within(Phase::Fetch, || Box::pin(fetch));
            self.in_flight.push_back(fetch);
            self.next_index += 1;
        }
    }
}
