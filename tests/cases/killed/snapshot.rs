//! [`Snapshot`]: what an archive holds at one moment, and the rules of docs/decisions/0007-runs.md
//! that must hold at every moment.

use crate::harness::prefix_set;
use emulator::objects::current_generation;
use orchestrator::archive::layout::{
    MANIFEST_NAME, MEASUREMENTS_NAME, RUN_RECORD_NAME, report_name, tar_name,
};
use orchestrator::archive::manifest::{Manifest, ManifestObject};
use orchestrator::archive::measurements::Measurements;
use orchestrator::archive::run_record::RunRecord;
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// The content of tars, by name.
pub(super) type Tars = BTreeMap<String, Vec<u8>>;

/// How long a store may still be busy with the requests of a process that was killed.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// A file of an archive.
#[derive(Clone, PartialEq, Eq)]
struct Object {
    content: Vec<u8>,
    generation: u64,
}

/// The files of an archive that have a final name.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    objects: BTreeMap<String, Object>,
    /// Names that begin with a dot: the lock, and files that are being written.
    hidden: Vec<String>,
}

impl Snapshot {
    /// Reads the archive in `folder` when it does not change any more. A folder that is absent is
    /// an empty archive.
    pub(super) fn of(folder: &Path) -> Self {
        let began = Instant::now();
        // A file can disappear between the list and the read: a store discards what it got of an
        // upload whose connection has ended.
        let mut last = Self::read(folder).ok();
        loop {
            let now = Self::read(folder).ok();
            match now {
                Some(now) if last.as_ref() == Some(&now) => return now,
                now => last = now,
            }
            assert!(
                began.elapsed() < SETTLED_WITHIN,
                "the archive still changes"
            );
        }
    }

    fn read(folder: &Path) -> io::Result<Self> {
        let mut snapshot = Self::default();
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(snapshot),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                snapshot.hidden.push(name);
                continue;
            }
            let object = Object {
                content: std::fs::read(entry.path())?,
                generation: current_generation(&entry.path())?.ok_or(io::ErrorKind::NotFound)?,
            };
            snapshot.objects.insert(name, object);
        }
        snapshot.hidden.sort();
        Ok(snapshot)
    }

    fn object(&self, name: &str) -> &Object {
        let object = self.objects.get(name);
        object.unwrap_or_else(|| panic!("{name} is missing"))
    }

    fn parsed<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let object = self.objects.get(name)?;
        let parsed = serde_json::from_slice(&object.content);
        Some(parsed.unwrap_or_else(|error| panic!("{name} is not whole: {error}")))
    }

    fn manifest(&self) -> Option<Manifest> {
        self.parsed(MANIFEST_NAME)
    }

    fn record(&self) -> Option<RunRecord> {
        self.parsed(RUN_RECORD_NAME)
    }

    fn report(&self, prefix: Prefix) -> Option<Report> {
        self.parsed(&report_name(prefix))
    }

    /// The generation of a file; `None` if it is absent.
    pub(super) fn generation(&self, name: &str) -> Option<u64> {
        self.objects.get(name).map(|object| object.generation)
    }

    /// The prefixes that have a tar.
    fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        Prefix::all().filter(|prefix| self.objects.contains_key(&tar_name(*prefix)))
    }

    /// Whether a file is another one by now.
    pub(super) fn is_replaced(&self, folder: &Path, name: &str) -> bool {
        let now = current_generation(&folder.join(name)).expect("metadata");
        now.is_some() && now != self.generation(name)
    }

    /// What a run that began with `before` has written last.
    pub(super) fn phase_since(&self, before: &Self) -> &'static str {
        let is_new = |name: &str| self.generation(name) != before.generation(name);
        let planned = self.record().map(|record| record.prefixes);
        let planned = planned.unwrap_or_default();
        let stored = planned
            .iter()
            .filter(|planned| is_new(&tar_name(planned.prefix)))
            .count();
        let has_reports = planned
            .iter()
            .all(|planned| is_new(&report_name(planned.prefix)));
        match stored {
            _ if is_new(MANIFEST_NAME) => "5 after the manifest",
            _ if !is_new(RUN_RECORD_NAME) => "0 before run.json",
            0 => "1 after run.json",
            stored if stored < planned.len() => "2 between tars",
            _ if !has_reports => "3 after the last tar",
            _ => "4 after the last report",
        }
    }

    /// Whether a tar is newer than its report, or has none.
    pub(super) fn has_tar_without_report(&self) -> bool {
        self.prefixes().any(|prefix| {
            let generation = self.object(&tar_name(prefix)).generation.to_string();
            let report = self.report(prefix);
            report.is_none_or(|report| report.generation != Some(generation))
        })
    }

    /// Checks what must hold at any moment, given what was there at an earlier one. A tar is either
    /// the `old` one, of an older state of the source, or the `new` one.
    pub(super) fn check_after(&self, earlier: &Self, old: Option<&Tars>, new: &Tars) {
        for name in earlier.objects.keys() {
            assert!(self.objects.contains_key(name), "{name} is lost");
        }
        for (name, object) in &self.objects {
            self.check_whole(name, object, old, new);
        }
        let record = self.record();
        let unfinished = record.as_ref().filter(|record| {
            self.manifest().and_then(|manifest| manifest.run) != Some(record.run.clone())
        });
        for listed in self
            .manifest()
            .into_iter()
            .flat_map(|manifest| manifest.objects)
        {
            self.check_listed(&listed, unfinished, new);
        }
        // A run stores each prefix once, however many processes it takes.
        if let (Some(record), Some(before)) = (record, earlier.record())
            && record.run == before.run
        {
            for planned in record.prefixes {
                let name = tar_name(planned.prefix);
                let was = earlier.generation(&name);
                let is_stored = was.map(|was| was.to_string()) != planned.base;
                assert!(
                    !is_stored || was == self.generation(&name),
                    "{name} was stored twice"
                );
            }
        }
    }

    /// Checks that a file with a final name is whole.
    fn check_whole(&self, name: &str, object: &Object, old: Option<&Tars>, new: &Tars) {
        match name {
            RUN_RECORD_NAME => assert!(self.record().is_some()),
            MANIFEST_NAME => assert!(self.manifest().is_some()),
            MEASUREMENTS_NAME => {
                let measurements: Option<Measurements> = self.parsed(name);
                assert!(measurements.expect("a file").is_consistent());
            }
            _ if name.ends_with(".tar") => {
                let is_old = old.is_some_and(|old| old.get(name) == Some(&object.content));
                let is_new = new.get(name) == Some(&object.content);
                assert!(
                    is_old || is_new,
                    "{name} is neither the old tar nor the new one"
                );
            }
            _ => {
                let report: Option<Report> = self.parsed(name);
                let report = report.expect("a file");
                assert_eq!(report_name(report.prefix), name);
                assert_eq!(report.check(), Ok(()), "{name}");
                // A report is written after its tar.
                let tar = self.object(&tar_name(report.prefix));
                let is_of_tar = report.generation == Some(tar.generation.to_string());
                assert!(!is_of_tar || report.content_length == tar.content.len() as u64);
                assert!(!is_of_tar || report.crc32c == checksum(tar), "{name}");
            }
        }
    }

    /// Checks that a tar is the one that the manifest lists, or else the new one of a run that is
    /// not finished.
    fn check_listed(&self, listed: &ManifestObject, unfinished: Option<&RunRecord>, new: &Tars) {
        let name = &listed.object;
        let tar = self.object(name);
        let is_as_listed =
            listed.content_length == tar.content.len() as u64 && listed.crc32c == checksum(tar);
        if listed.generation == Some(tar.generation.to_string()) {
            assert!(is_as_listed, "{name}");
        }
        // A run whose tar has the bytes of the earlier one cannot tell them apart, and uploads them again.
        if is_as_listed {
            return;
        }
        let record = unfinished.unwrap_or_else(|| panic!("{name} is not the one of the manifest"));
        let planned = record.prefix(listed.prefix);
        let base = planned.and_then(|planned| planned.base.clone());
        assert_eq!(
            base, listed.generation,
            "{name} was replaced over another base"
        );
        assert!(
            new.get(name) == Some(&tar.content),
            "{name} is not of the unfinished run"
        );
    }

    /// Checks an archive whose run is complete: the manifest, the record and the reports are of one
    /// run and fit the `new` tars, and nothing else is left.
    pub(super) fn check_complete(&self, new: &Tars) {
        let manifest = self.manifest().expect("a manifest");
        let record = self.record().expect("a record");
        assert_eq!(
            manifest.run,
            Some(record.run.clone()),
            "the run is not finished"
        );
        let tars = self.objects.keys().filter(|name| name.ends_with(".tar"));
        assert!(tars.eq(new.keys()), "other tars than those of the source");
        assert_eq!(manifest.objects.len(), new.len());
        for listed in &manifest.objects {
            let tar = self.object(&listed.object);
            assert!(
                new.get(&listed.object) == Some(&tar.content),
                "{}",
                listed.object
            );
            assert_eq!(listed.generation, Some(tar.generation.to_string()));
            assert_eq!(
                listed.run, manifest.run,
                "{} is of another run",
                listed.object
            );
            let report = self.report(listed.prefix).expect("a report");
            assert_eq!(&ManifestObject::of_report(&report), listed);
        }
        assert_eq!(self.hidden, Vec::<String>::new(), "left behind");
    }
}

/// The names of the files that a run of `prefixes` writes.
pub(super) fn written_names(prefixes: &str) -> Vec<String> {
    let books = [RUN_RECORD_NAME, MEASUREMENTS_NAME, MANIFEST_NAME];
    let mut names: Vec<String> = books.map(str::to_owned).to_vec();
    for prefix in prefix_set(prefixes).iter() {
        names.extend([tar_name(prefix), report_name(prefix)]);
    }
    names
}

fn checksum(object: &Object) -> Crc32c {
    Crc32c(crc32c::crc32c(&object.content))
}
