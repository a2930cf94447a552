//! [`Host`]: what runs the component. A job goes in; a report or a failure comes out. No host retries.

pub mod answer;
pub mod embedded;
pub mod remote;
mod timed_body;

use crate::origin::Origin;
use crate::redaction::redacted;
use prefix_tar::protocol::failure::{Failure, FailureKind};
use prefix_tar::protocol::job::Job;
use prefix_tar::protocol::recording::Recording;
use prefix_tar::protocol::report::Report;

/// The progress of an invocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InvocationProgress {
    /// Ranges in the tar so far.
    pub ranges: u32,
    /// Their data in bytes.
    pub data_bytes: u64,
    /// Linear memory in bytes.
    pub linear_memory: u64,
}

/// What an invocation says while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvocationUpdate {
    /// How far it is.
    Progress(InvocationProgress),
    /// At its end, what it measured of itself.
    Recording(Box<Recording>),
}

/// An invocation that did not end with a report.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedInvocation {
    /// Why.
    pub failure: Failure,
    /// The report of what was sent, if all of it was: the store may have the tar despite the failure.
    pub sent: Option<Box<Report>>,
}

/// A text of another program, made safe to show.
fn safe_text(text: &str) -> String {
    made_safe(Failure::permanent(FailureKind::Died, text)).message
}

/// A failure as another program stated it, made safe to show: escaped, of bounded length, without secrets.
fn made_safe(failure: Failure) -> Failure {
    let message = redacted(&failure.message).into_owned();
    Failure { message, ..failure }.sanitized()
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
    /// Permits uploads to an origin. Remote components ignore this, because their operator
    /// configures them.
    fn allow_upload(&mut self, origin: Origin);

    /// Whether the component runs in this process, so that what it reports needs no proof.
    fn is_in_process(&self) -> bool {
        false
    }

    /// Runs one invocation. It returns a report only if the store has the whole tar. Dropping the future ends the
    /// invocation.
    async fn invoke(
        &self,
        job: Job,
        on_update: &(dyn Fn(InvocationUpdate) + Send + Sync),
    ) -> Result<Report, FailedInvocation>;
}
