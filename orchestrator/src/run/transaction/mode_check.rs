//! Refuses to mix modes: a run of NTLM hashes changes nothing in an archive of SHA-1 hashes, nor the reverse. Not even
//! `--force` allows it. Until such a run ends, clients that ask for hashes of one mode would get those of the other, and
//! take every password for unknown.

use super::TransactionError;
use crate::archive::layout::tar_name;
use crate::archive::manifest::Manifest;
use crate::archive::run_record::{PlannedPrefix, RunRecord};
use crate::archive::{Archive, ReadError, report_to_replace};
use crate::run::resume::Surveyed;
use prefix_tar::protocol::mode::Mode;

/// Checks what the books say. A run that has stored nothing does not make an archive: its mode may have been mistyped.
///
/// # Errors
/// The archive is of another mode, or cannot be read.
pub(super) async fn check_books(
    manifest: Option<&Manifest>,
    record: Option<&RunRecord>,
    archive: &dyn Archive,
    requested: Mode,
) -> Result<(), TransactionError> {
    if let Some(manifest) = manifest {
        return check(manifest.mode, requested);
    }
    let Some(record) = record.filter(|record| record.mode != requested) else {
        return Ok(());
    };
    for planned in &record.prefixes {
        if has_stored(planned, archive).await? {
            return check(record.mode, requested);
        }
    }
    Ok(())
}

/// Checks the reports of an archive whose books are lost.
///
/// # Errors
/// A report is of another mode, or cannot be read.
pub(super) async fn check_reports(
    surveyed: &[Surveyed],
    archive: &dyn Archive,
    requested: Mode,
) -> Result<(), TransactionError> {
    for one in surveyed.iter().filter(|one| one.base.is_some()) {
        let report = report_to_replace(archive, one.prefix).await?.value;
        check(report.map_or(requested, |report| report.mode), requested)?;
    }
    Ok(())
}

fn check(archived: Mode, requested: Mode) -> Result<(), TransactionError> {
    if archived == requested {
        return Ok(());
    }
    Err(TransactionError::OtherMode {
        archived,
        requested,
    })
}

/// Whether a run has stored a prefix, or keeps one that was there.
async fn has_stored(planned: &PlannedPrefix, archive: &dyn Archive) -> Result<bool, ReadError> {
    let generation = archive.generation(&tar_name(planned.prefix)).await?;
    Ok(generation.is_some() && (planned.kept || generation != planned.base))
}
