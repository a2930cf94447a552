//! The CPU time and peak memory of this process, as the system counts them.

use nix::sys::resource::{UsageWho, getrusage};
use std::time::Duration;

/// What this process has used up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceUsage {
    /// User and system CPU time of all threads.
    pub cpu: Duration,
    /// Peak resident memory in bytes.
    pub rss_peak_bytes: u64,
}

impl ResourceUsage {
    /// The usage up to now; zero if the system does not report it.
    pub fn so_far() -> Self {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
            return Self::default();
        };
        #[allow(
            clippy::useless_conversion,
            reason = "the microseconds are 32 bits wide on macOS"
        )]
        let time = |value: nix::sys::time::TimeVal| {
            let micros = value.tv_sec() * 1_000_000 + i64::from(value.tv_usec());
            Duration::from_micros(u64::try_from(micros).unwrap_or(0))
        };
        // Linux counts in KiB, macOS in bytes (getrusage(2) of either).
        let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
        Self {
            cpu: time(usage.user_time()) + time(usage.system_time()),
            rss_peak_bytes: u64::try_from(usage.max_rss()).unwrap_or(0) * unit,
        }
    }
}

/// The resident memory of this process in bytes; 0 where the system has no `/proc/self/status` (proc(5)).
pub fn rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse::<u64>().ok());
    kibibytes.map_or(0, |kibibytes| kibibytes * 1024)
}
