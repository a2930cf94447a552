//! Fetches the ranges of a prefix in order, a window ahead.

use super::fetch::{Fetched, Fetcher};
use super::heap;
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

type Fetch = Pin<Box<dyn Future<Output = Result<Fetched, Failure>>>>;

/// The ranges of a prefix, in order.
pub(super) struct Prefetcher {
    fetcher: Rc<Fetcher>,
    pool: Rc<ChunkPool>,
    prefix: Prefix,
    window: Window,
    /// The index of the next range to request.
    next_index: u16,
    in_flight: FuturesOrdered<Fetch>,
    /// Ranges that arrived before they were wanted. Together with those in flight, at most the
    /// window.
    fetched: VecDeque<Fetched>,
    failed: Option<Failure>,
}

impl Prefetcher {
    pub(super) fn new(
        fetcher: Rc<Fetcher>,
        pool: Rc<ChunkPool>,
        prefix: Prefix,
        window: Window,
    ) -> Self {
        Self {
            fetcher,
            pool,
            prefix,
            window,
            next_index: 0,
            in_flight: FuturesOrdered::new(),
            fetched: VecDeque::new(),
            failed: None,
        }
    }

    /// Range requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The next range in order; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Fetched>, Failure> {
        poll_fn(|context| {
            self.advance(context);
            if let Some(fetched) = self.fetched.pop_front() {
                return Poll::Ready(Ok(Some(fetched)));
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
                Poll::Ready(Some(Ok(fetched))) => {
                    let index = fetched.range.index();
                    self.window.observe(fetched.body.len(), index == 0);
                    self.pool.set_head(index + 1);
                    self.fetched.push_back(fetched);
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
            && self.in_flight.len() + self.fetched.len() < self.window.requests()
        {
            let range = self.prefix.range(self.next_index);
            let fetch = Rc::clone(&self.fetcher).fetch(range);
            let fetch = heap::during(Phase::Fetch, fetch);
            let fetch = heap::within(Phase::Fetch, || Box::pin(fetch));
            self.in_flight.push_back(fetch);
            self.next_index += 1;
        }
    }
}
