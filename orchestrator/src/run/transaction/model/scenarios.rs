//! The scenarios: which processes start on which archive, and how much may happen to them.

use super::process::{Command, End};
use super::world::{ANY_PREEMPTIONS, undisturbed};
use crate::run::memory_store::Files;

/// Crashes, lost answers and preemptions that take seconds to explore.
pub(super) const SOME: [(u32, u32, u32); 3] = [(0, 0, 3), (1, 0, 1), (0, 1, 1)];

/// Every interleaving, with one fault at most. "Two runs" with a lost answer takes longer than all others together.
pub(super) const ALL: [(u32, u32, u32); 3] = [
    (0, 0, ANY_PREEMPTIONS),
    (1, 0, ANY_PREEMPTIONS),
    (0, 1, ANY_PREEMPTIONS),
];

/// The command whose archive most scenarios start with.
pub(super) const EARLIER: Command = Command::plain("00-01", 1);

/// An archive that an earlier run has completed.
pub(super) fn archive_of(command: Command) -> Files {
    let (files, end) = undisturbed(&Files::new(), command);
    assert_eq!(end, End::Done);
    files
}

/// A run, and the processes that resume it one after the other.
pub(super) fn successions() -> [(&'static str, Files, Vec<Command>); 3] {
    let complete = archive_of(EARLIER);
    [
        (
            "a run and its successors",
            Files::new(),
            vec![
                Command::plain("00-01", 7),
                Command::plain("00-01", 8),
                Command::plain("00-01", 9),
            ],
        ),
        (
            "a forced run and its successors",
            complete.clone(),
            vec![
                Command::forced("00-01", 7),
                Command::forced("00-01", 8),
                Command::plain("00-01", 9),
            ],
        ),
        (
            "a forced run, then another",
            complete,
            vec![Command::forced("00", 7), Command::plain("00-01", 8)],
        ),
    ]
}

/// Two processes of one run, of one forced run, and of two runs that overlap.
pub(super) fn meetings() -> [(&'static str, Files, [Command; 2]); 3] {
    let complete = archive_of(Command::plain("00", 1));
    [
        (
            "one run twice",
            Files::new(),
            [Command::plain("00", 7), Command::plain("00", 8)],
        ),
        (
            "one forced run twice",
            complete.clone(),
            [Command::forced("00", 7), Command::forced("00", 8)],
        ),
        (
            "two runs",
            complete,
            [Command::forced("00", 7), Command::plain("00-01", 8)],
        ),
    ]
}
