//! What the run measured of itself: a file beside the books, on which nothing depends.

use super::{CONFLICTS_MAX, Transaction, TransactionError, encode};
use crate::archive::layout::MEASUREMENTS_NAME;
use crate::archive::measurements::Measurements;
use crate::archive::measurements_to_replace;
use crate::destination::Written;
use std::time::Duration;
use tokio::time::timeout;

/// How long a run tries to write its measurements.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

impl Transaction {
    /// Writes the measurements, after those of the run's earlier processes. A failure is logged and changes nothing: the
    /// archive is whole without them.
    pub async fn note_measurements(&self, measurements: &Measurements) {
        let written = timeout(WRITE_TIME_MAX, self.write_measurements(measurements)).await;
        match written {
            Ok(Ok(())) => {}
            // An account that may not read cannot replace those of an earlier process.
            Ok(Err(error)) if self.is_blind => {
                tracing::debug!(%error, "the measurements are not written");
            }
            Ok(Err(error)) => tracing::warn!(%error, "the measurements are not written"),
            Err(_) => tracing::warn!("the measurements are not written: the store took too long"),
        }
    }

    async fn write_measurements(
        &self,
        measurements: &Measurements,
    ) -> Result<(), TransactionError> {
        for _ in 0..CONFLICTS_MAX {
            let earlier = measurements_to_replace(self.archive()).await?;
            let measurements = match earlier.value {
                Some(earlier) if earlier.is_consistent() => measurements.clone().after(earlier),
                Some(_) | None => measurements.clone(),
            };
            let content = encode(MEASUREMENTS_NAME, &measurements)?;
            let permit = self
                .destination
                .permit_write(MEASUREMENTS_NAME, earlier.base)
                .await?;
            self.confirm().await?;
            if let Written::Done { .. } = self.destination.write(permit, content).await? {
                return Ok(());
            }
        }
        Err(TransactionError::Busy(MEASUREMENTS_NAME.to_owned()))
    }
}
