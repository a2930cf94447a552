//! Runs one piece of work per prefix on every core, for what is bound by the processor and not by waiting.
//! What the work is, is left to `generate` and `verify`.

use prefix_tar::prefix::Prefix;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// Does `work` for every prefix until `stop`, and gives what came of each that was done. Blocks.
pub fn for_each<Done: Send>(
    prefixes: &[Prefix],
    stop: &CancellationToken,
    work: impl Fn(Prefix) -> Done + Sync,
) -> BTreeMap<Prefix, Done> {
    let (done, next) = (Mutex::new(BTreeMap::new()), AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(prefixes.len()) {
            scope.spawn(|| {
                while !stop.is_cancelled()
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
    fn every_prefix_is_done_once_and_none_after_the_stop() {
        let prefixes: Vec<Prefix> = Prefix::all().collect();
        let stop = CancellationToken::new();
        let done = for_each(&prefixes, &stop, |prefix| prefix.number());
        assert_eq!(done.len(), 256);
        assert!(
            done.iter()
                .all(|(prefix, number)| prefix.number() == *number)
        );
        stop.cancel();
        assert!(for_each(&prefixes, &stop, |_| ()).is_empty());
    }
}
