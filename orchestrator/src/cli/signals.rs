//! Turns signals into a [`Shutdown`], on a thread and a runtime of its own: a signal and its deadlines
//! work even if every other thread is stuck.

use super::EXIT_STOPPED;
use crate::run::shutdown::{IMMEDIATE_MAX, Shutdown};
use anyhow::Context as _;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Listens for Ctrl-C and SIGTERM from now on. A graceful shutdown may take `grace`.
///
/// # Errors
/// The system provides no thread or no signals.
pub(super) fn listen(grace: Duration) -> anyhow::Result<Shutdown> {
    let shutdown = Shutdown::default();
    let followed = shutdown.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot listen for signals")?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    let next_signal = async move || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(followed.follow(next_signal, grace, IMMEDIATE_MAX));
            exit_stopped();
        })
        .context("cannot listen for signals")?;
    Ok(shutdown)
}

#[expect(
    clippy::exit,
    reason = "the orderly way out is stuck, or somebody does not want to wait for it"
)]
fn exit_stopped() -> ! {
    std::process::exit(i32::from(EXIT_STOPPED))
}
