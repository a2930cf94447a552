//! [`CheckRecord`]: a line of `check --json`.

use super::{Answer, CheckError};
use crate::verify::text::one_line;
use schemars::JsonSchema;
use serde::Serialize;

/// What was found out about one password.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CheckRecord {
    /// With `--batch`, the number of the line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Whether it was found; null if that could not be told.
    pub found: Option<bool>,
    /// How often it occurs. A filter does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Of a filter: the share of other passwords that it finds, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub false_positive_rate: Option<f64>,
    /// Why it could not be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl CheckRecord {
    /// The record of an answer.
    pub fn new(line: Option<u64>, answer: &Result<Answer, CheckError>) -> Self {
        let mut record = Self {
            line,
            found: answer.as_ref().ok().map(|answer| answer.is_found()),
            count: None,
            false_positive_rate: None,
            error: None,
        };
        match answer {
            Ok(Answer::Count(count)) => record.count = Some(*count),
            Ok(Answer::Probably(_, kind)) => {
                record.false_positive_rate = Some(1.0 / f64::from(kind.one_in()));
            }
            Err(error) => record.error = Some(one_line(&error.to_string())),
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter_file::FilterKind;

    #[test]
    fn a_record_has_what_the_source_can_tell() {
        for (line, answer, expected) in [
            (None, Ok(Answer::Count(7)), r#"{"found":true,"count":7}"#),
            (
                Some(2),
                Ok(Answer::Count(0)),
                r#"{"line":2,"found":false,"count":0}"#,
            ),
            (
                Some(3),
                Ok(Answer::Probably(true, FilterKind::Fuse8)),
                r#"{"line":3,"found":true,"false_positive_rate":0.00390625}"#,
            ),
            (
                Some(4),
                Err(CheckError::NotHeld),
                r#"{"line":4,"found":null,"error":"the archive does not hold this hash's prefix"}"#,
            ),
        ] {
            let record = CheckRecord::new(line, &answer);
            assert_eq!(serde_json::to_string(&record).expect("JSON"), expected);
        }
    }
}
