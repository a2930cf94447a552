//! Verifies an archive: every tar entry by entry against its report, and every report against the
//! manifest. Nothing is repaired.
//!
//! What is damaged is told from what could not be read: a lost connection or a denied permission
//! says nothing about the archive.

mod manifest_check;
mod problem;
#[cfg(test)]
pub(crate) mod sample;
pub mod tar_check;
mod tar_header;
mod tar_source;
#[cfg(test)]
mod tests;
pub mod text;
mod visit;

pub use problem::{Problem, Problems};
pub use visit::visit_prefix;

use crate::archive::layout::{MANIFEST_NAME, RUN_RECORD_NAME, report_name, tar_name};
use crate::archive::manifest::Manifest;
use crate::archive::run_record::RunRecord;
use crate::archive::{Archive, ReadError, Replaced};
use crate::workers;
pub use manifest_check::problems_of_manifest;
use manifest_check::{Reported, check_manifest, object_of};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use prefix_tar::protocol::run_id::RunId;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use tar_check::{TarCheck, check_tar};
use text::{one_line, quoted};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// How often a prefix is read if it is replaced in the meantime.
const READS_MAX: u32 = 2;

/// What was read, and what is wrong with it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// Prefixes whose tar was read.
    pub prefixes: usize,
    /// Valid ranges.
    pub ranges: u64,
    /// Their hashes.
    pub hashes: u64,
    /// The bytes of tars that were read.
    pub tar_bytes: u64,
    /// Everything that is wrong, in order.
    pub damages: Vec<Problem>,
    /// Everything that could not be read, in order. It may be whole or damaged.
    pub unreadable: Vec<Problem>,
    /// The run that has not finished yet, if there is one. It may explain damages: until its end, the manifest
    /// describes the archive as it was before.
    pub unfinished_run: Option<UnfinishedRun>,
}

/// A run that has begun and that no manifest names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UnfinishedRun {
    /// The run.
    pub run: RunId,
    /// When it began, on one line and of bounded length.
    pub started: String,
    /// The source, on one line and of bounded length.
    pub source: String,
    /// Whether there is a manifest, of an earlier run.
    pub has_manifest: bool,
}

impl UnfinishedRun {
    /// What people may see of the record of a run that no manifest names.
    pub fn of(record: RunRecord, has_manifest: bool) -> Self {
        Self {
            has_manifest,
            started: one_line(&record.started),
            source: one_line(&record.source),
            run: record.run,
        }
    }
}

impl fmt::Display for UnfinishedRun {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "unfinished: run {} from {} began at {}; {}; repeat the command that began the run to resume it",
            self.run,
            self.source,
            self.started,
            if self.has_manifest {
                "until the run ends, the manifest describes the archive as it was before"
            } else {
                "no manifest says that it has ended"
            }
        )
    }
}

/// Verifies an archive until `shutdown`. It blocks, so its thread must not be one of `runtime`'s
/// workers. `expected` is the mode that the user expects; the books may state it. `on_prefixes` gets the number of prefixes before the first is read; `on_prefix` is
/// called after each.
pub fn verify(
    archive: &dyn Archive,
    runtime: &Handle,
    shutdown: &CancellationToken,
    expected: Option<Mode>,
    on_prefixes: impl FnOnce(usize),
    on_prefix: impl Fn() + Sync,
) -> Verdict {
    let mut archive = Reader {
        archive,
        runtime,
        mode: None,
    };
    let mut problems = Problems::default();
    let manifest = archive.manifest(&mut problems);
    let record = archive.run_record(&mut problems);
    archive.mode = match &manifest {
        Some(manifest) => Some(agreed(manifest.mode, expected, &mut problems)),
        None => expected.or(record.as_ref().map(|record| record.mode)),
    };
    let prefixes = archive.prefixes(manifest.as_ref(), shutdown, &mut problems);
    on_prefixes(prefixes.len());
    let results = workers::for_each(&prefixes, shutdown, |prefix| {
        let result = archive.verify_prefix(prefix, manifest.as_ref());
        on_prefix();
        result
    });
    let mut verdict = Verdict::default();
    let mut reported = BTreeMap::new();
    for (prefix, result) in results {
        verdict.prefixes += usize::from(result.is_read);
        verdict.ranges += result.ranges;
        verdict.hashes += result.hashes;
        verdict.tar_bytes += result.tar_bytes;
        problems.append(result.problems);
        reported.extend(result.reported.map(|reported| (prefix, reported)));
    }
    let finished = manifest.as_ref().and_then(|manifest| manifest.run.as_ref());
    let (finished, unfinished): (Option<RunRecord>, _) = match record {
        Some(record) if Some(&record.run) == finished => (Some(record), None),
        record => (None, record),
    };
    let has_manifest = manifest.is_some();
    if let Some(manifest) = manifest {
        check_manifest(&manifest, &reported, finished.as_ref(), &mut problems);
    }
    verdict.damages = problems.damages;
    verdict.unreadable = problems.unreadable;
    // Whether a run is unfinished is not known if only its record could be read.
    let is_manifest_unreadable =
        (verdict.unreadable.iter()).any(|problem| problem.file == MANIFEST_NAME);
    verdict.unfinished_run = unfinished
        .filter(|_| !is_manifest_unreadable)
        .map(|record| UnfinishedRun::of(record, has_manifest));
    verdict
}

/// The mode that the manifest states. If the user expects another one, this is not the right archive.
fn agreed(stated: Mode, expected: Option<Mode>, problems: &mut Problems) -> Mode {
    if let Some(expected) = expected.filter(|expected| *expected != stated) {
        let (stated, expected) = (stated.hash_name(), expected.hash_name());
        let what = format!("says that the archive holds {stated} hashes, not {expected} hashes");
        problems.damage(MANIFEST_NAME, &what);
    }
    stated
}

/// What was found in one prefix. The report itself, with its 4,096 sizes and ETags, is not kept.
#[derive(Default)]
struct PrefixResult {
    reported: Option<Reported>,
    is_read: bool,
    ranges: u64,
    hashes: u64,
    tar_bytes: u64,
    problems: Problems,
}

/// The archive, for threads that may block.
struct Reader<'archive> {
    archive: &'archive dyn Archive,
    runtime: &'archive Handle,
    /// Which hashes the archive holds; `None` if nothing but its reports may say so.
    mode: Option<Mode>,
}

impl Reader<'_> {
    fn manifest(&self, problems: &mut Problems) -> Option<Manifest> {
        match self.runtime.block_on(self.archive.manifest()) {
            Ok(Some(manifest)) => return Some(manifest),
            Ok(None) => problems.damage(
                MANIFEST_NAME,
                "is missing: the archive is incomplete, or this is not an archive",
            ),
            Err(error) => problems.error(MANIFEST_NAME, &error),
        }
        None
    }

    /// The record of the latest run. Archives of version 0.1.0 have none.
    fn run_record(&self, problems: &mut Problems) -> Option<RunRecord> {
        match self.runtime.block_on(self.archive.run_record()) {
            Ok(record) => record,
            Err(error) => {
                problems.error(RUN_RECORD_NAME, &error);
                None
            }
        }
    }

    /// The prefixes that the manifest names, and those that have a tar or a report without being named.
    fn prefixes(
        &self,
        manifest: Option<&Manifest>,
        shutdown: &CancellationToken,
        problems: &mut Problems,
    ) -> Vec<Prefix> {
        let objects = manifest.into_iter().flat_map(|manifest| &manifest.objects);
        let mut prefixes: BTreeSet<Prefix> = objects.map(|object| object.prefix).collect();
        let others: Vec<Prefix> = Prefix::all()
            .filter(|prefix| !prefixes.contains(prefix))
            .collect();
        // Each request to a store that is down takes all its attempts, so the first failure is the
        // last request.
        let is_lost = AtomicBool::new(false);
        let found = workers::for_each(&others, shutdown, |prefix| {
            if is_lost.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let found = self.runtime.block_on(self.holds(prefix));
            if matches!(found, Err((_, ReadError::Unreadable { .. }))) {
                is_lost.store(true, Ordering::Relaxed);
            }
            found
        });
        for (prefix, found) in found {
            match found {
                Ok(false) => {}
                Ok(true) => {
                    prefixes.insert(prefix);
                }
                Err((file, ReadError::Unreadable { reason, .. })) => problems.unreadable(
                    &file,
                    &format!(
                        "{reason}; other tars that the manifest does not name were not looked for"
                    ),
                ),
                Err((file, error)) => problems.error(&file, &error),
            }
        }
        prefixes.into_iter().collect()
    }

    /// Whether the archive has a tar or a report of a prefix. A run removes neither. An error is one of the file that
    /// it comes with.
    async fn holds(&self, prefix: Prefix) -> Result<bool, (String, ReadError)> {
        let (tar, report) = (tar_name(prefix), report_name(prefix));
        match self.archive.has_tar(prefix).await {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => return Err((tar, error)),
        }
        let report_generation = self.archive.generation(&report).await;
        report_generation
            .map(|generation| generation.is_some())
            .map_err(|error| (report, error))
    }

    fn verify_prefix(&self, prefix: Prefix, manifest: Option<&Manifest>) -> PrefixResult {
        let mut reads = (0..READS_MAX).filter_map(|_| self.read_prefix(prefix, manifest));
        reads.next().unwrap_or_else(|| {
            let mut result = PrefixResult::default();
            let what = format!(
                "it was replaced {READS_MAX} times while it was read; verify again when no run writes to the archive"
            );
            result.problems.unreadable(&tar_name(prefix), &what);
            result
        })
    }

    /// Reads a prefix once; `None` if it was replaced in the meantime.
    fn read_prefix(&self, prefix: Prefix, manifest: Option<&Manifest>) -> Option<PrefixResult> {
        let mut result = PrefixResult::default();
        let report = self.report(prefix, manifest, &mut result.problems);
        result.reported = report.as_ref().map(Reported::of);
        let file = tar_name(prefix);
        let found = match self.runtime.block_on(self.archive.open_tar(prefix)) {
            Ok(Some(tar)) => {
                let stated = report.as_ref().map(|report| report.mode);
                let mode = self.mode.or(stated).unwrap_or_default();
                check_tar(tar, prefix, mode, report.as_ref())
            }
            Ok(None) => {
                result.problems.damage(&file, "is missing");
                return Some(result);
            }
            Err(error) => {
                result.problems.error(&file, &error);
                return Some(result);
            }
        };
        let found = compared_with_manifest(found, prefix, report.as_ref(), manifest);
        if found.unreadable.as_ref().is_some_and(is_replaced) {
            return None;
        }
        if !found.damages.is_empty() && self.has_another_report(prefix, report.as_ref()) {
            return None;
        }
        result.is_read = found.unreadable.is_none();
        result.ranges = found.ranges;
        result.hashes = found.hashes;
        result.tar_bytes = found.content_length;
        for damage in found.damages.into_lines() {
            result.problems.damage(&file, &damage);
        }
        if let Some(error) = found.unreadable {
            result.problems.unreadable(&file, &error.to_string());
        }
        Some(result)
    }

    /// The report of a prefix, if it is valid.
    fn report(
        &self,
        prefix: Prefix,
        manifest: Option<&Manifest>,
        problems: &mut Problems,
    ) -> Option<Report> {
        let file = report_name(prefix);
        let report = match self.runtime.block_on(self.archive.report(prefix)) {
            Ok(Some(report)) => report,
            Ok(None) => {
                problems.damage(&file, "is missing");
                return None;
            }
            Err(error) => {
                problems.error(&file, &error);
                return None;
            }
        };
        if report.prefix != prefix {
            problems.damage(&file, "describes another prefix");
            return None;
        }
        if let Err(fault) = report.check() {
            problems.damage(&file, &format!("is not valid: {fault}"));
            return None;
        }
        if let Some(mode) = self.mode.filter(|mode| *mode != report.mode) {
            let (found, expected) = (report.mode.hash_name(), mode.hash_name());
            let what = format!("is about {found} hashes, but the archive holds {expected} hashes");
            problems.damage(&file, &what);
            return None;
        }
        if let Some(manifest) = manifest.filter(|manifest| manifest.source != report.source) {
            let (found, expected) = (&report.source, &manifest.source);
            let what = format!(
                "names the source {}, but the manifest names {}",
                quoted(found.as_bytes()),
                quoted(expected.as_bytes())
            );
            problems.damage(&file, &what);
        }
        Some(report)
    }

    /// Whether a run has written another report since `report` was read, so that the tar is another
    /// one, too.
    fn has_another_report(&self, prefix: Prefix, report: Option<&Report>) -> bool {
        report.is_some_and(
            |report| match self.runtime.block_on(self.archive.report(prefix)) {
                Ok(now) => now.as_ref() != Some(report),
                Err(_) => false,
            },
        )
    }
}

/// Without a report, the manifest still states a tar's length and checksum.
fn compared_with_manifest(
    mut found: TarCheck,
    prefix: Prefix,
    report: Option<&Report>,
    manifest: Option<&Manifest>,
) -> TarCheck {
    if let (None, true, Some(object)) = (
        report,
        found.is_read_to_end,
        manifest.and_then(|manifest| object_of(manifest, prefix)),
    ) {
        found.compare_object(object.content_length, object.crc32c, "the manifest");
    }
    found
}

/// Whether a tar was replaced while it was read.
fn is_replaced(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<Replaced>())
}
