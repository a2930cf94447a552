//! [`Transaction`]: what one run may change in an archive, and in which order.
//!
//! Several processes may meet in a bucket: a run that is retried while its first process still lives, another run, or
//! an upload that outlives the process that signed it. No lock keeps them apart. Instead, every write is conditional,
//! and these rules keep the books true whoever dies, and whenever:
//!
//! 1. `run.json` names the one run that may write. It lists the generation of each tar that the run found, the *base*.
//! 2. A run uploads a tar over its base only. So one upload per prefix and run can succeed, whoever sends it, and no
//!    run replaces its own tar, unless that was read and found damaged.
//! 3. A URL is signed first, then `run.json` is read again, and only if it still is the one that the process acts on is
//!    the URL used. A run that takes over from an unfinished one waits until all URLs of that run have expired.
//! 4. A report is written after its tar, the manifest after all reports. Neither is removed.
//! 5. The manifest is written only if every report fits its tar at that moment.
//!
//! See docs/decisions/0007-runs.md.

mod admit;
mod finish;
mod measure;
mod mode_check;
#[cfg(test)]
mod model;
mod open;
#[cfg(test)]
mod tests;

pub use admit::Admission;
pub use open::{Opening, Request};

use crate::archive::layout::RUN_RECORD_NAME;
use crate::archive::run_record::RunRecord;
use crate::archive::{Archive, Base, ReadError, run_record};
use crate::destination::{Destination, DestinationError, Written};
use prefix_tar::protocol::failure::{Failure, FailureKind};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::ReportFault;
use prefix_tar::protocol::run_id::RunId;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};

/// How often a step is repeated because somebody else changed a file in between.
const CONFLICTS_MAX: u32 = 16;

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// The destination did not do what it was asked for.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// Another run has taken over the archive.
    #[error("run {by} has taken over the archive from run {run}")]
    Superseded {
        /// The run that can write no more.
        run: RunId,
        /// The run that can.
        by: RunId,
    },
    /// `run.json` has disappeared or is not valid any more.
    #[error("run.json of run {0} has disappeared or is damaged; run the same command again")]
    RecordLost(RunId),
    /// The archive is from another source.
    #[error(
        "the archive was mirrored from {archived}, not from {requested}; choose another destination, or replace it with --force"
    )]
    OtherSource {
        /// Where the archive is from.
        archived: String,
        /// Where the run mirrors from.
        requested: String,
    },
    /// The archive is of another mode.
    #[error(
        "the archive holds {} hashes, and this run would mirror {} hashes; an archive has one mode, so choose another destination",
        .archived.hash_name(), .requested.hash_name()
    )]
    OtherMode {
        /// The archive's mode.
        archived: Mode,
        /// The run's.
        requested: Mode,
    },
    /// The account may create objects, but not replace them.
    #[error(
        "the archive already holds the record of another run, which this account may not replace; write to another path, or run the command that began it: {0}"
    )]
    MayNotReplace(DestinationError),
    /// Others changed a file again and again.
    #[error("{0} was changed by others {CONFLICTS_MAX} times in a row; try again later")]
    Busy(String),
    /// A component's report cannot be true.
    #[error("the component's report on {prefix} is not valid: {fault}")]
    InvalidReport {
        /// The prefix.
        prefix: Prefix,
        /// What is wrong with it.
        fault: ReportFault,
    },
    /// A component's report is about something else than its job.
    #[error("the component reports on {reported} instead of {prefix} of {source_url}")]
    OtherReport {
        /// The prefix of the job.
        prefix: Prefix,
        /// The source of the run.
        source_url: String,
        /// What the report is about.
        reported: String,
    },
    /// The store does not have what the component reports.
    #[error("the component reports {prefix}.tar as stored, but the store has {found}")]
    NotStored {
        /// The prefix.
        prefix: Prefix,
        /// What the store has.
        found: String,
    },
    /// What the store says of a tar is not what it delivers.
    #[error(
        "the store states {stated} for {prefix}.tar, but delivers {read}, a whole tar, under the same generation; its metadata cannot be trusted"
    )]
    Contradiction {
        /// The prefix.
        prefix: Prefix,
        /// What a HEAD states.
        stated: String,
        /// What a GET delivers.
        read: String,
    },
    /// A tar does not fit its report any more, at the end of the run.
    #[error("{0}.tar no longer fits its report; run the same command again")]
    Changed(Prefix),
    /// The store confirmed a write, and then had no such file.
    #[error("the store confirmed {0}, but does not have it; run the same command again")]
    NotKept(String),
    /// The store denies a read that it allowed before.
    #[error(
        "the store denied reading {0}, although it let this account read the archive a moment ago; run the same command again"
    )]
    ReadDenied(String),
    /// A file cannot be encoded.
    #[error("cannot encode {file}: {cause}")]
    Encode {
        /// The file.
        file: String,
        /// Why.
        cause: serde_json::Error,
    },
}

impl From<ReadError> for TransactionError {
    fn from(error: ReadError) -> Self {
        Self::Destination(error.into())
    }
}

impl From<TransactionError> for Failure {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Destination(error) => error.into(),
            error @ (TransactionError::Superseded { .. } | TransactionError::RecordLost(_)) => {
                Self::permanent(FailureKind::Superseded, error.to_string())
            }
            error @ (TransactionError::InvalidReport { .. }
            | TransactionError::OtherReport { .. }
            | TransactionError::NotStored { .. }) => {
                Self::transient(FailureKind::ReportInvalid, error.to_string())
            }
            error @ (TransactionError::Busy(_) | TransactionError::Changed(_)) => {
                Self::transient(FailureKind::Destination, error.to_string())
            }
            error => Self::permanent(FailureKind::Destination, error.to_string()),
        }
    }
}

/// The record that a process acts on, and the generation of `run.json` that holds it.
#[derive(Clone, Debug)]
struct Held {
    record: Arc<RunRecord>,
    base: Base,
}

/// Whether `run.json` is as the process knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Confirmed {
    Unchanged,
    /// Another process of the run has changed it; what is held is now the new one.
    Changed,
}

/// One process's part in a run.
pub struct Transaction {
    destination: Arc<dyn Destination>,
    held: Mutex<Held>,
    /// Whether the account may not read what it has written. Nobody can replace its objects, then.
    is_blind: bool,
}

impl Transaction {
    /// The run.
    pub fn run(&self) -> RunId {
        self.held().record.run.clone()
    }

    /// The source's base URL.
    pub fn source(&self) -> String {
        self.held().record.source.clone()
    }

    /// Which hashes the run mirrors.
    pub fn mode(&self) -> Mode {
        self.held().record.mode
    }

    /// Whether the account may not read what it writes.
    pub const fn is_blind(&self) -> bool {
        self.is_blind
    }

    /// Whether the account may not read what it has written at this moment either. A store that denied everything for a
    /// moment only is asked like any other.
    async fn is_blind_now(&self) -> Result<bool, ReadError> {
        Ok(self.is_blind && self.archive().is_denied(RUN_RECORD_NAME).await?)
    }

    fn archive(&self) -> &dyn Archive {
        self.destination.archive()
    }

    fn held(&self) -> Held {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }

    fn hold(&self, record: RunRecord, base: Base) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Held {
            record: Arc::new(record),
            base,
        };
    }

    /// Reads `run.json` again, after something was signed and before it is used.
    async fn confirm(&self) -> Result<Confirmed, TransactionError> {
        if self.is_blind {
            return Ok(Confirmed::Unchanged);
        }
        let held = self.held();
        let current = run_record(self.archive()).await?;
        if current.base == held.base {
            return Ok(Confirmed::Unchanged);
        }
        match current.value {
            Some(record) if record.run == held.record.run => {
                self.hold(record, current.base);
                Ok(Confirmed::Changed)
            }
            Some(record) => Err(TransactionError::Superseded {
                run: held.record.run.clone(),
                by: record.run,
            }),
            None => Err(TransactionError::RecordLost(held.record.run.clone())),
        }
    }

    /// Changes the record, unless another process changes it first.
    async fn change_record(
        &self,
        change: impl Fn(&mut RunRecord) + Send + Sync,
    ) -> Result<(), TransactionError> {
        for _ in 0..CONFLICTS_MAX {
            let held = self.held();
            let mut record = (*held.record).clone();
            change(&mut record);
            if record == *held.record {
                return Ok(());
            }
            if let Some(base) = write_record(&*self.destination, &record, held.base).await? {
                self.hold(record, base);
                return Ok(());
            }
            self.confirm().await?;
        }
        Err(TransactionError::Busy(RUN_RECORD_NAME.to_owned()))
    }

    /// Notes that every upload of this run has been answered, so that a later run need not wait for any. It does
    /// nothing if another process has joined the run.
    pub async fn close(&self) {
        let held = self.held();
        let record = RunRecord {
            closed: true,
            ..(*held.record).clone()
        };
        if self.is_blind || record == *held.record {
            return;
        }
        match write_record(&*self.destination, &record, held.base).await {
            Ok(Some(base)) => self.hold(record, base),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the run's record stays open"),
        }
    }
}

/// Writes a record over `base`. Returns its generation, or `None` if somebody else was first.
async fn write_record(
    destination: &dyn Destination,
    record: &RunRecord,
    base: Base,
) -> Result<Option<Base>, TransactionError> {
    let permit = destination.permit_write(RUN_RECORD_NAME, base).await?;
    let content = encode(RUN_RECORD_NAME, record)?;
    match destination.write(permit, content).await? {
        Written::Done { generation } => Ok(Some(Some(generation))),
        Written::Conflict => Ok(None),
    }
}

/// A file of the books as JSON.
fn encode(file: &str, value: &impl Serialize) -> Result<Vec<u8>, TransactionError> {
    let mut text = serde_json::to_vec(value).map_err(|cause| TransactionError::Encode {
        file: file.to_owned(),
        cause,
    })?;
    text.push(b'\n');
    Ok(text)
}
