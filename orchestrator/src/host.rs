//! What runs the component: one job in, a report or a failure out, progress on the way.
//! Which jobs there are, and what becomes of a failure, is left to `dispatch`: no host tries anything twice.

pub mod answer;
pub mod embedded;
pub mod remote;
mod timed_body;

use prefix_tar::failure::Failure;
use prefix_tar::job::{Job, Report};

/// How far an invocation is, as its progress events tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InvocationProgress {
    /// Ranges in the tar so far.
    pub ranges: u32,
    /// Their data, in bytes.
    pub data_bytes: u64,
    /// Linear memory, in bytes.
    pub linear_memory: u64,
}

/// An invocation that brought no report.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedInvocation {
    /// Why.
    pub failure: Failure,
    /// The report of what was sent, where all of it was: the store may have it all the same.
    pub sent: Option<Box<Report>>,
}

impl From<Failure> for FailedInvocation {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            sent: None,
        }
    }
}

/// Something that runs the component.
#[async_trait::async_trait]
pub trait Host: Send + Sync {
    /// Runs one invocation. The report is there only when the store has the whole tar. Dropping the future
    /// ends the invocation.
    async fn invoke(
        &self,
        job: Job,
        on_progress: &(dyn Fn(InvocationProgress) + Send + Sync),
    ) -> Result<Report, FailedInvocation>;
}
