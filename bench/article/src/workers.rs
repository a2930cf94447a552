//! Workers that share the ranges of one prefix.

use crate::RANGES_PER_PREFIX;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinSet;

/// Has `workers` tasks call `work` for every range of a prefix, each task for one range at a time. Returns the sum of
/// the results.
///
/// # Errors
/// The first error of `work`. The other tasks are aborted.
pub async fn for_each_range<Work, Done>(workers: usize, work: Work) -> anyhow::Result<u64>
where
    Work: Fn(usize) -> Done + Clone + Send + 'static,
    Done: Future<Output = anyhow::Result<u64>> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let (next, work) = (Arc::clone(&next), work.clone());
        tasks.spawn(async move {
            let mut sum = 0;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= RANGES_PER_PREFIX {
                    return anyhow::Ok(sum);
                }
                sum += work(index).await?;
            }
        });
    }
    let mut sum = 0;
    while let Some(done) = tasks.join_next().await {
        sum += done??;
    }
    Ok(sum)
}
