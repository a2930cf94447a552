//! Distributes invocations over endpoints and puts failing endpoints into a cooldown.

use super::url::ComponentUrl;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The cooldown after an endpoint's first failure. It doubles with each consecutive failure.
const COOLDOWN_FIRST: Duration = Duration::from_secs(1);

/// The longest cooldown.
const COOLDOWN_MAX: Duration = Duration::from_secs(60);

/// Doublings after which the cooldown is at its maximum.
const DOUBLINGS_MAX: u32 = 6;

/// One component: its load and its health.
#[derive(Debug)]
struct Endpoint {
    url: ComponentUrl,
    in_progress: usize,
    consecutive_failures: u32,
    cooldown_until: Option<Instant>,
}

/// All endpoints of a run.
#[derive(Debug)]
pub(super) struct Endpoints(Mutex<Vec<Endpoint>>);

impl Endpoints {
    pub(super) fn new(urls: Vec<ComponentUrl>) -> Self {
        let endpoints = urls.into_iter().map(|url| Endpoint {
            url,
            in_progress: 0,
            consecutive_failures: 0,
            cooldown_until: None,
        });
        Self(Mutex::new(endpoints.collect()))
    }

    /// Takes the least busy endpoint without a cooldown; if all have one, the endpoint whose cooldown
    /// ends first. Returns `None` if there are no endpoints.
    pub(super) fn take(&self) -> Option<TakenEndpoint<'_>> {
        let now = Instant::now();
        let mut endpoints = self.lock();
        let (index, endpoint) = endpoints
            .iter_mut()
            .enumerate()
            .min_by_key(|(_, endpoint)| {
                let cooldown = endpoint.cooldown_until.filter(|until| *until > now);
                (cooldown, endpoint.in_progress)
            })?;
        endpoint.in_progress += 1;
        Some(TakenEndpoint {
            endpoints: self,
            index,
            url: endpoint.url.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Endpoint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An endpoint with an invocation in progress. Dropping it ends the invocation's share of the load.
pub(super) struct TakenEndpoint<'endpoints> {
    endpoints: &'endpoints Endpoints,
    index: usize,
    url: ComponentUrl,
}

impl TakenEndpoint<'_> {
    pub(super) const fn url(&self) -> &ComponentUrl {
        &self.url
    }

    /// Ends the endpoint's cooldown and forgets its failures.
    pub(super) fn record_success(&self) {
        if let Some(endpoint) = self.endpoints.lock().get_mut(self.index) {
            endpoint.consecutive_failures = 0;
            endpoint.cooldown_until = None;
        }
    }

    /// Starts a cooldown, twice as long as after the previous consecutive failure.
    pub(super) fn record_failure(&self) {
        let mut endpoints = self.endpoints.lock();
        let Some(endpoint) = endpoints.get_mut(self.index) else {
            return;
        };
        let doublings = endpoint.consecutive_failures.min(DOUBLINGS_MAX);
        let cooldown = (COOLDOWN_FIRST * 2_u32.pow(doublings)).min(COOLDOWN_MAX);
        endpoint.consecutive_failures += 1;
        endpoint.cooldown_until = Some(Instant::now() + cooldown);
        tracing::warn!(url = %endpoint.url, ?cooldown, "a component failed; other components are preferred during its cooldown");
    }
}

impl Drop for TakenEndpoint<'_> {
    fn drop(&mut self) {
        if let Some(endpoint) = self.endpoints.lock().get_mut(self.index) {
            endpoint.in_progress -= 1;
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
    fn endpoints_share_the_work_and_a_failing_one_is_skipped_during_its_cooldown() {
        let endpoints = Endpoints::new(vec![url(1), url(2), url(3)]);
        let take = || endpoints.take().expect("an endpoint");
        let (first, second) = (take(), take());
        assert_eq!((first.url(), second.url()), (&url(1), &url(2)));
        second.record_failure();
        drop(second);
        let third = take();
        assert_eq!(third.url(), &url(3));
        drop(first);
        let fourth = take();
        assert_eq!(fourth.url(), &url(1), "the second has a cooldown");
        drop((third, fourth));

        // All get a cooldown; the second failed more often, so its cooldown is the longest.
        for expected in [1, 3, 1, 3] {
            let taken = take();
            assert_eq!(taken.url(), &url(expected));
            taken.record_failure();
            if expected == 3 {
                let mut all = endpoints.lock();
                all[1].consecutive_failures = 8;
                all[1].cooldown_until = Some(Instant::now() + COOLDOWN_MAX);
            }
        }
        // A success ends the cooldown.
        let taken = take();
        taken.record_success();
        let first = taken.url().clone();
        drop(taken);
        assert_eq!(take().url(), &first);
    }

    #[test]
    fn without_endpoints_there_is_nothing_to_take() {
        assert!(Endpoints::new(Vec::new()).take().is_none());
    }
}
