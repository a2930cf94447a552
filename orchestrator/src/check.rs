//! Tells how often a password occurs, from a range of its hash.
//!
//! The password is hashed here. A range API learns the range's name, five characters of the hash, and pads its answer so
//! that its length does not give away which range it is. No error of this module names a hash or a range.

pub mod answer;
pub mod hash;
pub mod input;
pub mod record;
pub mod terminal;

use crate::archive::ranges::{RangeArchive, RangeError};
use crate::filter_file::FilterKind;
use crate::filter_file::read::{FilterError, FilterFile};
use crate::range_client::{ClientError, RangeClient};
use answer::{AnswerFault, count_of};
use hash::PasswordHash;
use input::InputFault;
use prefix_tar::protocol::mode::Mode;
use std::sync::Arc;

/// Where hashes are looked up.
pub enum Source {
    /// A range API.
    Api(RangeClient),
    /// An archive.
    Archive(Box<RangeArchive>),
    /// A filter that was exported from one.
    Filter(Arc<FilterFile>),
}

/// What a source says about a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// How often it occurs.
    Count(u64),
    /// Whether it probably occurs at all, as a filter of this kind says.
    Probably(bool, FilterKind),
}

impl Answer {
    /// Whether the hash was found.
    pub const fn is_found(self) -> bool {
        match self {
            Self::Count(count) => count > 0,
            Self::Probably(is_found, _) => is_found,
        }
    }
}

/// Why it cannot be told whether a password was found.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The input is not a password or a hash.
    #[error(transparent)]
    Input(#[from] InputFault),
    /// The range API does not deliver the range.
    #[error(transparent)]
    Api(#[from] ClientError),
    /// The archive has other prefixes.
    #[error("the archive does not hold this hash's prefix")]
    NotHeld,
    /// The archive does not deliver the range.
    #[error(transparent)]
    Archive(RangeError),
    /// The range has lines that are not those of a range.
    #[error("the answer is not a range: {0}")]
    Answer(#[from] AnswerFault),
    /// The filter does not tell.
    #[error("the filter does not tell: {0}")]
    Filter(#[from] FilterError),
    /// A thread ended early.
    #[error("the look-up did not end: {0}")]
    Lost(#[from] tokio::task::JoinError),
}

impl From<RangeError> for CheckError {
    fn from(error: RangeError) -> Self {
        match error {
            RangeError::NotHeld(_) => Self::NotHeld,
            error => Self::Archive(error),
        }
    }
}

impl Source {
    /// Which hashes it holds.
    pub fn mode(&self) -> Mode {
        match self {
            Self::Api(api) => api.mode(),
            Self::Archive(archive) => archive.manifest().mode,
            Self::Filter(filter) => filter.mode(),
        }
    }

    /// Looks a hash up.
    ///
    /// # Errors
    /// The source does not tell.
    pub async fn look_up(&self, hash: &PasswordHash) -> Result<Answer, CheckError> {
        let body = match self {
            Self::Api(api) => api.padded_body(hash.range()).await?,
            Self::Archive(archive) => archive.range(hash.range()).await?.body,
            Self::Filter(filter) => {
                let (filter, key) = (Arc::clone(filter), hash.first_64_bits());
                let kind = filter.kind();
                let found = tokio::task::spawn_blocking(move || filter.contains(key)).await??;
                return Ok(Answer::Probably(found, kind));
            }
        };
        Ok(Answer::Count(count_of(&body, &hash.suffix())?))
    }
}
