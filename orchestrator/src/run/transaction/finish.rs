//! The last step of a run: the manifest, once every report fits its tar.

use super::{CONFLICTS_MAX, Confirmed, Transaction, TransactionError, encode};
use crate::archive::layout::MANIFEST_NAME;
use crate::archive::manifest::Manifest;
use crate::archive::{manifest_to_replace, report_to_replace};
use crate::destination::Written;
use crate::run::outcome::StoredPrefix;
use crate::run::resume::whole;
use futures::{StreamExt as _, TryStreamExt as _};
use prefix_tar::protocol::prefix::Prefix;
use std::collections::BTreeMap;

/// Prefixes that are checked at the same time.
const CHECKS_MAX: usize = 8;

impl Transaction {
    /// Writes the manifest. It covers `stored`, all the prefixes of this run, and whatever else the archive holds whole
    /// from the same source. `finished` is the present time in RFC 3339.
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
            let archived = self.archived(stored, existing.value.as_ref()).await?;
            let record = self.held().record;
            let manifest = Manifest {
                tool: "prefix-tar".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                run: Some(record.run.clone()),
                source: record.source.clone(),
                started: record.started.clone(),
                finished: finished.to_owned(),
                totals: archived.values().map(|stored| stored.totals).sum(),
                objects: archived.into_values().map(|stored| stored.object).collect(),
            };
            if let Some(existing) = existing.value
                && existing.run == manifest.run
                && existing.describes_the_same_archive_as(&manifest)
            {
                return Ok(existing);
            }
            let permit = self
                .destination
                .permit_write(MANIFEST_NAME, existing.base)
                .await?;
            if self.confirm().await? == Confirmed::Changed {
                continue;
            }
            let content = encode(MANIFEST_NAME, &manifest)?;
            if let Written::Done { .. } = self.destination.write(permit, content).await? {
                // A store that confirms what it does not keep must not make a run complete.
                if !self.is_blind && self.archive().generation(MANIFEST_NAME).await?.is_none() {
                    return Err(TransactionError::NotKept(MANIFEST_NAME.to_owned()));
                }
                return Ok(manifest);
            }
        }
        Err(TransactionError::Busy(MANIFEST_NAME.to_owned()))
    }

    /// Everything that the manifest will cover, read from the archive at this moment.
    async fn archived(
        &self,
        stored: &[&StoredPrefix],
        existing: Option<&Manifest>,
    ) -> Result<BTreeMap<Prefix, StoredPrefix>, TransactionError> {
        if self.is_blind {
            let known = stored
                .iter()
                .map(|stored| (stored.prefix, (*stored).clone()));
            return Ok(known.collect());
        }
        let wanted: BTreeMap<Prefix, &StoredPrefix> = stored
            .iter()
            .map(|stored| (stored.prefix, *stored))
            .collect();
        let source = &self.held().record.source;
        let checks = futures::stream::iter(Prefix::all()).map(|prefix| {
            let wanted = wanted.get(&prefix).copied();
            async move {
                if wanted.is_none()
                    && let Some(unchanged) = self.unchanged(prefix, existing).await?
                {
                    return Ok(Some((prefix, unchanged)));
                }
                let found = whole(prefix, self.archive()).await?;
                let found = found.filter(|(report, _)| report.source == *source);
                match (found, wanted) {
                    (Some((report, _)), wanted) => {
                        let attempts = wanted.map_or(1, |stored| stored.attempts);
                        Ok(Some((prefix, StoredPrefix::new(&report, attempts))))
                    }
                    (None, Some(_)) => Err(TransactionError::Changed(prefix)),
                    (None, None) => Ok(None),
                }
            }
        });
        checks
            .buffered(CHECKS_MAX)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await
    }

    /// A prefix that this run does not have, if its tar and its report still are the ones that the manifest describes.
    /// In a folder this saves reading the tar.
    async fn unchanged(
        &self,
        prefix: Prefix,
        existing: Option<&Manifest>,
    ) -> Result<Option<StoredPrefix>, TransactionError> {
        let source = &self.held().record.source;
        let listed = existing
            .filter(|existing| existing.source == *source)
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
        let report = report.filter(|report| report.check().is_ok() && report.source == *source);
        Ok(report
            .map(|report| StoredPrefix::new(&report, 1))
            .filter(|stored| stored.object == *listed))
    }
}
