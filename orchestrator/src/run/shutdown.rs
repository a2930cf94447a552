//! [`Shutdown`]: how a run is stopped from outside, in steps that each have a deadline.

use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long an immediate shutdown may take before the program exits without it.
pub const IMMEDIATE_MAX: Duration = Duration::from_secs(5);

/// Stops a run. Graceful comes first; immediate follows if that takes too long.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Starts nothing new; invocations in progress end.
    pub graceful: CancellationToken,
    /// Aborts the invocations in progress.
    pub immediate: CancellationToken,
}

impl Shutdown {
    /// Takes each step at the next signal, or when the step before has had its time: systemd and
    /// Kubernetes send a single SIGTERM. Returns when it is time to exit, whatever is in progress.
    pub async fn follow(
        &self,
        mut next_signal: impl AsyncFnMut(),
        grace: Duration,
        immediate_max: Duration,
    ) {
        next_signal().await;
        self.graceful.cancel();
        // Whether a signal or the deadline ends a step makes no difference.
        let _ = timeout(grace, next_signal()).await;
        self.immediate.cancel();
        let _ = timeout(immediate_max, next_signal()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    /// Longer than any step should take.
    const NEVER: Duration = Duration::from_secs(60);

    /// Follows so many signals, with these deadlines, until it is time to exit.
    async fn followed(signals: usize, grace: Duration, immediate_max: Duration) -> Shutdown {
        let shutdown = Shutdown::default();
        let (sender, mut receiver) = mpsc::channel(3);
        for _ in 0..signals {
            sender.send(()).await.expect("room");
        }
        let next_signal = async || {
            receiver.recv().await.expect("a sender");
        };
        timeout(NEVER, shutdown.follow(next_signal, grace, immediate_max))
            .await
            .expect("the end");
        shutdown
    }

    #[tokio::test]
    async fn one_signal_is_enough() {
        let shutdown = followed(1, Duration::ZERO, Duration::ZERO).await;
        assert!(shutdown.graceful.is_cancelled() && shutdown.immediate.is_cancelled());
    }

    #[tokio::test]
    async fn more_signals_are_faster_than_the_deadlines() {
        let shutdown = followed(3, 10 * NEVER, 10 * NEVER).await;
        assert!(shutdown.graceful.is_cancelled() && shutdown.immediate.is_cancelled());
    }

    #[tokio::test]
    async fn a_graceful_shutdown_has_its_time() {
        let shutdown = Shutdown::default();
        let (sender, mut receiver) = mpsc::channel(1);
        let next_signal = async || {
            receiver.recv().await.expect("a sender");
        };
        let steps = async {
            assert!(!shutdown.graceful.is_cancelled());
            sender.send(()).await.expect("a receiver");
            shutdown.graceful.cancelled().await;
            assert!(!shutdown.immediate.is_cancelled());
            sender.send(()).await.expect("a receiver");
            shutdown.immediate.cancelled().await;
        };
        tokio::select! {
            () = shutdown.follow(next_signal, 10 * NEVER, 10 * NEVER) => panic!("it has no time"),
            () = steps => {}
        }
    }
}
