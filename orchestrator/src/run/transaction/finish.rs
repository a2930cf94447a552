//! The last step of a run: the manifest, once every report fits its tar.

use super::{CONFLICTS_MAX, Confirmed, Transaction, TransactionError, encode};
use crate::archive::layout::MANIFEST_NAME;
use crate::archive::manifest::{Manifest, ManifestObject};
use crate::archive::{ReadError, Versioned, manifest_to_replace, report_to_replace, whole};
use crate::destination::Written;
use crate::run::outcome::StoredPrefix;
use futures::{StreamExt as _, TryStreamExt as _};
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use std::collections::BTreeMap;

/// Prefixes that are checked at the same time.
const CHECKS_MAX: usize = 8;

impl Transaction {
    /// Writes the manifest. It covers `stored`, all the prefixes of this run, and whatever else the archive holds whole
    /// of the same source and mode. `finished` is the present time in RFC 3339.
    ///
    /// # Errors
    /// A tar does not fit its report any more, another run has taken over, or the manifest cannot be written.
    pub async fn finish(
        &self,
        stored: &[&StoredPrefix],
        finished: &str,
    ) -> Result<Manifest, TransactionError> {
        for _ in 0..CONFLICTS_MAX {
            let existing = manifest_to_replace(self.archive()).await?;
            let archived = self.archived(stored, &existing).await?;
            let record = self.held().record;
            let manifest = Manifest {
                tool: "prefix-tar".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                run: Some(record.run.clone()),
                source: record.source.clone(),
                mode: record.mode,
                started: record.started.clone(),
                finished: finished.to_owned(),
                totals: archived.values().map(|stored| stored.totals).sum(),
                objects: archived.into_values().map(|stored| stored.object).collect(),
            };
            if let Some(existing) = &existing.value
                && existing.run == manifest.run
                && existing.describes_the_same_archive_as(&manifest)
            {
                return Ok(existing.clone());
            }
            let permit = self
                .destination
                .permit_write(MANIFEST_NAME, existing.base)
                .await?;
            if self.confirm().await? == Confirmed::Changed {
                continue;
            }
            let content = encode(MANIFEST_NAME, &manifest)?;
            if let Written::Done { generation } = self.destination.write(permit, content).await? {
                self.expect_kept(generation, &manifest).await?;
                warn_about_lost(existing.value.as_ref(), &manifest);
                return Ok(manifest);
            }
        }
        Err(TransactionError::Busy(MANIFEST_NAME.to_owned()))
    }

    /// Checks that the store has the manifest that it confirmed: a run is not complete without it.
    async fn expect_kept(
        &self,
        generation: String,
        manifest: &Manifest,
    ) -> Result<(), TransactionError> {
        let is_kept = self.archive().generation(MANIFEST_NAME).await? == Some(generation);
        if is_kept || self.is_blind_now().await? {
            return Ok(());
        }
        // Another process of the run may have written the same, or another run have followed.
        let current = manifest_to_replace(self.archive()).await?.value;
        if current.is_some_and(|current| current.run == manifest.run) {
            return Ok(());
        }
        self.confirm().await?;
        Err(TransactionError::NotKept(MANIFEST_NAME.to_owned()))
    }

    /// Everything that the manifest will cover, read from the archive at this moment.
    async fn archived(
        &self,
        stored: &[&StoredPrefix],
        existing: &Versioned<Manifest>,
    ) -> Result<BTreeMap<Prefix, StoredPrefix>, TransactionError> {
        // Whoever can read the manifest is not blind.
        if existing.base.is_none() && self.is_blind_now().await? {
            let known = stored
                .iter()
                .map(|stored| (stored.prefix, (*stored).clone()));
            return Ok(known.collect());
        }
        let wanted: BTreeMap<Prefix, &StoredPrefix> = stored
            .iter()
            .map(|stored| (stored.prefix, *stored))
            .collect();
        let existing = existing.value.as_ref();
        let checks = futures::stream::iter(Prefix::all()).map(|prefix| {
            let wanted = wanted.get(&prefix).copied();
            async move {
                let found = match wanted {
                    Some(wanted) => self.of_run(wanted).await.map(Some),
                    None => self.of_others(prefix, existing).await,
                };
                found.map(|found| found.map(|found| (prefix, found)))
            }
        });
        checks
            .buffered(CHECKS_MAX)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await
    }

    /// A prefix that this run has stored or keeps, as the archive has it now.
    async fn of_run(&self, wanted: &StoredPrefix) -> Result<StoredPrefix, TransactionError> {
        let prefix = wanted.prefix;
        let record = self.held().record;
        let is_kept = record.prefix(prefix).is_some_and(|planned| planned.kept);
        let found = whole(prefix, self.archive()).await?;
        let found = found.filter(|(report, _)| {
            record.mirrors(report) && (is_kept || report.run.as_ref() == Some(&record.run))
        });
        found
            .map(|(report, _)| StoredPrefix::new(&report, wanted.attempts))
            .ok_or(TransactionError::Changed(prefix))
    }

    /// A prefix that this run does not have, if it is whole and from the same source.
    async fn of_others(
        &self,
        prefix: Prefix,
        existing: Option<&Manifest>,
    ) -> Result<Option<StoredPrefix>, TransactionError> {
        let found = async {
            if let Some(unchanged) = self.unchanged(prefix, existing).await? {
                return Ok(Some(unchanged));
            }
            let found = whole(prefix, self.archive()).await?;
            let record = self.held().record;
            let found = found.filter(|(report, _)| record.mirrors(report));
            Ok(found.map(|(report, _)| StoredPrefix::new(&report, 1)))
        };
        match found.await {
            // Whatever is no regular file is not whole, and none of this run's business.
            Err(ReadError::Invalid { .. }) => Ok(None),
            found => Ok(found?),
        }
    }

    /// A prefix that this run does not have, if its tar and its report still are the ones that the manifest describes.
    /// In a folder this saves reading the tar.
    async fn unchanged(
        &self,
        prefix: Prefix,
        existing: Option<&Manifest>,
    ) -> Result<Option<StoredPrefix>, ReadError> {
        let record = self.held().record;
        let listed = existing
            .filter(|existing| existing.source == record.source && existing.mode == record.mode)
            .and_then(|existing| {
                existing
                    .objects
                    .iter()
                    .find(|object| object.prefix == prefix)
            });
        let Some(listed) = listed.filter(|listed| listed.generation.is_some()) else {
            return Ok(None);
        };
        if self.archive().generation(&listed.object).await? != listed.generation {
            return Ok(None);
        }
        let report = report_to_replace(self.archive(), prefix).await?.value;
        let report = report.filter(|report| report.check().is_ok() && record.mirrors(report));
        // A copied or restored tar has another generation than its report names.
        let report = report.map(|report| Report {
            generation: listed.generation.clone(),
            ..report
        });
        Ok(report
            .map(|report| StoredPrefix::new(&report, 1))
            .filter(|stored| stored.object == *listed))
    }
}

/// Says which prefixes the archive had before the run, and has lost since.
fn warn_about_lost(before: Option<&Manifest>, now: &Manifest) {
    let before = before.filter(|before| before.source == now.source);
    for object in before.into_iter().flat_map(|before| &before.objects) {
        let has_prefix = |other: &ManifestObject| other.prefix == object.prefix;
        if !now.objects.iter().any(has_prefix) {
            let prefix = object.prefix;
            tracing::warn!(%prefix, "the archive had this prefix, but its tar or its report is missing or damaged now");
        }
    }
}
