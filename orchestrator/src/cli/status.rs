//! `status`: tells how old, complete and large an archive is, and whether its source has anything new.

use super::archive_places::typed_location;
use super::private_file::warn_about_credentials;
use super::{End, is_usage_error, print, print_json, print_status};
use crate::archive::layout::MANIFEST_NAME;
use crate::archive::location::ArchiveLocation;
use crate::archive::{self, Archive};
use crate::gcs::options::ObjectOptions;
use crate::run::shutdown::Shutdown;
use crate::status::record::StatusRecord;
use crate::status::verdict::Verdict;
use crate::status::{Question, status, text};
use clap::Args;
use jiff::Timestamp;
use prefix_tar::protocol::source::SourceUrl;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Ranges of a sample, unless the user says otherwise: if none differs, fewer than 5 % of all do.
const SAMPLES: u32 = 64;

/// The most ranges of a sample: if none differs, fewer than 0.08 % of all do.
const SAMPLES_MAX: u32 = 4096;

const EXAMPLES: &str = "\
Examples:
  orchestrator status ./archive
  orchestrator status ./archive || orchestrator run --to ./archive --force
  orchestrator status 'gs://my-bucket/pwned/{month}' --samples 300
  orchestrator status ./archive --json | jq .verdict

A random sample of ranges, spread over all prefixes, is compared with the source: by ETag; without
one, by Content-MD5 or Last-Modified; without those, or if they differ, by the body.
An archive that is missing or incomplete counts as something new: a run has something to do.

Exit codes: 0 nothing new, 1 something new, 2 wrong usage, 3 it could not be told.";

/// Tell how old, complete and large an archive is, and whether its source has anything new
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Status {
    /// The archive: a folder, or gs://bucket/path; {month} becomes the latest month that has an archive
    #[arg(value_name = "DEST", value_parser = typed_location)]
    archive: String,

    /// Range API to ask  [default: the source of the archive]
    #[arg(long, value_name = "URL")]
    source: Option<SourceUrl>,

    /// Ranges to compare
    #[arg(long, value_name = "N", default_value_t = SAMPLES, value_parser = clap::value_parser!(u32).range(1..=i64::from(SAMPLES_MAX)))]
    samples: u32,

    /// Print a JSON object
    #[arg(long)]
    json: bool,

    /// Endpoint for gs://  [default: $STORAGE_EMULATOR_HOST, or Google's]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    /// PEM file with certificates to trust besides the platform's: of CAs, or a server's own
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl Status {
    pub(super) async fn run(self, shutdown: Shutdown) -> anyhow::Result<End> {
        // There is nothing to put in order.
        let record = tokio::select! {
            record = Box::pin(self.record()) => record,
            () = shutdown.graceful.cancelled() => return Ok(End::Stopped),
        };
        // With the exit code of other failures, there would seem to be something new.
        let record = match record {
            Err(error) if is_usage_error(&error) => return Err(error),
            record => record.unwrap_or_else(|error| {
                StatusRecord::new(&self.archive).unknown(&format!("{error:#}"))
            }),
        };
        if self.json {
            print_json(&serde_json::to_string(&record)?);
        } else {
            text::lines(&record).iter().for_each(|line| print(line));
            let details = text::details(&record);
            details.iter().for_each(|line| print_status(line));
        }
        Ok(end_of(record.verdict))
    }

    async fn record(&self) -> anyhow::Result<StatusRecord> {
        let now = Timestamp::now();
        let Some((location, archive)) = self.find(now).await? else {
            return Ok(StatusRecord::new(&self.archive).no_archive());
        };
        let question = Question {
            source: self.source.clone(),
            samples: self.samples,
            ca_file: self.ca_file.clone(),
            now,
        };
        status(archive, &location.to_string(), &question).await
    }

    /// The latest place that has a manifest, or else the first that there is; `None` if there is none.
    async fn find(
        &self,
        now: Timestamp,
    ) -> anyhow::Result<Option<(ArchiveLocation, Arc<dyn Archive>)>> {
        let options = ObjectOptions {
            endpoint: self.endpoint.clone(),
            ..ObjectOptions::default()
        };
        let places = ArchiveLocation::recent(&self.archive, now)?;
        if let Some(first) = places.first() {
            warn_about_credentials(first);
        }
        let is_only_one = places.len() == 1;
        let mut latest = None;
        for location in places {
            if is_absent(&location) {
                continue;
            }
            let archive = archive::open(&location, &options, self.ca_file.as_deref())?;
            if is_only_one || archive.generation(MANIFEST_NAME).await?.is_some() {
                return Ok(Some((location, archive)));
            }
            latest = latest.or(Some((location, archive)));
        }
        Ok(latest)
    }
}

/// Whether a location is a folder that does not exist: no run has begun there yet.
fn is_absent(location: &ArchiveLocation) -> bool {
    match location {
        ArchiveLocation::Folder(folder) => folder
            .symlink_metadata()
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound),
        ArchiveLocation::Bucket(_) => false,
    }
}

/// In `status || run`, a run follows whatever is not known to be up to date.
const fn end_of(verdict: Verdict) -> End {
    match verdict {
        Verdict::NothingNew => End::Done,
        Verdict::New | Verdict::Incomplete | Verdict::NoArchive => End::New,
        Verdict::Unknown => End::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_that_a_run_would_complete_has_the_exit_code_of_something_new() {
        for (verdict, code) in [
            (Verdict::NothingNew, 0),
            (Verdict::New, 1),
            (Verdict::Incomplete, 1),
            (Verdict::NoArchive, 1),
            (Verdict::Unknown, 3),
        ] {
            assert_eq!(end_of(verdict).exit_code(), code, "{verdict:?}");
        }
    }
}
