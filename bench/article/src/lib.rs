//! What `article` and `floor` share: the same HTTP stack as the orchestrator's embedded host, command-line options, and
//! the line of figures at the end.

pub mod client;
pub mod options;
pub mod workers;

use client::Source;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use options::Options;
use std::process::ExitCode;
use std::time::Instant;

/// Ranges in one prefix.
pub const RANGES_PER_PREFIX: usize = 4096;

/// Bytes of bodies that were received.
pub type Received = u64;

/// Runs a program and prints its figures as one JSON line.
pub async fn measure(
    program: &str,
    run: impl AsyncFnOnce(&Options, Source) -> anyhow::Result<Received>,
) -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("error: {error}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    let started = Instant::now();
    let ran = async {
        let source = Source::new(&options)?;
        run(&options, source).await
    };
    match ran.await {
        Ok(bytes) => {
            println!("{}", figures(program, &options, bytes, started));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn figures(
    program: &str,
    options: &Options,
    bytes: Received,
    started: Instant,
) -> serde_json::Value {
    let ranges = options.prefixes.len() * RANGES_PER_PREFIX;
    let seconds = started.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
    let seconds_of = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    // Linux counts in KiB.
    let rss_peak_bytes = usage.map(|usage| usage.max_rss() * 1024);
    serde_json::json!({
        "program": program,
        "ranges": ranges,
        "bytes": bytes,
        "seconds": seconds,
        "user_seconds": usage.map(|usage| seconds_of(usage.user_time())),
        "system_seconds": usage.map(|usage| seconds_of(usage.system_time())),
        "rss_peak_bytes": rss_peak_bytes,
    })
}
