//! [`Problem`]: a file that is damaged or could not be read.

use super::text::one_line;
use crate::archive::ReadError;
use serde::Serialize;
use std::fmt;

/// What is wrong with a file, or why it could not be read. The list that it is in says which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// What is wrong, on one line and of bounded length.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.file, self.what)
    }
}

/// What is damaged, and what could not be read. A file that could not be read may be whole.
#[derive(Debug, Default)]
pub struct Problems {
    /// What is damaged.
    pub damages: Vec<Problem>,
    /// What could not be read.
    pub unreadable: Vec<Problem>,
}

impl Problems {
    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.damages.is_empty() && self.unreadable.is_empty()
    }

    /// Adds a damage.
    pub(super) fn damage(&mut self, file: &str, what: &str) {
        self.damages.push(problem(file, what));
    }

    /// Adds a file that could not be read.
    pub(super) fn unreadable(&mut self, file: &str, what: &str) {
        self.unreadable.push(problem(file, what));
    }

    /// Adds what an error says about a file.
    pub(super) fn error(&mut self, file: &str, error: &ReadError) {
        match error {
            ReadError::Unreadable { reason, .. } => self.unreadable(file, reason),
            ReadError::Invalid { reason, .. } => {
                self.damage(file, &format!("is not valid: {reason}"));
            }
        }
    }

    /// Adds those of `other`.
    pub fn append(&mut self, other: Self) {
        self.damages.extend(other.damages);
        self.unreadable.extend(other.unreadable);
    }
}

fn problem(file: &str, what: &str) -> Problem {
    Problem {
        file: file.to_owned(),
        what: one_line(what),
    }
}
