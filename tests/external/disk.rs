//! A disk that is full.

use crate::Test;
use crate::harness::files_of;
use crate::harness::program::{orchestrator, output, succeeds, texts};
use crate::harness::source::{Reply, Source, valid_body};
use std::path::Path;
use std::process::Command;

pub(crate) fn tests() -> Vec<Test> {
    let folder = tempfile::tempdir().expect("a folder");
    let can_mount = Mounted::small(folder.path()).is_some();
    let missing = (!can_mount).then_some("a tmpfs cannot be mounted here (run the tests as root)");
    vec![Test::new(
        "a_disk_that_is_full_is_said_in_one_message_and_leaves_nothing",
        missing,
        a_disk_that_is_full_is_said_in_one_message_and_leaves_nothing,
    )]
}

async fn a_disk_that_is_full_is_said_in_one_message_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let _mounted = Mounted::small(folder.path()).expect("a tmpfs");
    let source = Source::answering(|range| Reply::Body(valid_body(range, 2_000))).await;
    let mut command = orchestrator();
    command
        .args([
            "run",
            "--source",
            &source.url().to_string(),
            "-p",
            "1",
            "--to",
        ])
        .arg(folder.path());
    let output = output(command).await;
    let texts = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{texts}");
    let errors: Vec<&str> = texts
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(errors.len(), 1, "{texts}");
    for words in ["507 NoSpaceLeft", "/archive/00.tar", "free some space"] {
        assert!(texts.contains(words), "{words:?} is not in: {texts}");
    }
    let names: Vec<String> = files_of(folder.path()).into_keys().collect();
    assert!(names.is_empty() || names == ["run.json"], "{names:?}");
}

/// A small disk. It is unmounted when this is dropped.
struct Mounted<'path>(&'path Path);

impl<'path> Mounted<'path> {
    fn small(at: &'path Path) -> Option<Self> {
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(at)
            .output()
            .ok()?;
        output.status.success().then_some(Self(at))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        succeeds("umount", &[self.0.as_os_str()]);
    }
}
