//! Shows a [`StatusRecord`] to people.

use super::record::{FailedAttempts, Holdings, StatusRecord};
use crate::humanize;
use prefix_tar::protocol::prefix::PREFIXES;
use std::time::Duration;

/// The width of the labels: that of the longest, and a gap.
const LABEL_WIDTH: usize = 12;

/// The lines about the archive. The last one is the summary.
pub fn lines(record: &StatusRecord) -> Vec<String> {
    let mut lines = vec![line("archive", &record.archive)];
    if let Some(holds) = &record.holds {
        lines.extend(of_holdings(holds));
    }
    if let Some(failures) = &record.failures {
        lines.push(line("failures", &of_failures(failures)));
    }
    if let (Some(sample), Some(holds)) = (&record.sample, &record.holds)
        && sample.source != holds.source
    {
        lines.push(line("asked", &sample.source));
    }
    lines.push(record.summary.clone());
    lines
}

/// Lines for what the summary counts: the ranges that differ, and why others could not be compared.
pub fn details(record: &StatusRecord) -> Vec<String> {
    let Some(sample) = &record.sample else {
        return Vec::new();
    };
    let differing = (!sample.differing.is_empty())
        .then(|| format!("differing: {}", humanize::listed(sample.differing.iter())));
    let reasons = sample.reasons.iter().map(|(reason, ranges)| match ranges {
        1 => format!("1 range: {reason}"),
        ranges => format!("{} ranges: {reason}", humanize::grouped((*ranges).into())),
    });
    differing.into_iter().chain(reasons).collect()
}

fn line(label: &str, text: &str) -> String {
    format!("{label:LABEL_WIDTH$}{text}")
}

fn of_holdings(holds: &Holdings) -> Vec<String> {
    let age = holds.age_seconds.map(|seconds| {
        let age = humanize::age(Duration::from_secs(seconds));
        format!(", {age} ago")
    });
    let present = holds.prefixes.saturating_sub(holds.missing.len() as u64);
    let reader = match holds.this_version == holds.version {
        true => String::new(),
        false => format!(" (this is {})", holds.this_version),
    };
    vec![
        line(
            "finished",
            &format!("{}{}", holds.finished, age.unwrap_or_default()),
        ),
        line("source", &holds.source),
        line("mode", &holds.mode),
        line(
            "written by",
            &format!("prefix-tar {}{reader}", holds.version),
        ),
        line("prefixes", &format!("{present} of {PREFIXES}")),
        line("ranges", &humanize::grouped(holds.ranges)),
        line("hashes", &humanize::grouped(holds.hashes)),
        line(
            "size",
            &format!(
                "{} in tars of {}",
                humanize::data(holds.data_bytes),
                humanize::data(holds.tar_bytes)
            ),
        ),
    ]
}

fn of_failures(failures: &FailedAttempts) -> String {
    let kinds: Vec<String> = failures
        .kinds
        .iter()
        .map(|(kind, attempts)| format!("{kind} {attempts}"))
        .collect();
    match failures.attempts {
        0 => "none in the latest run".to_owned(),
        attempts => format!(
            "{attempts} {} in the latest run, of prefix {}: {}",
            if attempts == 1 { "attempt" } else { "attempts" },
            humanize::listed(failures.prefixes.iter()),
            kinds.join(", "),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::compare::Evidence;
    use crate::status::record::SampleRecord;
    use crate::status::verdict::{Outcome, Tally};
    use prefix_tar::protocol::prefix::Prefix;
    use prefix_tar::protocol::run_id::RunId;
    use std::collections::BTreeSet;

    fn record() -> StatusRecord {
        let run = RunId::new("20261117T031700Z", 1).expect("an id");
        let prefix = Prefix::from_number(0xAB);
        StatusRecord {
            holds: Some(Holdings {
                source: "https://api.pwnedpasswords.com".to_owned(),
                mode: "sha1".to_owned(),
                version: "0.1.0".to_owned(),
                this_version: "0.1.0".to_owned(),
                run: Some(run.clone()),
                started: "2026-11-17T03:17:00Z".to_owned(),
                finished: "2026-11-17T03:27:12Z".to_owned(),
                age_seconds: Some(12 * 86_400),
                prefixes: 256,
                missing: BTreeSet::new(),
                ranges: 1_048_576,
                hashes: 2_000_000_000,
                data_bytes: 79_000_000_000,
                tar_bytes: 79_900_000_000,
            }),
            failures: Some(FailedAttempts {
                run,
                attempts: 3,
                kinds: [("died".to_owned(), 1), ("source_status".to_owned(), 2)].into(),
                prefixes: [prefix].into(),
            }),
            ..StatusRecord::new("./archive")
        }
    }

    fn sampled(mut record: StatusRecord, outcomes: &[(u32, &Outcome)]) -> StatusRecord {
        let mut tally = Tally::default();
        let mut ranges = Prefix::from_number(0xAB).ranges();
        for (count, outcome) in outcomes {
            for range in ranges.by_ref().take(*count as usize) {
                tally.add(range, (*outcome).clone());
            }
        }
        let source = "http://127.0.0.1:8080".parse().expect("a source");
        record.verdict = tally.verdict();
        record.summary = tally.summary(1_048_576);
        record.sample = Some(SampleRecord::new(&source, &tally));
        record
    }

    fn shown(record: &StatusRecord) -> String {
        [lines(record), details(record)].concat().join("\n")
    }

    #[test]
    fn an_archive_with_nothing_new_is_shown() {
        let record = sampled(record(), &[(64, &Outcome::Same(Evidence::Etag))]);
        insta::assert_snapshot!(shown(&record));
    }

    #[test]
    fn what_differs_and_what_could_not_be_compared_is_listed() {
        let mut record = record();
        record.failures = None;
        if let Some(holds) = &mut record.holds {
            holds.source = "http://127.0.0.1:8080".to_owned();
            holds.this_version = "0.2.0".to_owned();
            holds.age_seconds = None;
        }
        let unknown = Outcome::Unknown("http://127.0.0.1:8080 answered 502".to_owned());
        let other = Outcome::Unknown("AB.tar is damaged: it is missing".to_owned());
        let outcomes = [
            (45, &Outcome::Same(Evidence::Body)),
            (17, &Outcome::Differs),
            (2, &unknown),
            (1, &other),
        ];
        insta::assert_snapshot!(shown(&sampled(record, &outcomes)));
    }

    #[test]
    fn an_archive_that_is_not_there_is_shown() {
        insta::assert_snapshot!(shown(&StatusRecord::new("gs://pwned/a").no_archive()));
    }

    #[test]
    fn a_record_has_no_etags_and_names_its_evidence() {
        let record = sampled(record(), &[(2, &Outcome::Same(Evidence::ContentMd5))]);
        let json = serde_json::to_value(&record).expect("JSON");
        assert_eq!(json["verdict"], "nothing_new");
        assert_eq!(
            json["sample"]["same_by"],
            serde_json::json!({ "content_md5": 2 })
        );
        assert_eq!(json["unfinished_run"], serde_json::Value::Null);
    }
}
