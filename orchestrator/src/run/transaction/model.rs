//! Explores every interleaving of processes that share an archive in a bucket, with crashes, lost answers, uploads that
//! outlive their process, and URLs that expire. It drives the real code, one operation on the store at a time.
//!
//! A state is what the store holds, what each process has read so far, which decides what it does next, and which writes
//! may still arrive. Each state is explored once. In every state:
//!
//! - Nothing of the initial archive has disappeared.
//! - An entry of the manifest is the tar that is there. Only while a run is unfinished may it be a newer one, of another
//!   run.
//!
//! And when every process has ended and no write is in flight:
//!
//! - A process that reported success was right: the manifest lists all its prefixes.
//! - Each of the commands, run again, completes the archive, and every report fits its tar.

mod invariants;
mod process;
mod scenarios;
mod search;
mod turnstile;
mod world;

use crate::archive::manifest::Manifest;
use crate::archive::run_record::RunRecord;
use crate::run::memory_store::{Content, Text};
use jiff::SignedDuration;
use prefix_tar::protocol::report::Report;
use process::{Command, End, SOURCE, now};
use scenarios::{ALL, EARLIER, SOME, archive_of, meetings, successions};
use search::explore_all;
use world::{parsed, undisturbed};

#[test]
fn an_undisturbed_run_completes_and_repeats_nothing() {
    let files = archive_of(EARLIER);
    let (again, end) = undisturbed(&files, EARLIER);
    assert_eq!(end, End::Done);
    assert!(files == again, "something was written again");
    let forced = Command {
        force: true,
        random: 2,
        ..EARLIER
    };
    let (after, end) = undisturbed(&files, forced);
    assert_eq!(end, End::Done);
    for name in [
        "00.tar",
        "01.tar",
        "00.json",
        "01.json",
        "manifest.json",
        "run.json",
    ] {
        assert_eq!(after[name].generation, files[name].generation + 1, "{name}");
    }
    // A run of fewer prefixes keeps the rest in the manifest.
    let fewer = Command {
        prefixes: "00",
        force: true,
        random: 3,
    };
    let (after, _) = undisturbed(&files, fewer);
    let manifest: Manifest = parsed(&after, "manifest.json").expect("a manifest");
    assert_eq!(manifest.objects.len(), 2);
    assert_ne!(manifest.objects[0].run, manifest.objects[1].run);
}

#[test]
fn the_invariants_hold_wherever_a_run_is_killed() {
    // Without preemptions, the next process starts when the one before has ended.
    for (what, files, commands) in successions() {
        explore_all(what, &files, &commands[..2], &[(1, 0, 0), (0, 1, 0)]);
    }
}

#[test]
fn the_invariants_hold_when_two_processes_meet() {
    for (what, files, commands) in meetings() {
        explore_all(what, &files, &commands, &SOME);
    }
}

#[test]
#[ignore = "takes more than an hour; `cargo test --release -p orchestrator --lib model -- --ignored --nocapture`"]
fn the_invariants_hold_when_two_processes_meet_whatever_happens() {
    for (what, files, commands) in successions() {
        explore_all(what, &files, &commands, &[(2, 0, 0), (1, 1, 0)]);
    }
    for (what, files, commands) in meetings() {
        explore_all(what, &files, &commands, &ALL);
    }
    let complete = archive_of(EARLIER);
    let commands = [Command::forced("00-01", 7), Command::forced("01", 8)];
    explore_all(
        "a forced run and a smaller one",
        &complete,
        &commands,
        &SOME,
    );
}

#[test]
fn a_report_that_does_not_fit_its_tar_is_mirrored_again() {
    let complete = archive_of(EARLIER);
    let gutted = |change: &dyn Fn(&mut Report)| {
        let mut files = complete.clone();
        let mut report: Report = parsed(&files, "00.json").expect("a report");
        change(&mut report);
        let text = serde_json::to_vec(&report).expect("JSON");
        files.get_mut("00.json").expect("a report").content = Content::Text(Text::new(text));
        files
    };
    for (what, change) in [
        (
            "an empty index",
            (|report| report.range_bytes.clear()) as fn(&mut Report),
        ),
        ("a short index", |report| report.range_bytes.truncate(9)),
        ("missing ETags", |report| report.range_etags.clear()),
        ("another source", |report| {
            report.source = "https://elsewhere.example".to_owned()
        }),
        ("false sums", |report| report.hashes = 1),
        ("another checksum", |report| report.crc32c.0 ^= 1),
    ] {
        let again = Command {
            random: 9,
            ..EARLIER
        };
        let (after, end) = undisturbed(&gutted(&change), again);
        assert_eq!(end, End::Done, "{what}");
        assert_eq!(
            after["00.tar"].generation,
            complete["00.tar"].generation + 1,
            "{what}"
        );
        assert_eq!(after["01.tar"], complete["01.tar"], "{what}");
    }
}

#[test]
fn an_archive_of_another_source_is_replaced_only_by_force() {
    let mut files = archive_of(EARLIER);
    for name in ["00.json", "01.json", "manifest.json", "run.json"] {
        let Content::Text(text) = &files[name].content else {
            panic!("{name} is a tar")
        };
        let text =
            String::from_utf8_lossy(text.bytes()).replace(SOURCE, "https://elsewhere.example");
        files.get_mut(name).expect("a file").content = Content::Text(Text::new(text.into_bytes()));
    }
    let again = Command {
        random: 9,
        ..EARLIER
    };
    let (after, end) = undisturbed(&files, again);
    assert_eq!(end, End::Failed);
    assert!(after == files, "something was written");
    let forced = Command {
        force: true,
        ..again
    };
    let (_, end) = undisturbed(&files, forced);
    assert_eq!(end, End::Done);
}

#[test]
fn a_forced_run_does_not_resume_one_that_keeps_tars() {
    let mut files = archive_of(EARLIER);
    // The run of the archive is unfinished without its manifest.
    files.remove("manifest.json");
    let forced = Command {
        force: true,
        random: 2,
        ..EARLIER
    };
    let (after, end) = undisturbed(&files, forced);
    assert_eq!(end, End::Done);
    for name in ["00.tar", "01.tar"] {
        assert_eq!(after[name].generation, files[name].generation + 1, "{name}");
    }
}

#[test]
fn an_unfinished_run_of_last_month_is_not_resumed() {
    let mut files = archive_of(EARLIER);
    files.remove("manifest.json");
    let mut record: RunRecord = parsed(&files, "run.json").expect("a record");
    let before = record.run.clone();
    for (age, is_resumed) in [(6, true), (8, false)] {
        let started = now() - SignedDuration::from_hours(24 * age);
        record.started = started.to_string();
        record.force = true;
        let text = serde_json::to_vec(&record).expect("JSON");
        files.get_mut("run.json").expect("a record").content = Content::Text(Text::new(text));
        let forced = Command {
            force: true,
            random: 9,
            ..EARLIER
        };
        let (after, end) = undisturbed(&files, forced);
        assert_eq!(end, End::Done);
        let manifest: Manifest = parsed(&after, "manifest.json").expect("a manifest");
        assert_eq!(manifest.run.as_ref() == Some(&before), is_resumed);
    }
}
