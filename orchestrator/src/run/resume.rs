//! Finds the prefixes that an earlier run has stored: the report is there, describes the same source, and the tar has
//! the report's length and checksum.

use super::outcome::StoredPrefix;
use crate::archive::{Archive, ReadError, valid_or_missing};
use futures::StreamExt as _;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use prefix_tar::protocol::source::SourceUrl;
use tokio_util::sync::CancellationToken;

/// Prefixes that are checked at the same time. In a folder, each check reads a whole tar.
const CHECKS_MAX: usize = 4;

/// Those of `prefixes` that are stored, in order. If `shutdown` comes first, it returns fewer.
///
/// # Errors
/// The archive cannot be read.
pub async fn stored(
    prefixes: impl Iterator<Item = Prefix>,
    archive: &dyn Archive,
    source: &SourceUrl,
    shutdown: &CancellationToken,
) -> Result<Vec<StoredPrefix>, ReadError> {
    let source = source.to_string();
    let checks = futures::stream::iter(prefixes)
        .take_until(shutdown.cancelled())
        .map(|prefix| report_of_stored(prefix, archive, &source))
        .buffered(CHECKS_MAX);
    let mut checks = std::pin::pin!(checks);
    let mut stored = Vec::new();
    while let Some(check) = checks.next().await {
        // How many attempts the earlier run needed is not recorded.
        stored.extend(check?.map(|report| StoredPrefix::new(&report, 1)));
    }
    Ok(stored)
}

async fn report_of_stored(
    prefix: Prefix,
    archive: &dyn Archive,
    source: &str,
) -> Result<Option<Report>, ReadError> {
    let Some(report) = valid_or_missing(archive.report(prefix).await)? else {
        return Ok(None);
    };
    if report.prefix != prefix || report.source != source {
        return Ok(None);
    }
    let object = archive.object(prefix).await?;
    let is_whole = object.is_some_and(|object| object.matches(&report));
    Ok(is_whole.then_some(report))
}
