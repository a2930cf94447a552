//! Where the archive goes: what `dispatch` asks of a destination.
//! When it asks is left to dispatch; how an object is written, to the component and the store.

pub mod folder;

use crate::manifest::Manifest;
use prefix_tar::job::{Report, Upload};
use prefix_tar::prefix::Prefix;
use std::path::PathBuf;
use std::str::FromStr;

/// Where an archive is kept.
#[async_trait::async_trait]
pub trait Destination: Send + Sync {
    /// Gets ready for a run: a manifest of an earlier one goes, because it will not be true any more.
    async fn begin(&self) -> anyhow::Result<()>;

    /// Gets ready for an attempt at `prefix`: the report of an earlier one goes, and the PUT is signed for
    /// what is there now.
    async fn prepare(&self, prefix: Prefix) -> anyhow::Result<Upload>;

    /// Writes a report, whole or not at all.
    async fn write_report(&self, report: &Report) -> anyhow::Result<()>;

    /// Writes the manifest, whole or not at all.
    async fn write_manifest(&self, manifest: &Manifest) -> anyhow::Result<()>;
}

/// A destination as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationName {
    /// A local folder.
    Folder(PathBuf),
}

/// Why a text names no destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationNameError {
    /// Nothing at all.
    #[error("a destination is a folder")]
    Empty,
    /// A scheme that is not served.
    #[error("`{0}` is not a destination that this version can write to; name a local folder")]
    Scheme(String),
}

impl FromStr for DestinationName {
    type Err = DestinationNameError;

    fn from_str(text: &str) -> Result<Self, DestinationNameError> {
        if text.is_empty() {
            Err(DestinationNameError::Empty)
        } else if text.contains("://") {
            Err(DestinationNameError::Scheme(text.to_owned()))
        } else {
            Ok(Self::Folder(text.into()))
        }
    }
}
