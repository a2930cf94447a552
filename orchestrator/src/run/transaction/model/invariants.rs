//! What must hold in every state, and what must hold when every process has ended.

use super::process::{Command, End};
use super::world::{World, parsed, undisturbed};
use crate::archive::manifest::Manifest;
use crate::archive::run_record::RunRecord;
use crate::run::memory_store::{Content, File, Files, crc32c_of};
use prefix_tar::protocol::report::Report;
use prefix_tar::protocol::run_id::RunId;
use std::collections::HashSet;

/// Checks what must hold in every state. Returns the first violation.
pub(super) fn violation(initial: &Files, files: &Files) -> Option<String> {
    for name in initial.keys() {
        if !files.contains_key(name) {
            return Some(format!("{name} is gone"));
        }
    }
    let manifest: Option<Manifest> = parsed(files, "manifest.json");
    let record: Option<RunRecord> = parsed(files, "run.json");
    for object in manifest.iter().flat_map(|manifest| &manifest.objects) {
        let name = &object.object;
        let Some(File {
            content: Content::Tar(tar),
            generation,
        }) = files.get(name)
        else {
            return Some(format!(
                "the manifest names {name}, which is not a whole tar"
            ));
        };
        let is_named = object.generation == Some(generation.to_string());
        if is_named && crc32c_of(tar) != object.crc32c {
            return Some(format!("the manifest gives {name} another checksum"));
        }
        if is_named && object.run.as_ref().is_some_and(|run| !is_tar_of(tar, run)) {
            return Some(format!(
                "the manifest names {:?} for {name}, which is {tar}",
                object.run
            ));
        }
        // A tar other than the manifest's can only be one of another run, and only while a run is unfinished.
        let of_manifest = manifest.as_ref().and_then(|manifest| manifest.run.as_ref());
        let is_unfinished = record
            .as_ref()
            .is_some_and(|record| of_manifest != Some(&record.run));
        let run: Option<RunId> = tar.rsplit(' ').next().and_then(|run| run.parse().ok());
        let is_of_later_run = is_unfinished && run.as_ref() != of_manifest;
        if !is_named && !is_of_later_run {
            return Some(format!("the manifest names another {name} than {tar}"));
        }
    }
    None
}

fn is_tar_of(tar: &str, run: &RunId) -> bool {
    tar.ends_with(run.as_str())
}

/// Checks what must hold when every process has ended and no write is in flight. Returns the first violation.
pub(super) fn violation_at_the_end(world: &World, commands: &[Command]) -> Option<String> {
    let files = world.files();
    false_success(&files, world, commands).or_else(|| {
        commands
            .iter()
            .find_map(|command| failed_repetition(&files, *command))
    })
}

/// A process that reported success has written a manifest that is true.
fn false_success(files: &Files, world: &World, commands: &[Command]) -> Option<String> {
    let done: Vec<&Command> = commands
        .iter()
        .zip(world.ends())
        .filter_map(|(command, end)| (end == Some(End::Done)).then_some(command))
        .collect();
    if done.is_empty() {
        return None;
    }
    let Some(manifest) = parsed::<Manifest>(files, "manifest.json") else {
        return Some("a run is done without a manifest".to_owned());
    };
    let record: Option<RunRecord> = parsed(files, "run.json");
    let is_last = record.is_none_or(|record| manifest.run == Some(record.run));
    for prefix in done
        .iter()
        .flat_map(|command| command.prefix_set().iter().collect::<Vec<_>>())
    {
        let Some(object) = manifest
            .objects
            .iter()
            .find(|object| object.prefix == prefix)
        else {
            return Some(format!("{prefix} is done, but not in the manifest"));
        };
        let file = &files[&object.object];
        if is_last && object.generation != Some(file.generation.to_string()) {
            return Some(format!("{prefix} is done, but its tar was replaced"));
        }
    }
    None
}

/// Whatever happened, the same command completes the archive if nothing disturbs it.
fn failed_repetition(files: &Files, command: Command) -> Option<String> {
    let (after, end) = undisturbed(files, command);
    if end != End::Done {
        return Some(format!("{command:?} does not complete the archive"));
    }
    if let Some(violation) = violation(files, &after) {
        return Some(violation);
    }
    let manifest: Manifest = parsed(&after, "manifest.json").expect("a manifest");
    let prefixes = command.prefix_set();
    let objects: Vec<_> = manifest
        .objects
        .iter()
        .filter(|object| prefixes.iter().any(|prefix| prefix == object.prefix))
        .collect();
    if objects.len() != prefixes.count() {
        return Some(format!("{command:?} left a prefix out of the manifest"));
    }
    let runs: HashSet<_> = objects.iter().map(|object| &object.run).collect();
    if command.force && runs.len() != 1 {
        return Some(format!("a forced run mixes runs: {runs:?}"));
    }
    for object in objects {
        let stored: Report =
            parsed(&after, &object.object.replace("tar", "json")).expect("a report");
        if stored.crc32c != object.crc32c {
            return Some(format!("the report of {} does not fit", object.object));
        }
    }
    None
}
