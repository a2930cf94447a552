//! Runs CPU-bound work for many prefixes on every core.

use prefix_tar::protocol::prefix::Prefix;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// Runs `work` for every prefix until `shutdown`, and returns the results by prefix. It blocks.
pub fn for_each<Done: Send>(
    prefixes: &[Prefix],
    shutdown: &CancellationToken,
    work: impl Fn(Prefix) -> Done + Sync,
) -> BTreeMap<Prefix, Done> {
    let (done, next) = (Mutex::new(BTreeMap::new()), AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(prefixes.len()) {
            scope.spawn(|| {
                while !shutdown.is_cancelled()
                    && let Some(prefix) = prefixes.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let result = work(*prefix);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(*prefix, result);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_runs_once_and_none_after_the_shutdown() {
        let prefixes: Vec<Prefix> = Prefix::all().collect();
        let shutdown = CancellationToken::new();
        let done = for_each(&prefixes, &shutdown, |prefix| prefix.number());
        assert_eq!(done.len(), 256);
        assert!(
            done.iter()
                .all(|(prefix, number)| prefix.number() == *number)
        );
        shutdown.cancel();
        assert!(for_each(&prefixes, &shutdown, |_| ()).is_empty());
    }
}
