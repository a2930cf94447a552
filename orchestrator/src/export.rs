//! Exports an archive in other forms, and nothing from an archive that is damaged.
//!
//! Every tar is verified while it is read, but whether it is whole is known only at its end. So
//! what a sink has made counts only when [`Export::fill`] succeeds.

pub mod files;
pub mod filter;
pub mod line;
pub mod text;
pub mod top;

use crate::archive::Archive;
use crate::archive::manifest::Manifest;
use crate::run::plan::PrefixSet;
use crate::verify::{Problems, visit_prefix};
use crate::workers;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// What makes something of the ranges. It gets them in order.
pub trait RangeSink {
    /// Takes the valid body of a range.
    ///
    /// # Errors
    /// What is made of it cannot be written.
    fn range(&mut self, range: RangeName, body: &[u8]) -> io::Result<()>;

    /// Ends a prefix, all ranges of which were taken. Its tar is whole.
    ///
    /// # Errors
    /// What is made of it cannot be written.
    fn end_prefix(&mut self, _prefix: Prefix) -> io::Result<()> {
        Ok(())
    }
}

/// Why an export is not complete.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Prefixes were asked for that the archive does not hold.
    #[error("the archive does not hold {}", listed(.0))]
    NotHeld(Vec<Prefix>),
    /// A prefix is damaged or cannot be read.
    #[error("the archive is not whole")]
    Problems(Problems),
    /// The sink failed.
    #[error(transparent)]
    Sink(#[from] io::Error),
    /// The user stopped it.
    #[error("stopped before everything was exported")]
    Stopped,
}

/// The prefixes as a list.
fn listed(prefixes: &[Prefix]) -> String {
    let names: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// What to export, and how to read it.
#[derive(Clone, Copy)]
pub struct Export<'export> {
    /// The archive.
    pub archive: &'export dyn Archive,
    /// Its manifest.
    pub manifest: &'export Manifest,
    /// The prefixes, in order.
    pub prefixes: &'export [Prefix],
    /// The runtime that the archive's requests run on.
    pub runtime: &'export Handle,
    /// Ends the export early.
    pub shutdown: &'export CancellationToken,
}

/// The prefixes to export: those that were asked for, or all that the archive holds.
///
/// # Errors
/// The archive does not hold some of them.
pub fn selected(
    manifest: &Manifest,
    asked: Option<&PrefixSet>,
) -> Result<Vec<Prefix>, ExportError> {
    let objects = manifest.objects.iter();
    let held: BTreeSet<Prefix> = objects.map(|object| object.prefix).collect();
    let Some(asked) = asked else {
        return Ok(held.into_iter().collect());
    };
    let missing: Vec<Prefix> = asked.iter().filter(|it| !held.contains(it)).collect();
    if missing.is_empty() {
        Ok(asked.iter().collect())
    } else {
        Err(ExportError::NotHeld(missing))
    }
}

impl Export<'_> {
    /// Verifies the prefixes, on every core, without using their ranges. `on_prefix` is called
    /// after each. It blocks, so its thread must not be one of the runtime's workers.
    ///
    /// # Errors
    /// A prefix is damaged or cannot be read, or the user stopped it.
    pub fn verify(&self, on_prefix: impl Fn() + Sync) -> Result<(), ExportError> {
        let found = workers::for_each(self.prefixes, self.shutdown, |prefix| {
            let found = visit_prefix(self.archive, self.runtime, prefix, self.manifest, None);
            on_prefix();
            found
        });
        let mut problems = Problems::default();
        for (_, found) in found {
            problems.append(found);
        }
        if self.shutdown.is_cancelled() {
            Err(ExportError::Stopped)
        } else if problems.is_empty() {
            Ok(())
        } else {
            Err(ExportError::Problems(problems))
        }
    }

    /// Passes the ranges of all prefixes to `sink`, in order. `on_prefix` is called after each
    /// prefix. It ends at the first prefix that is not whole. It blocks, so its thread must not be
    /// one of the runtime's workers.
    ///
    /// # Errors
    /// A prefix is damaged or cannot be read, the sink failed, or the user stopped it.
    pub fn fill(&self, sink: &mut dyn RangeSink, on_prefix: impl Fn()) -> Result<(), ExportError> {
        for prefix in self.prefixes {
            self.fill_with_prefix(*prefix, sink)?;
            on_prefix();
        }
        Ok(())
    }

    fn fill_with_prefix(
        &self,
        prefix: Prefix,
        sink: &mut dyn RangeSink,
    ) -> Result<(), ExportError> {
        let mut ended = Ok(());
        let mut visitor = |range: RangeName, body: &[u8]| {
            ended = if self.shutdown.is_cancelled() {
                Err(ExportError::Stopped)
            } else {
                sink.range(range, body).map_err(ExportError::from)
            };
            match ended {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        };
        let visitor = Some(&mut visitor as _);
        let problems = visit_prefix(self.archive, self.runtime, prefix, self.manifest, visitor);
        ended?;
        if !problems.is_empty() {
            return Err(ExportError::Problems(problems));
        }
        sink.end_prefix(prefix)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::manifest::{ManifestObject, Totals};
    use prefix_tar::protocol::crc32c::Crc32c;
    use prefix_tar::protocol::mode::Mode;

    fn manifest_of(prefixes: &str) -> Manifest {
        let prefixes: PrefixSet = prefixes.parse().expect("prefixes");
        let object = |prefix: Prefix| ManifestObject {
            prefix,
            object: format!("{prefix}.tar"),
            content_length: 0,
            crc32c: Crc32c(0),
            generation: None,
            run: None,
        };
        Manifest {
            tool: "prefix-tar".to_owned(),
            version: "0.1.0".to_owned(),
            run: None,
            source: "http://127.0.0.1".to_owned(),
            mode: Mode::Sha1,
            started: String::new(),
            finished: String::new(),
            totals: Totals::default(),
            objects: prefixes.iter().map(object).collect(),
        }
    }

    #[test]
    fn without_a_list_everything_that_the_archive_holds_is_selected() {
        let held = selected(&manifest_of("0A-0C,FF"), None).expect("held");
        assert_eq!(listed(&held), "0A, 0B, 0C, FF");
    }

    #[test]
    fn prefixes_that_the_archive_does_not_hold_are_named() {
        let asked: PrefixSet = "0B-0D,F0".parse().expect("prefixes");
        let error = selected(&manifest_of("0A-0C,FF"), Some(&asked)).expect_err("missing");
        assert_eq!(error.to_string(), "the archive does not hold 0D, F0");
        let asked: PrefixSet = "FF,0B".parse().expect("prefixes");
        let held = selected(&manifest_of("0A-0C,FF"), Some(&asked)).expect("held");
        assert_eq!(listed(&held), "0B, FF");
    }
}
