//! What an earlier run has left whole, and need not be done again: a prefix whose report is there, is about the same
//! source, and whose object is there with the report's length and checksum. Doing the rest is left to `dispatch`.

use crate::destination::Destination;
use crate::dispatch::StoredPrefix;
use futures::StreamExt as _;
use prefix_tar::job::Report;
use prefix_tar::prefix::Prefix;
use prefix_tar::source::SourceUrl;
use tokio_util::sync::CancellationToken;

/// Prefixes that are looked at at the same time. Of a folder, each is read whole.
const LOOKS_MAX: usize = 4;

/// The prefixes of `prefixes` that are whole, in order. Stopped, it ends early and names fewer.
///
/// # Errors
/// The destination cannot be looked at.
pub async fn kept(
    prefixes: impl Iterator<Item = Prefix>,
    destination: &dyn Destination,
    source: &SourceUrl,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<StoredPrefix>> {
    let source = source.to_string();
    let looks = futures::stream::iter(prefixes)
        .take_until(stop.cancelled())
        .map(|prefix| whole(prefix, destination, &source))
        .buffered(LOOKS_MAX);
    let mut looks = std::pin::pin!(looks);
    let mut kept = Vec::new();
    while let Some(look) = looks.next().await {
        // What was mirrored by another run took as many attempts as that run says.
        kept.extend(look?.map(|report| StoredPrefix::new(&report, 1)));
    }
    Ok(kept)
}

async fn whole(
    prefix: Prefix,
    destination: &dyn Destination,
    source: &str,
) -> anyhow::Result<Option<Report>> {
    let Some(report) = destination.report(prefix).await? else {
        return Ok(None);
    };
    if report.prefix != prefix || report.source != source {
        return Ok(None);
    }
    let object = destination.object(prefix).await?;
    Ok(object
        .filter(|object| object.is_of(&report))
        .map(|_| report))
}
