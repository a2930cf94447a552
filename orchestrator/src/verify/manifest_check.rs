//! Compares the manifest with the reports, and its totals with its objects.

use super::problem::Problems;
use crate::archive::Archive;
use crate::archive::layout::{MANIFEST_NAME, RUN_RECORD_NAME, tar_name};
use crate::archive::manifest::{Manifest, ManifestObject, Totals};
use crate::archive::run_record::RunRecord;
use futures::{StreamExt as _, stream};
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use std::collections::BTreeMap;
use std::pin::pin;

/// Tars that are looked for at the same time.
const LOOKS_MAX: usize = 16;

/// What a valid report has to say about the manifest.
#[derive(Debug)]
pub(super) struct Reported {
    object: ManifestObject,
    /// Whether a later run than that of the manifest may have found nothing newer.
    is_kept: bool,
    totals: Totals,
}

impl Reported {
    pub(super) fn of(report: &Report) -> Self {
        Self {
            object: ManifestObject::of_report(report),
            is_kept: report.seen.is_some(),
            totals: Totals::of_report(report),
        }
    }

    /// Whether the manifest says the same of the prefix. Version 0.1.0 named no runs. An object that is copied or
    /// restored has another generation, and is the same object, and so is one in which a run found nothing to replace.
    fn is(&self, object: &ManifestObject) -> bool {
        let run = object.run.as_ref().and(self.object.run.as_ref());
        let run = run.filter(|_| !self.is_kept);
        let stated = ManifestObject {
            run: run.or(object.run.as_ref()).cloned(),
            generation: object.generation.clone(),
            ..self.object.clone()
        };
        stated == *object
    }
}

/// The manifest's object for a prefix.
pub(super) fn object_of(manifest: &Manifest, prefix: Prefix) -> Option<&ManifestObject> {
    let mut objects = manifest.objects.iter();
    objects.find(|object| object.prefix == prefix)
}

/// Checks the manifest. `reported` has an entry for every prefix whose report is valid; `finished` is the record of the
/// run that wrote the manifest, unless a later run has begun.
pub(super) fn check_manifest(
    manifest: &Manifest,
    reported: &BTreeMap<Prefix, Reported>,
    finished: Option<&RunRecord>,
    problems: &mut Problems,
) {
    let mut damage = |what: &str| problems.damage(MANIFEST_NAME, what);
    let named: BTreeMap<Prefix, &ManifestObject> = manifest
        .objects
        .iter()
        .map(|object| (object.prefix, object))
        .collect();
    if !manifest.objects.is_sorted_by_key(|object| object.prefix) {
        damage("does not list its prefixes in order");
    }
    if named.len() != manifest.objects.len() {
        damage("names a prefix twice");
    }
    for (prefix, object) in &named {
        match reported.get(prefix) {
            Some(reported) if !reported.is(object) => {
                damage(&format!("contradicts the report of {prefix}"));
            }
            None if object.object != tar_name(*prefix) => {
                damage(&format!("names another file than {}", tar_name(*prefix)));
            }
            _ => {}
        }
    }
    for prefix in reported.keys().filter(|prefix| !named.contains_key(prefix)) {
        damage(&format!("does not name {prefix}, which is in the archive"));
    }
    if named.is_empty() {
        damage("names no prefix");
    }
    let of_run = finished.into_iter().flat_map(|record| &record.prefixes);
    for lost in of_run.filter(|planned| !named.contains_key(&planned.prefix)) {
        let prefix = lost.prefix;
        damage(&format!(
            "does not name {prefix}, which its run has mirrored, see {RUN_RECORD_NAME}"
        ));
    }
    if !sums_objects(manifest) {
        damage("has totals that are not the sums over its objects");
    } else if named.keys().eq(reported.keys()) {
        let totals: Totals = reported.values().map(|reported| reported.totals).sum();
        if totals != manifest.totals {
            damage("has totals that are not the sums over the reports");
        }
    }
}

/// What is wrong with the manifest, as far as its reports are not needed: it contradicts itself, or leaves out a tar that
/// is there. If the account may not know whether others are there, the manifest is believed.
pub async fn problems_of_manifest(archive: &dyn Archive, manifest: &Manifest) -> Problems {
    let mut problems = Problems::default();
    check_manifest(manifest, &BTreeMap::new(), None, &mut problems);
    let record = archive.run_record().await.ok().flatten();
    if record.is_some_and(|record| Some(record.run) != manifest.run) {
        // A run that has not finished may be adding prefixes.
        return problems;
    }
    let others = Prefix::all().filter(|prefix| object_of(manifest, *prefix).is_none());
    let looks = stream::iter(others).map(async |prefix| (prefix, archive.has_tar(prefix).await));
    let mut found = pin!(looks.buffered(LOOKS_MAX));
    while let Some((prefix, has_tar)) = found.next().await {
        match has_tar {
            Ok(false) => {}
            Ok(true) => problems.damage(
                MANIFEST_NAME,
                &format!("does not name {prefix}, which is in the archive"),
            ),
            Err(error) => {
                tracing::debug!(%error, "tars that the manifest does not name are not looked for");
                break;
            }
        }
    }
    problems
}

/// Whether the totals fit the objects. That can be told without the reports.
fn sums_objects(manifest: &Manifest) -> bool {
    let lengths = manifest.objects.iter().map(|object| object.content_length);
    // The numbers are whatever the file says, so that a sum of 64 bits could overflow.
    let content_length: u128 = lengths.map(u128::from).sum();
    manifest.totals.prefixes == manifest.objects.len() as u64
        && u128::from(manifest.totals.content_length) == content_length
}
