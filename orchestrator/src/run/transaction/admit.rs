//! The steps of one prefix: whether it has to be uploaded, and its report once it is.

use super::{CONFLICTS_MAX, Confirmed, Transaction, TransactionError, encode};
use crate::archive::layout::{report_name, tar_name};
use crate::archive::run_record::RunRecord;
use crate::archive::{Base, StoredObject, TarIndex, report_to_replace, whole};
use crate::destination::{CopySource, Written};
use crate::redaction::redacted;
use jiff::Timestamp;
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::failure::{Failure, FailureKind};
use prefix_tar::protocol::job::Upload;
use prefix_tar::protocol::prefix::{Prefix, RANGES_PER_PREFIX};
use prefix_tar::protocol::report::{Report, Seconds};

/// What is to be done about a prefix.
pub enum Admission {
    /// It has to be uploaded, with this URL.
    Upload(Upload),
    /// This run has stored it already.
    Stored(Box<Report>),
}

/// What became of a tar that is not the base any more.
enum Found {
    /// It is whole, and has its report.
    Whole(Box<Report>),
    /// It is gone, or was read and is damaged: it may be replaced.
    Replaceable(Base),
    /// It changed while it was looked at.
    Changed,
}

impl Transaction {
    /// Decides whether a prefix has to be uploaded, and signs the upload.
    ///
    /// # Errors
    /// The archive cannot be read or the upload not signed, or another run has taken over.
    pub async fn admit(&self, prefix: Prefix) -> Result<Admission, TransactionError> {
        let file = tar_name(prefix);
        for _ in 0..CONFLICTS_MAX {
            let base = self.base_of(prefix)?;
            let generation = self.archive().generation(&file).await?;
            if generation == base {
                let upload = self.destination.sign_upload(prefix, &base).await?;
                if self.confirm().await? == Confirmed::Unchanged {
                    return Ok(Admission::Upload(upload));
                }
                continue;
            }
            match self.find(prefix).await? {
                Found::Whole(report) => return Ok(Admission::Stored(report)),
                Found::Replaceable(base) => self.rebase(prefix, &base).await?,
                Found::Changed => {}
            }
        }
        Err(TransactionError::Busy(file))
    }

    /// Checks what a component reports against the store, and writes the report. `is_trusted`: the component runs in
    /// this process, so that its word is enough where the account may not read what it has written.
    ///
    /// # Errors
    /// The report is not valid or not true, or it cannot be written.
    pub async fn commit(
        &self,
        prefix: Prefix,
        report: Report,
        is_trusted: bool,
    ) -> Result<Report, TransactionError> {
        let record = self.held().record;
        if report.prefix != prefix || !record.mirrors(&report) {
            return Err(TransactionError::OtherReport {
                prefix,
                source_url: record.source.clone(),
                reported: format!(
                    "{} of {:?}, {} hashes,",
                    report.prefix,
                    redacted(&report.source),
                    report.mode.hash_name()
                ),
            });
        }
        report
            .check()
            .map_err(|fault| TransactionError::InvalidReport { prefix, fault })?;
        let object = self.archive().object(prefix).await?;
        let base = self.base_of(prefix)?;
        let report = match object {
            None if is_trusted && self.is_blind_now().await? => report,
            None => return Err(not_stored(prefix, "no such object".to_owned())),
            Some(object)
                if base.as_ref() == Some(&object.generation)
                    && is_kept(&report)
                    && object.matches(&report) =>
            {
                return self.commit_kept(report, object, &record).await;
            }
            Some(object) if base.as_ref() == Some(&object.generation) => {
                return Err(not_stored(prefix, "the tar of an earlier run".to_owned()));
            }
            Some(object) if object.matches(&report) => confirmed(report, object),
            Some(object) => {
                let found = shown(object.content_length, object.crc32c);
                return Err(not_stored(prefix, found));
            }
        };
        self.write_report(report, &record).await
    }

    /// Writes down that a run has found nothing newer than the tar that is there. Its report stays, but for the run, the
    /// time and the ETags. Returns the component's report, of what the invocation did.
    async fn commit_kept(
        &self,
        report: Report,
        object: StoredObject,
        record: &RunRecord,
    ) -> Result<Report, TransactionError> {
        let stored = report_to_replace(self.archive(), report.prefix)
            .await?
            .value;
        let stored = stored.filter(|stored| object.matches(stored) && stored.check().is_ok());
        let kept = Report {
            seen: Some(Timestamp::now().to_string()),
            range_etags: report.range_etags.clone(),
            ..stored.unwrap_or_else(|| report.clone())
        };
        let written = self.write_report(confirmed(kept, object), record).await?;
        Ok(Report {
            run: written.run,
            generation: written.generation,
            ..report
        })
    }

    /// Copies a tar that has not changed from another archive. The object is looked at when it is committed.
    ///
    /// # Errors
    /// The store did not copy it, or another run has taken over.
    pub async fn copy(&self, prefix: Prefix, from: &CopySource) -> Result<(), TransactionError> {
        for _ in 0..CONFLICTS_MAX {
            let base = self.base_of(prefix)?;
            let permit = self.destination.permit_copy(prefix, from, base).await?;
            if self.confirm().await? == Confirmed::Changed {
                continue;
            }
            // A conflict is another process's copy, or an earlier one whose answer was lost.
            self.destination.copy(permit, from).await?;
            return Ok(());
        }
        Err(TransactionError::Busy(tar_name(prefix)))
    }

    /// Looks at the object after everything was sent but the store's answer was lost or wrong. Returns the report if
    /// the store has the object. An object that the store confirmed with another checksum is removed.
    ///
    /// # Errors
    /// The archive cannot be read, or the report not written.
    pub async fn settle(
        &self,
        prefix: Prefix,
        sent: &Report,
        failure: &mut Failure,
    ) -> Result<Option<Report>, TransactionError> {
        if failure.kind == FailureKind::StoreChecksum {
            // The base is not what was sent, whoever says so, and nothing may be removed before its successor is stored.
            let base = self.base_of(prefix)?;
            if let Some(generation) = &sent.generation
                && base.as_ref() != Some(generation)
                && let Err(error) = self.destination.discard(prefix, generation).await
            {
                tracing::error!(%prefix, %error, "an object with a wrong checksum could not be removed");
                failure.retryable = false;
                failure.message +=
                    &format!("; the object stays, because it could not be removed: {error}");
            }
            return Ok(None);
        }
        let object = self.archive().object(prefix).await?;
        let is_sent = object.is_some_and(|object| {
            object.matches(sent)
                && self
                    .base_of(prefix)
                    .is_ok_and(|base| base != Some(object.generation))
        });
        if !is_sent {
            return Ok(None);
        }
        self.commit(prefix, sent.clone(), false).await.map(Some)
    }

    fn base_of(&self, prefix: Prefix) -> Result<Base, TransactionError> {
        let held = self.held();
        let planned = held.record.prefix(prefix);
        planned
            .map(|planned| planned.base.clone())
            .ok_or_else(|| TransactionError::RecordLost(held.record.run.clone()))
    }

    /// Looks at a tar that somebody has written since the run began. By the rules, that was this run.
    async fn find(&self, prefix: Prefix) -> Result<Found, TransactionError> {
        let record = self.held().record;
        let Some(object) = self.archive().object(prefix).await? else {
            // To an account that may not read any more, every object seems absent. If its base were forgotten, the tar
            // of an earlier run would later count as this run's. `run.json` is never removed, so it tells.
            return Ok(match self.confirm().await? {
                Confirmed::Unchanged => Found::Replaceable(None),
                Confirmed::Changed => Found::Changed,
            });
        };
        if let Some((report, _)) = whole(prefix, self.archive()).await? {
            if record.mirrors(&report) && report.run.as_ref() == Some(&record.run) {
                return Ok(Found::Whole(Box::new(report)));
            }
            // A copied or restored folder has other generations, and a store may have hidden the tar when the run
            // began. A report of an earlier run that fits says whose tar it is.
            return Ok(if self.is_still(prefix, &object).await? {
                Found::Replaceable(Some(object.generation))
            } else {
                Found::Changed
            });
        }
        // Its process died, or has not written the report yet.
        match self.archive().index_tar(prefix, record.mode).await? {
            Some(Ok(index)) if index.is_of(&object) => {
                let report = rebuilt(prefix, index, &record, object);
                let report = self.write_report(report, &record).await?;
                Ok(Found::Whole(Box::new(report)))
            }
            Some(Err(problem)) => {
                tracing::warn!(%prefix, problem, "a tar of this run is damaged and mirrored again");
                Ok(if self.is_still(prefix, &object).await? {
                    Found::Replaceable(Some(object.generation))
                } else {
                    Found::Changed
                })
            }
            Some(Ok(index)) if self.is_still(prefix, &object).await? => {
                Err(TransactionError::Contradiction {
                    prefix,
                    stated: shown(object.content_length, object.crc32c),
                    read: shown(index.content_length, index.crc32c),
                })
            }
            Some(Ok(_)) | None => Ok(Found::Changed),
        }
    }

    /// Whether the tar of a prefix still is this object.
    async fn is_still(
        &self,
        prefix: Prefix,
        object: &StoredObject,
    ) -> Result<bool, TransactionError> {
        let now = self.archive().generation(&tar_name(prefix)).await?;
        Ok(now.as_ref() == Some(&object.generation))
    }

    /// Permits the run to replace a tar that is gone or damaged.
    async fn rebase(&self, prefix: Prefix, base: &Base) -> Result<(), TransactionError> {
        self.change_record(|record| {
            for planned in &mut record.prefixes {
                if planned.prefix == prefix {
                    planned.base.clone_from(base);
                    planned.kept = false;
                }
            }
        })
        .await
    }

    /// Writes a report, unless another process of the run has done so.
    async fn write_report(
        &self,
        report: Report,
        record: &RunRecord,
    ) -> Result<Report, TransactionError> {
        let prefix = report.prefix;
        let report = Report {
            run: Some(record.run.clone()),
            ..report
        };
        let file = report_name(prefix);
        let content = encode(&file, &report)?;
        let mut base = self.archive().generation(&file).await?;
        for _ in 0..CONFLICTS_MAX {
            let permit = self.destination.permit_write(&file, base).await?;
            self.confirm().await?;
            let written = self.destination.write(permit, content.clone()).await?;
            if let Written::Done { .. } = written {
                return Ok(report);
            }
            let current = report_to_replace(self.archive(), prefix).await?;
            if let Some((theirs, _)) = whole(prefix, self.archive()).await?
                && theirs.run == report.run
            {
                return Ok(theirs);
            }
            base = current.base;
        }
        Err(TransactionError::Busy(file))
    }
}

/// Whether a report says that the tar of an earlier run is kept.
fn is_kept(report: &Report) -> bool {
    report.reuse.as_ref().is_some_and(|reuse| !reuse.uploaded)
}

fn shown(content_length: u64, crc32c: Crc32c) -> String {
    format!("{content_length} bytes with CRC32C {crc32c}")
}

fn not_stored(prefix: Prefix, found: String) -> TransactionError {
    TransactionError::NotStored { prefix, found }
}

/// A report whose tar the store has.
fn confirmed(report: Report, object: StoredObject) -> Report {
    Report {
        generation: Some(object.generation),
        etag: object.etag.or(report.etag),
        ..report
    }
}

/// The report of a tar that was read back. What the invocation did is not known any more.
fn rebuilt(prefix: Prefix, index: TarIndex, record: &RunRecord, object: StoredObject) -> Report {
    Report {
        prefix,
        source: record.source.clone(),
        mode: record.mode,
        run: Some(record.run.clone()),
        ranges: u32::from(RANGES_PER_PREFIX),
        hashes: index.hashes,
        data_bytes: index.data_bytes,
        content_length: index.content_length,
        crc32c: index.crc32c,
        requests: u64::from(RANGES_PER_PREFIX),
        retries: 0,
        seconds: Seconds::default(),
        linear_memory_peak: 0,
        generation: Some(object.generation),
        etag: object.etag,
        range_etags: vec![String::new(); index.range_bytes.len()],
        range_crc32c: index.range_crc32c,
        range_bytes: index.range_bytes,
        cached_errors: Vec::new(),
        reuse: None,
        seen: None,
    }
}
