//! Opens a transaction: resumes the unfinished run of an archive, or begins a new one.

use super::mode_check::{check_books, check_reports};
use super::{Held, Transaction, TransactionError, write_record};
use crate::archive::layout::RUN_RECORD_NAME;
use crate::archive::manifest::Manifest;
use crate::archive::run_record::{PlannedPrefix, RunRecord};
use crate::archive::{
    Archive, Base, Versioned, manifest_to_replace, report_to_replace, run_record,
};
use crate::destination::{Destination, DestinationError};
use crate::gcs::client::RequestError;
use crate::run::outcome::StoredPrefix;
use crate::run::plan::PrefixSet;
use crate::run::resume::{Surveyed, Wanted, survey};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::run_id::RunId;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// An unfinished run that is older than this is not resumed: a monthly job must not complete last month's run.
const RESUME_AGE_MAX: SignedDuration = SignedDuration::from_hours(7 * 24);

/// No upload can arrive later than this after its signature, whatever a record says: signed URLs live seven days at most.
const UPLOAD_LIFE_MAX: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What a run is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Request<'run> {
    /// The source's base URL.
    pub source: &'run str,
    /// Which of its hashes to mirror.
    pub mode: Mode,
    /// The prefixes.
    pub prefixes: &'run PrefixSet,
    /// Whether to mirror everything again.
    pub force: bool,
    /// The present time.
    pub now: Timestamp,
    /// Distinguishes runs that begin in the same second.
    pub random: u32,
}

/// How a run begins.
pub enum Opening {
    /// Everything that is asked for is stored, and the manifest says so.
    Complete(Vec<StoredPrefix>),
    /// The run has taken over from an unfinished run in a bucket, whose uploads can arrive until this time. Open it
    /// again then.
    Wait {
        /// The end of the wait.
        until: Timestamp,
    },
    /// The run may write.
    Begun {
        /// Its transaction.
        transaction: Transaction,
        /// What is stored already.
        stored: Vec<StoredPrefix>,
    },
    /// A shutdown came first.
    Stopped,
}

/// The books as they were read, before anything is written.
struct Books {
    manifest: Versioned<Manifest>,
    record: Versioned<RunRecord>,
}

impl Books {
    async fn read(destination: &dyn Destination) -> Result<Self, TransactionError> {
        Ok(Self {
            // In this order: a run that finishes in between is seen as finished.
            record: run_record(destination.archive()).await?,
            manifest: manifest_to_replace(destination.archive()).await?,
        })
    }

    /// The record of a run that the manifest does not name.
    fn unfinished(&self) -> Option<&RunRecord> {
        let finished = self
            .manifest
            .value
            .as_ref()
            .and_then(|manifest| manifest.run.as_ref());
        let record = self.record.value.as_ref();
        record.filter(|record| Some(&record.run) != finished)
    }

    /// The source that the archive is from, as far as the books say.
    fn source(&self) -> Option<&str> {
        let of_manifest = self
            .manifest
            .value
            .as_ref()
            .map(|manifest| manifest.source.as_str());
        let of_record = self
            .record
            .value
            .as_ref()
            .map(|record| record.source.as_str());
        of_manifest.or(of_record)
    }
}

impl Transaction {
    /// Opens a transaction. Nothing is written if there is nothing to do, or if the archive is from another source or
    /// of another mode.
    ///
    /// # Errors
    /// The archive cannot be read or written, or is from another source or of another mode.
    pub async fn open(
        destination: Arc<dyn Destination>,
        request: Request<'_>,
        shutdown: &CancellationToken,
    ) -> Result<Opening, TransactionError> {
        for _ in 0..super::CONFLICTS_MAX {
            let books = Books::read(&*destination).await?;
            let resumed = books
                .unfinished()
                .filter(|record| is_resumed_by(record, request))
                .cloned();
            let opening = match resumed {
                Some(record) => {
                    let base = books.record.base.clone();
                    resume(&destination, record, base, request, shutdown).await?
                }
                None => {
                    let archive = destination.archive();
                    let (manifest, record) = (&books.manifest.value, &books.record.value);
                    check_books(manifest.as_ref(), record.as_ref(), archive, request.mode).await?;
                    begin(&destination, &books, request, shutdown).await?
                }
            };
            if let Some(opening) = opening {
                return Ok(opening);
            }
        }
        Err(TransactionError::Busy(RUN_RECORD_NAME.to_owned()))
    }
}

/// Whether a request resumes an unfinished run: it has the same source, mode and prefixes. A forced request resumes only a
/// forced run: another one keeps tars that the request wants anew.
fn is_resumed_by(record: &RunRecord, request: Request<'_>) -> bool {
    let started: Option<Timestamp> = record.started.parse().ok();
    let is_recent =
        started.is_some_and(|started| request.now.duration_since(started) < RESUME_AGE_MAX);
    let has_same_aim = record.force || !request.force;
    let Request { source, mode, .. } = request;
    is_recent && has_same_aim && record.is_about(source, mode, request.prefixes.iter())
}

/// Joins the run of `record`. `None` if somebody else changed the record meanwhile.
async fn resume(
    destination: &Arc<dyn Destination>,
    record: RunRecord,
    base: Base,
    request: Request<'_>,
    shutdown: &CancellationToken,
) -> Result<Option<Opening>, TransactionError> {
    let archive = destination.archive();
    let Request { source, mode, .. } = request;
    let prefixes = || request.prefixes.iter();
    let mut joined = record.clone();
    let stored;
    if let Some(until) = &record.waits_until {
        let until: Timestamp = until.parse().unwrap_or(request.now);
        if request.now < until && until.duration_since(request.now) <= UPLOAD_LIFE_MAX {
            return Ok(Some(Opening::Wait { until }));
        }
        let wanted = if record.force {
            Wanted::Nothing
        } else {
            Wanted::FromAnyRun
        };
        let surveyed = survey(prefixes(), archive, source, mode, wanted, shutdown).await?;
        let Some(surveyed) = surveyed else {
            return Ok(Some(Opening::Stopped));
        };
        joined.waits_until = None;
        joined.prefixes = surveyed.iter().map(planned).collect();
        stored = surveyed;
    } else {
        let wanted = Wanted::FromRun(&record);
        let surveyed = survey(prefixes(), archive, source, mode, wanted, shutdown).await?;
        let Some(surveyed) = surveyed else {
            return Ok(Some(Opening::Stopped));
        };
        // A tar that the run meant to keep, and that is not whole any more, is mirrored after all.
        for (planned, surveyed) in joined.prefixes.iter_mut().zip(&surveyed) {
            if planned.kept && surveyed.whole.is_none() {
                planned.kept = false;
                planned.base.clone_from(&surveyed.base);
            }
        }
        stored = surveyed;
    }
    joined.closed = false;
    let base = if joined == record {
        base
    } else {
        match write_record(&**destination, &joined, base.clone()).await {
            Ok(Some(base)) => base,
            Ok(None) => return Ok(None),
            // An account that may not replace objects cannot reopen the record. Nobody with its permissions can take
            // over, either.
            Err(error) if is_denied(&error) && joined.prefixes == record.prefixes => {
                joined = record;
                base
            }
            Err(error) => return Err(error),
        }
    };
    Ok(Some(begun(destination, joined, base, false, stored)))
}

/// Begins a new run. `None` if somebody else began one meanwhile.
async fn begin(
    destination: &Arc<dyn Destination>,
    books: &Books,
    request: Request<'_>,
    shutdown: &CancellationToken,
) -> Result<Option<Opening>, TransactionError> {
    let wanted = if request.force {
        Wanted::Nothing
    } else {
        Wanted::FromAnyRun
    };
    let surveyed = survey(
        request.prefixes.iter(),
        destination.archive(),
        request.source,
        request.mode,
        wanted,
        shutdown,
    )
    .await?;
    let Some(surveyed) = surveyed else {
        return Ok(Some(Opening::Stopped));
    };
    if books.manifest.value.is_none() && books.record.value.is_none() {
        check_reports(&surveyed, destination.archive(), request.mode).await?;
    }
    if !request.force {
        check_source(books, &surveyed, request.source)?;
        check_source_of_record(books, destination.archive(), request.source).await?;
        if let Some(complete) = complete(books, &surveyed) {
            return Ok(Some(Opening::Complete(complete)));
        }
    }
    let predecessor = books.unfinished().filter(|record| !record.closed);
    let wait = predecessor.filter(|_| destination.is_shared());
    let wait = wait.map(|record| request.now + upload_life(record));
    let record = RunRecord {
        tool: "prefix-tar".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        run: new_id(request)?,
        source: request.source.to_owned(),
        mode: request.mode,
        started: request.now.to_string(),
        force: request.force,
        upload_seconds: destination.upload_life().as_secs(),
        waits_until: wait.map(|until| until.to_string()),
        closed: false,
        prefixes: surveyed.iter().map(planned).collect(),
    };
    let written = write_record(&**destination, &record, books.record.base.clone()).await;
    let base = match written {
        Ok(Some(base)) => base,
        Ok(None) => return Ok(None),
        Err(TransactionError::Destination(error)) if is_denial(&error) => {
            return Err(match books.record.base {
                Some(_) => TransactionError::MayNotReplace(error),
                None => error.into(),
            });
        }
        Err(error) => return Err(error),
    };
    if let Some(until) = wait {
        return Ok(Some(Opening::Wait { until }));
    }
    let had_nothing_to_read = books.record.base.is_none()
        && books.manifest.base.is_none()
        && surveyed.iter().all(|one| one.base.is_none());
    let is_blind = is_blind(
        destination.archive(),
        &books.record.base,
        had_nothing_to_read,
    )
    .await?;
    Ok(Some(begun(destination, record, base, is_blind, surveyed)))
}

/// Whether the account may not read `run.json`, which was written over `replaced` a moment ago. An account that could
/// read anything before is not blind, and a store that still has what was replaced has not kept it.
async fn is_blind(
    archive: &dyn Archive,
    replaced: &Base,
    had_nothing_to_read: bool,
) -> Result<bool, TransactionError> {
    let file = || RUN_RECORD_NAME.to_owned();
    let current = archive.generation(RUN_RECORD_NAME).await?;
    if current.is_some() && current != *replaced {
        return Ok(false);
    }
    if current.is_some() || !archive.is_denied(RUN_RECORD_NAME).await? {
        return Err(TransactionError::NotKept(file()));
    }
    if had_nothing_to_read {
        Ok(true)
    } else {
        Err(TransactionError::ReadDenied(file()))
    }
}

fn begun(
    destination: &Arc<dyn Destination>,
    record: RunRecord,
    base: Base,
    is_blind: bool,
    surveyed: Vec<Surveyed>,
) -> Opening {
    Opening::Begun {
        transaction: Transaction {
            destination: Arc::clone(destination),
            held: Mutex::new(Held {
                record: Arc::new(record),
                base,
            }),
            is_blind,
        },
        stored: surveyed.into_iter().filter_map(|one| one.whole).collect(),
    }
}

fn planned(surveyed: &Surveyed) -> PlannedPrefix {
    PlannedPrefix {
        prefix: surveyed.prefix,
        base: surveyed.base.clone(),
        kept: surveyed.whole.is_some(),
    }
}

fn new_id(request: Request<'_>) -> Result<RunId, TransactionError> {
    let time = request.now.strftime("%Y%m%dT%H%M%SZ").to_string();
    RunId::new(&time, request.random)
        .map_err(|error| DestinationError::Other(error.to_string()).into())
}

/// How long an upload of a run can arrive after its signature.
fn upload_life(record: &RunRecord) -> SignedDuration {
    let seconds = i64::try_from(record.upload_seconds).unwrap_or(i64::MAX);
    SignedDuration::from_secs(seconds).min(UPLOAD_LIFE_MAX)
}

/// Refuses to replace an archive of another source. A single report of another source, in an archive that says it is
/// from the requested one, is damage instead.
fn check_source(
    books: &Books,
    surveyed: &[Surveyed],
    requested: &str,
) -> Result<(), TransactionError> {
    let of_manifest = books
        .manifest
        .value
        .as_ref()
        .map(|manifest| manifest.source.clone());
    let archived = of_manifest.or_else(|| {
        let of_tar = surveyed.iter().find_map(|one| one.other_source.clone());
        of_tar.filter(|_| books.source() != Some(requested))
    });
    match archived {
        Some(archived) if archived != requested => Err(TransactionError::OtherSource {
            archived,
            requested: requested.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Refuses to take over an unfinished archive of another source, whatever prefixes are asked for. A run that has stored
/// nothing does not make an archive: its source may have been mistyped.
async fn check_source_of_record(
    books: &Books,
    archive: &dyn Archive,
    requested: &str,
) -> Result<(), TransactionError> {
    let record = books.record.value.as_ref();
    let Some(record) = record.filter(|record| record.source != requested) else {
        return Ok(());
    };
    if books.manifest.value.is_some() {
        return Ok(());
    }
    for planned in &record.prefixes {
        let report = report_to_replace(archive, planned.prefix).await?;
        let source = report.value.map(|report| report.source);
        if let Some(archived) = source.filter(|source| source != requested) {
            return Err(TransactionError::OtherSource {
                archived,
                requested: requested.to_owned(),
            });
        }
    }
    Ok(())
}

/// What is stored, if that is all and the manifest describes it.
fn complete(books: &Books, surveyed: &[Surveyed]) -> Option<Vec<StoredPrefix>> {
    let manifest = books.manifest.value.as_ref()?;
    let stored: Option<Vec<StoredPrefix>> = surveyed.iter().map(|one| one.whole.clone()).collect();
    stored.filter(|stored| {
        stored
            .iter()
            .all(|stored| manifest.objects.contains(&stored.object))
            && is_consistent(manifest, stored)
    })
}

/// Whether a manifest's objects are in order, and its totals those of its objects. Otherwise a run writes it anew.
fn is_consistent(manifest: &Manifest, stored: &[StoredPrefix]) -> bool {
    let Manifest {
        objects, totals, ..
    } = manifest;
    let content_length: u64 = objects.iter().map(|object| object.content_length).sum();
    objects.is_sorted_by(|one, next| one.prefix < next.prefix)
        && totals.prefixes == objects.len() as u64
        && totals.content_length == content_length
        && (stored.len() != objects.len()
            || *totals == stored.iter().map(|stored| stored.totals).sum())
}

fn is_denied(error: &TransactionError) -> bool {
    matches!(error, TransactionError::Destination(error) if is_denial(error))
}

/// Whether the store refused a write for lack of a permission.
fn is_denial(error: &DestinationError) -> bool {
    matches!(
        error,
        DestinationError::Request(RequestError::Refused { status, is_transient: false, .. })
            if *status == StatusCode::FORBIDDEN
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_record_makes_a_run_wait_for_longer_than_a_signed_url_lives() {
        let now = Timestamp::now();
        for seconds in [0, 960, 604_800, 250_000_000_000, u64::MAX] {
            let record = RunRecord {
                tool: String::new(),
                version: String::new(),
                run: RunId::new("20261125T000000Z", 1).expect("an id"),
                source: String::new(),
                mode: Mode::Sha1,
                started: String::new(),
                force: false,
                upload_seconds: seconds,
                waits_until: None,
                closed: false,
                prefixes: Vec::new(),
            };
            let wait = upload_life(&record);
            assert!(now + wait <= now + UPLOAD_LIFE_MAX);
            assert!(seconds > 604_800 || wait == SignedDuration::from_secs(seconds as i64));
        }
    }
}
