//! [`Inventory`]: what an archive says of itself, and whether everything that its manifest names is there.

use super::record::FailedAttempts;
use crate::archive::layout::{MANIFEST_NAME, report_name};
use crate::archive::manifest::Manifest;
use crate::archive::measurements::Measurements;
use crate::archive::{Archive, ReadError, measurements};
use crate::humanize;
use crate::verify::UnfinishedRun;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use prefix_tar::protocol::prefix::{Prefix, RANGES_PER_PREFIX};
use prefix_tar::protocol::run_id::RunId;
use std::collections::{BTreeMap, BTreeSet};

/// Prefixes that are looked for at the same time.
const LOOKS_MAX: usize = 16;

/// What is at a destination.
#[derive(Debug)]
pub enum Look {
    /// An archive.
    Found(Box<Inventory>),
    /// A run that has not finished, and no manifest.
    Unfinished(UnfinishedRun),
    /// Neither a manifest nor a run.
    Nothing,
    /// What is there may not be read.
    Denied,
}

/// An archive with a manifest.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// The manifest.
    pub manifest: Manifest,
    /// A later run that has not finished.
    pub unfinished_run: Option<UnfinishedRun>,
    /// The prefixes of the manifest whose tar or report is not there.
    pub missing: BTreeSet<Prefix>,
    /// What failed in the latest run; `None` if it left no measurements.
    pub failures: Option<FailedAttempts>,
}

/// Looks at what is at a destination. Of tars, only their presence is asked for.
///
/// # Errors
/// The books cannot be read, or are not valid.
pub async fn look(archive: &dyn Archive) -> Result<Look, ReadError> {
    // In this order: a run that finishes in between is seen as finished.
    let record = archive.run_record().await?;
    let manifest = archive.manifest().await?;
    let finished = manifest.as_ref().and_then(|manifest| manifest.run.clone());
    let unfinished = record
        .filter(|record| Some(&record.run) != finished.as_ref())
        .map(|record| UnfinishedRun::of(record, manifest.is_some()));
    let Some(manifest) = manifest else {
        return Ok(match unfinished {
            Some(run) => Look::Unfinished(run),
            None if archive.is_denied(MANIFEST_NAME).await? => Look::Denied,
            None => Look::Nothing,
        });
    };
    let latest = unfinished.as_ref().map(|run| &run.run);
    let failures = failures(archive, latest.or(finished.as_ref())).await;
    let mut inventory = Inventory {
        manifest,
        unfinished_run: unfinished,
        missing: BTreeSet::new(),
        failures,
    };
    inventory.missing = missing(archive, inventory.prefixes()).await?;
    Ok(Look::Found(Box::new(inventory)))
}

/// The prefixes whose tar or report is not there.
async fn missing(
    archive: &dyn Archive,
    prefixes: BTreeSet<Prefix>,
) -> Result<BTreeSet<Prefix>, ReadError> {
    let looks = stream::iter(prefixes).map(|prefix| async move {
        let has_tar = archive.has_tar(prefix).await?;
        let is_whole = has_tar && archive.generation(&report_name(prefix)).await?.is_some();
        Ok((!is_whole).then_some(prefix))
    });
    let found = looks.buffer_unordered(LOOKS_MAX);
    found
        .try_filter_map(async |missing| Ok(missing))
        .try_collect()
        .await
}

/// What failed in a run. Nobody needs measurements, so those that cannot be read count as none.
async fn failures(archive: &dyn Archive, run: Option<&RunId>) -> Option<FailedAttempts> {
    match measurements(archive).await {
        Ok(measured) => measured
            .filter(|measured| Some(&measured.run) == run)
            .map(|measured| failed_attempts(&measured)),
        Err(error) => {
            tracing::debug!(%error, "the measurements are not used");
            None
        }
    }
}

fn failed_attempts(measured: &Measurements) -> FailedAttempts {
    let mut kinds = BTreeMap::<_, u32>::new();
    let mut prefixes = BTreeSet::new();
    for invocation in &measured.invocations {
        for kind in invocation
            .attempts
            .iter()
            .filter_map(|attempt| attempt.failure)
        {
            *kinds.entry(kind.as_str().to_owned()).or_default() += 1;
            prefixes.insert(invocation.prefix);
        }
    }
    FailedAttempts {
        run: measured.run.clone(),
        attempts: kinds.values().sum(),
        kinds,
        prefixes,
    }
}

/// What a run that has not finished means for the archive.
pub fn unfinished(run: &UnfinishedRun) -> String {
    format!(
        "run {} from {} began at {} and has not finished; the command that began it resumes it",
        run.run, run.source, run.started
    )
}

impl Inventory {
    /// The prefixes that the manifest names.
    pub fn prefixes(&self) -> BTreeSet<Prefix> {
        let objects = self.manifest.objects.iter();
        objects.map(|object| object.prefix).collect()
    }

    /// The ranges of these prefixes.
    pub fn ranges(&self) -> u64 {
        self.prefixes().len() as u64 * u64::from(RANGES_PER_PREFIX)
    }

    /// Why the archive is not complete; `None` if it is. Which prefixes it holds is the choice of its run.
    pub fn incomplete(&self) -> Option<String> {
        if let Some(run) = &self.unfinished_run {
            return Some(unfinished(run));
        }
        if self.manifest.objects.is_empty() {
            return Some("it holds no prefixes".to_owned());
        }
        (!self.missing.is_empty()).then(|| {
            format!(
                "the tar or the report is missing of {}: {}",
                humanize::prefixes(self.missing.len()),
                humanize::listed(self.missing.iter())
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::folder::FolderArchive;
    use crate::verify::sample::{archive_of, change_json};
    use prefix_tar::protocol::run_id::RunId;
    use serde_json::json;
    use std::path::Path;

    const PREFIXES: [Prefix; 2] = [Prefix::from_number(0), Prefix::from_number(0xAB)];

    fn run_id(random: u32) -> RunId {
        RunId::new("20260101T000000Z", random).expect("an id")
    }

    async fn found(folder: &Path) -> Inventory {
        match look(&FolderArchive::new(folder.to_owned())).await {
            Ok(Look::Found(inventory)) => *inventory,
            other => panic!("{other:?}"),
        }
    }

    fn write(folder: &Path, name: &str, value: &serde_json::Value) {
        std::fs::write(folder.join(name), value.to_string()).expect("written");
    }

    fn run_record(run: &RunId) -> serde_json::Value {
        json!({
            "tool": "prefix-tar", "version": "0.1.0", "run": run, "source": "http://a\u{1b}",
            "started": "2026-01-02T00:00:00Z", "force": false, "upload_seconds": 60,
            "closed": true, "prefixes": [],
        })
    }

    #[tokio::test]
    async fn a_whole_archive_is_complete_until_a_file_is_missing() {
        let folder = archive_of(&PREFIXES);
        let inventory = found(folder.path()).await;
        assert_eq!(inventory.incomplete(), None);
        assert_eq!(
            (inventory.prefixes(), inventory.ranges()),
            (PREFIXES.into(), 8_192)
        );
        assert_eq!(inventory.failures, None);
        std::fs::remove_file(folder.path().join("AB.json")).expect("removed");
        std::fs::remove_file(folder.path().join("00.tar")).expect("removed");
        let reason = found(folder.path()).await.incomplete();
        let expected = "the tar or the report is missing of 2 prefixes: 00 AB";
        assert_eq!(reason.as_deref(), Some(expected));
        change_json(&folder.path().join("manifest.json"), |manifest| {
            manifest["objects"] = json!([]);
        });
        let reason = found(folder.path()).await.incomplete();
        assert_eq!(reason.as_deref(), Some("it holds no prefixes"));
    }

    #[tokio::test]
    async fn a_run_that_the_manifest_does_not_name_is_unfinished() {
        let folder = archive_of(&PREFIXES);
        write(folder.path(), "run.json", &run_record(&run_id(1)));
        let reason = found(folder.path()).await.incomplete().expect("a reason");
        assert_eq!(
            reason,
            "run 20260101T000000Z-00000001 from http://a\\u{1b} began at 2026-01-02T00:00:00Z and has not finished; the command that began it resumes it"
        );
        change_json(&folder.path().join("manifest.json"), |manifest| {
            manifest["run"] = json!(run_id(1));
        });
        assert_eq!(found(folder.path()).await.incomplete(), None);
        std::fs::remove_file(folder.path().join("manifest.json")).expect("removed");
        let archive = FolderArchive::new(folder.path().to_owned());
        assert!(matches!(look(&archive).await, Ok(Look::Unfinished(_))));
        std::fs::remove_file(folder.path().join("run.json")).expect("removed");
        assert!(matches!(look(&archive).await, Ok(Look::Nothing)));
        std::fs::write(folder.path().join("run.json"), "{").expect("written");
        assert!(matches!(
            look(&archive).await,
            Err(ReadError::Invalid { .. })
        ));
    }

    #[tokio::test]
    async fn what_failed_is_read_from_the_measurements_of_the_latest_run() {
        let folder = archive_of(&PREFIXES);
        change_json(&folder.path().join("manifest.json"), |manifest| {
            manifest["run"] = json!(run_id(1));
        });
        let attempt = |failure: Option<&str>| json!({ "began_milliseconds": 0, "answered_milliseconds": null, "ended_milliseconds": 9, "failure": failure });
        let invocation = |prefix: &str, attempts: &[Option<&str>]| {
            let attempts: Vec<_> = attempts.iter().map(|failure| attempt(*failure)).collect();
            json!({
                "prefix": prefix, "process": 0, "slot": 0, "attempts": attempts, "seconds": null,
                "linear_memory_peak": null, "recording": null,
            })
        };
        let process = json!({
            "started": "2026-01-01T00:00:00Z", "host": "embedded", "parallel": 4, "window": null, "processors": 2,
            "usage": { "milliseconds": [], "rss_bytes": [], "cpu_milliseconds": [] },
        });
        let mut measured = json!({
            "tool": "prefix-tar", "version": "0.1.0", "run": run_id(1), "source": "http://a", "processes": [process],
            "invocations": [
                invocation("00", &[None]),
                invocation("AB", &[Some("source_status"), Some("died"), Some("source_status")]),
            ],
        });
        write(folder.path(), "measurements.json", &measured);
        let failures = found(folder.path()).await.failures.expect("measurements");
        assert_eq!(
            (failures.attempts, failures.prefixes),
            (3, [PREFIXES[1]].into())
        );
        let kinds = [("died".to_owned(), 1), ("source_status".to_owned(), 2)];
        assert_eq!(failures.kinds, kinds.into());
        measured["run"] = json!(run_id(2));
        write(folder.path(), "measurements.json", &measured);
        assert_eq!(found(folder.path()).await.failures, None);
        std::fs::write(folder.path().join("measurements.json"), "{").expect("written");
        assert_eq!(found(folder.path()).await.failures, None);
    }
}
