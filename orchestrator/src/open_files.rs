//! The limit of open files, which bounds the connections of a server.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The limit, as far as the system says.
pub fn limit() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Raises the limit to the most that the system allows. A shell's usual 1,024 is meant for programs that wait with
/// select(2), and a server would turn clients away.
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}
