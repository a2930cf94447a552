//! Finds out what earlier runs have stored: a prefix is whole if its report breaks no rule, has the same source and
//! mode, and fits the tar that is there now.

use super::outcome::StoredPrefix;
use crate::archive::layout::{report_name, tar_name};
use crate::archive::run_record::{PlannedPrefix, RunRecord};
use crate::archive::{Archive, Base, ReadError, report_to_replace, whole};
use futures::StreamExt as _;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use tokio_util::sync::CancellationToken;

/// Prefixes that are checked at the same time. In a folder, each check reads a whole tar.
const CHECKS_MAX: usize = 4;

/// What the archive has of one prefix.
#[derive(Clone, Debug)]
pub(super) struct Surveyed {
    pub(super) prefix: Prefix,
    /// The generation of its tar.
    pub(super) base: Base,
    /// The tar and its report, if they are whole and the run need not mirror them.
    pub(super) whole: Option<StoredPrefix>,
    /// The source of a whole tar from another source.
    pub(super) other_source: Option<String>,
}

/// What counts as stored.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'run> {
    /// Whole tars of any run.
    FromAnyRun,
    /// Nothing: the run mirrors every prefix.
    Nothing,
    /// What this run has stored or keeps.
    FromRun(&'run RunRecord),
}

/// Surveys `prefixes`, in order. `None` if `shutdown` comes first.
///
/// # Errors
/// The archive cannot be read.
pub(super) async fn survey(
    prefixes: impl Iterator<Item = Prefix>,
    archive: &dyn Archive,
    source: &str,
    mode: Mode,
    wanted: Wanted<'_>,
    shutdown: &CancellationToken,
) -> Result<Option<Vec<Surveyed>>, ReadError> {
    let checks = futures::stream::iter(prefixes)
        .take_until(shutdown.cancelled())
        .map(|prefix| survey_prefix(prefix, archive, source, mode, wanted))
        .buffered(CHECKS_MAX);
    let mut checks = std::pin::pin!(checks);
    let mut surveyed = Vec::new();
    while let Some(check) = checks.next().await {
        surveyed.push(check?);
    }
    Ok((!shutdown.is_cancelled()).then_some(surveyed))
}

async fn survey_prefix(
    prefix: Prefix,
    archive: &dyn Archive,
    source: &str,
    mode: Mode,
    wanted: Wanted<'_>,
) -> Result<Surveyed, ReadError> {
    let mut surveyed = Surveyed {
        prefix,
        base: archive.generation(&tar_name(prefix)).await?,
        whole: None,
        other_source: None,
    };
    let is_wanted = match wanted {
        Wanted::Nothing => false,
        Wanted::FromAnyRun => true,
        Wanted::FromRun(record) => match record.prefix(prefix) {
            Some(planned) if planned.kept || planned.base != surveyed.base => true,
            // A tar that the run did not have to replace has a report of the run.
            Some(_) => has_report_of(record, prefix, archive).await?,
            None => false,
        },
    };
    if !is_wanted {
        // What cannot be replaced is found before anything is mirrored.
        archive.check_replaceable(&report_name(prefix)).await?;
    }
    if surveyed.base.is_none() || !is_wanted {
        return Ok(surveyed);
    }
    let whole = whole(prefix, archive).await?;
    // In an archive of the requested mode, a report of the other one is damage.
    let Some((report, generation)) = whole.filter(|(report, _)| report.mode == mode) else {
        return Ok(surveyed);
    };
    if let Wanted::FromRun(record) = wanted
        && !is_of_run(&report, record, record.prefix(prefix))
    {
        return Ok(surveyed);
    }
    // The tar may have been replaced since its generation was looked up.
    surveyed.base = Some(generation);
    if report.source == source {
        surveyed.whole = Some(StoredPrefix::new(&report, 1));
    } else {
        surveyed.other_source = Some(report.source);
    }
    Ok(surveyed)
}

async fn has_report_of(
    record: &RunRecord,
    prefix: Prefix,
    archive: &dyn Archive,
) -> Result<bool, ReadError> {
    let report = report_to_replace(archive, prefix).await?.value;
    Ok(report.is_some_and(|report| report.run.as_ref() == Some(&record.run)))
}

/// Whether a whole tar is one that the run of `record` has stored or keeps.
fn is_of_run(report: &Report, record: &RunRecord, planned: Option<&PlannedPrefix>) -> bool {
    planned.is_some_and(|planned| planned.kept || report.run.as_ref() == Some(&record.run))
}
