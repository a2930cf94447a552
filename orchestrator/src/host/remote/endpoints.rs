//! The components that share the work: which one is next, and how long one that failed is left alone.
//! What is sent to it is left to the host.

use super::url::ComponentUrl;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For how long an endpoint is left alone after its first failure. It doubles with every failure in a row.
const REST_FIRST: Duration = Duration::from_secs(1);

/// For how long an endpoint is left alone at the most.
const REST_MAX: Duration = Duration::from_secs(60);

/// Doublings that reach the longest rest.
const DOUBLINGS_MAX: u32 = 6;

/// One component, and how it has done.
#[derive(Debug)]
struct Endpoint {
    url: ComponentUrl,
    under_way: usize,
    failures_in_a_row: u32,
    rests_until: Option<Instant>,
}

/// The components.
#[derive(Debug)]
pub(super) struct Endpoints(Mutex<Vec<Endpoint>>);

impl Endpoints {
    pub(super) fn new(urls: Vec<ComponentUrl>) -> Self {
        let endpoints = urls.into_iter().map(|url| Endpoint {
            url,
            under_way: 0,
            failures_in_a_row: 0,
            rests_until: None,
        });
        Self(Mutex::new(endpoints.collect()))
    }

    /// Takes the endpoint that has the least to do of those that do not rest; where all rest, the one whose rest ends
    /// first. There is none where there are no endpoints.
    pub(super) fn take(&self) -> Option<Taken<'_>> {
        let now = Instant::now();
        let mut endpoints = self.lock();
        let (index, endpoint) = endpoints
            .iter_mut()
            .enumerate()
            .min_by_key(|(_, endpoint)| {
                let rest = endpoint.rests_until.filter(|until| *until > now);
                (rest, endpoint.under_way)
            })?;
        endpoint.under_way += 1;
        Some(Taken {
            endpoints: self,
            index,
            url: endpoint.url.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Endpoint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An endpoint that has an invocation under way, until this is dropped.
pub(super) struct Taken<'endpoints> {
    endpoints: &'endpoints Endpoints,
    index: usize,
    url: ComponentUrl,
}

impl Taken<'_> {
    pub(super) const fn url(&self) -> &ComponentUrl {
        &self.url
    }

    /// Takes note of how the endpoint has done.
    pub(super) fn note(&self, has_failed: bool) {
        let mut endpoints = self.endpoints.lock();
        let Some(endpoint) = endpoints.get_mut(self.index) else {
            return;
        };
        if !has_failed {
            endpoint.failures_in_a_row = 0;
            endpoint.rests_until = None;
            return;
        }
        let doublings = endpoint.failures_in_a_row.min(DOUBLINGS_MAX);
        let rest = (REST_FIRST * 2_u32.pow(doublings)).min(REST_MAX);
        endpoint.failures_in_a_row += 1;
        endpoint.rests_until = Some(Instant::now() + rest);
        tracing::warn!(url = %endpoint.url, ?rest, "a component failed and is left alone for a while");
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(endpoint) = self.endpoints.lock().get_mut(self.index) {
            endpoint.under_way -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(port: u16) -> ComponentUrl {
        let text = format!("http://127.0.0.1:{port}");
        text.parse().expect("a URL")
    }

    #[test]
    fn endpoints_share_the_work_and_one_that_fails_rests() {
        let endpoints = Endpoints::new(vec![url(1), url(2), url(3)]);
        let take = || endpoints.take().expect("an endpoint");
        let (first, second) = (take(), take());
        assert_eq!((first.url(), second.url()), (&url(1), &url(2)));
        second.note(true);
        drop(second);
        let third = take();
        assert_eq!(third.url(), &url(3));
        drop(first);
        let again = take();
        assert_eq!(again.url(), &url(1), "the one that failed rests");
        drop((third, again));

        // All rest; the second failed twice in a row and rests for longer.
        for expected in [1, 3, 1, 3] {
            let taken = take();
            assert_eq!(taken.url(), &url(expected));
            taken.note(true);
            if expected == 3 {
                let mut all = endpoints.lock();
                all[1].failures_in_a_row = 8;
                all[1].rests_until = Some(Instant::now() + REST_MAX);
            }
        }
        // One that has done well is as good as new.
        let taken = take();
        taken.note(false);
        let first = taken.url().clone();
        drop(taken);
        assert_eq!(take().url(), &first);
    }

    #[test]
    fn there_is_nothing_to_take_where_there_are_no_endpoints() {
        assert!(Endpoints::new(Vec::new()).take().is_none());
    }
}
