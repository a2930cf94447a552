//! The search: depth first through every state that a scenario can reach, each state once.

use super::invariants::{violation, violation_at_the_end};
use super::process::Command;
use super::world::{Action, Budget, World};
use crate::run::memory_store::Files;
use std::collections::HashSet;

/// A long search prints a line after this many states.
const PROGRESS_STATES: usize = 250_000;

/// How much was explored.
struct Explored {
    states: usize,
    ends: usize,
}

/// Explores a scenario with each budget (crashes, lost answers, preemptions) and prints how many states it has.
#[expect(
    clippy::print_stdout,
    reason = "`--nocapture` shows how much was explored"
)]
pub(super) fn explore_all(
    scenario: &str,
    initial: &Files,
    commands: &[Command],
    budgets: &[(u32, u32, u32)],
) {
    for (crashes, lost_answers, preemptions) in budgets {
        let budget = Budget {
            crashes: *crashes,
            lost_answers: *lost_answers,
            preemptions: *preemptions,
        };
        let what = format!(
            "{scenario}, {crashes} crashes, {lost_answers} lost answers, {preemptions} preemptions"
        );
        let explored = explore(initial, commands, budget, |states, waiting| {
            println!("{what}: {states} states so far, {waiting} paths to go");
        });
        println!("{what}: {} states, {} ends", explored.states, explored.ends);
        assert!(explored.ends > 0);
    }
}

/// Explores every state that `commands` can reach from `initial`. Reports now and then how many it has seen and how
/// many paths wait.
fn explore(
    initial: &Files,
    commands: &[Command],
    budget: Budget,
    on_progress: impl Fn(usize, usize),
) -> Explored {
    let mut seen = HashSet::new();
    let mut archives = HashSet::new();
    let mut last_archives = HashSet::new();
    let mut ends = 0;
    let mut paths = vec![Vec::new()];
    while let Some(path) = paths.pop() {
        let mut path: Vec<Action> = path;
        // A process cannot be copied, so each path is replayed from the start.
        let mut world = World::new(initial, commands, budget);
        for action in &path {
            world.act(*action);
        }
        // The first child is explored without a replay.
        while seen.insert(world.hash()) {
            if seen.len().is_multiple_of(PROGRESS_STATES) {
                on_progress(seen.len(), paths.len());
            }
            let archive = world.archive_hash();
            if archives.insert(archive) {
                let found = violation(initial, &world.files());
                assert_eq!(found, None, "{commands:?} after {path:?}");
            }
            let actions = world.actions();
            let Some((first, others)) = actions.split_first() else {
                ends += 1;
                if last_archives.insert((archive, world.ends())) {
                    let found = violation_at_the_end(&world, commands);
                    assert_eq!(found, None, "{commands:?} after {path:?}");
                }
                break;
            };
            for action in others {
                let mut other = path.clone();
                other.push(*action);
                paths.push(other);
            }
            world.act(*first);
            path.push(*first);
        }
    }
    Explored {
        states: seen.len(),
        ends,
    }
}
