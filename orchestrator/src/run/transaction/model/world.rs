//! The state that the search explores: the store, the processes and the writes in flight, and the actions that change
//! it.

use super::process::{Command, End, Process};
use super::turnstile::CLOCK;
use crate::archive::run_record::RunRecord;
use crate::run::memory_store::{Content, Fate, Files, Operation, apply};
use prefix_tar::protocol::run_id::RunId;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

/// What a scenario permits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) crashes: u32,
    pub(super) lost_answers: u32,
    /// How often another process may act although the one that acted last could continue.
    pub(super) preemptions: u32,
}

/// More preemptions than any path has steps.
pub(super) const ANY_PREEMPTIONS: u32 = 1000;

/// A write that a process sent before it died.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct InFlight {
    file: String,
    base: Option<u64>,
    content: Content,
    signed_at: u64,
}

/// One transition to another state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A process performs its pending operation.
    Step(usize),
    /// A process performs its pending write, but the answer is lost.
    StepAnswerLost(usize),
    /// A process dies. Its pending write is lost.
    Crash(usize),
    /// A process dies. Its pending write may still arrive.
    CrashInFlight(usize),
    /// A write of a dead process arrives.
    Arrive(usize),
}

/// A state.
pub(super) struct World {
    files: Arc<Mutex<Files>>,
    processes: Vec<Process>,
    in_flight: Vec<InFlight>,
    budget: Budget,
    /// The number of actions so far.
    clock: u64,
    /// When run.json last changed to another run. URLs that were signed before expire if a process waits for that.
    taken_over_at: u64,
    /// The run that run.json names.
    run: Option<RunId>,
    /// The process that acted last.
    last: usize,
}

impl World {
    pub(super) fn new(initial: &Files, commands: &[Command], budget: Budget) -> Self {
        let files = Arc::new(Mutex::new(initial.clone()));
        let processes = commands
            .iter()
            .map(|command| Process::start(&files, *command))
            .collect();
        Self {
            files,
            processes,
            in_flight: Vec::new(),
            budget,
            clock: 0,
            taken_over_at: 0,
            run: None,
            last: 0,
        }
    }

    /// A copy of what the store holds.
    pub(super) fn files(&self) -> Files {
        self.files.lock().expect("files").clone()
    }

    /// How each process ended, if it has.
    pub(super) fn ends(&self) -> Vec<Option<End>> {
        self.processes
            .iter()
            .map(|process| process.end.clone())
            .collect()
    }

    /// The actions that are possible.
    pub(super) fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (index, process) in self.processes.iter().enumerate() {
            let turn = process.turn();
            if process.end.is_some() || self.preempts(index) && self.budget.preemptions == 0 {
                continue;
            }
            actions.push(Action::Step(index));
            let is_write = matches!(turn.pending(), Some(Operation::Write(..)));
            if is_write && self.budget.lost_answers > 0 {
                actions.push(Action::StepAnswerLost(index));
            }
            if self.budget.crashes > 0 {
                // A crash before a read is the same as one after the write before it.
                if is_write {
                    actions.push(Action::CrashInFlight(index));
                }
                actions.push(Action::Crash(index));
            }
        }
        actions.extend((0..self.in_flight.len()).map(Action::Arrive));
        actions
    }

    /// Whether an action of this process preempts another one.
    fn preempts(&self, index: usize) -> bool {
        index != self.last && self.processes[self.last].end.is_none()
    }

    pub(super) fn act(&mut self, action: Action) {
        self.clock += 1;
        if let Action::Step(index)
        | Action::StepAnswerLost(index)
        | Action::Crash(index)
        | Action::CrashInFlight(index) = action
        {
            if self.preempts(index) {
                self.budget.preemptions -= 1;
            }
            self.last = index;
        }
        match action {
            Action::Step(index) => self.step(index, Fate::Answered),
            Action::StepAnswerLost(index) => {
                self.budget.lost_answers -= 1;
                self.step(index, Fate::AnswerLost);
            }
            Action::Crash(index) => self.crash(index),
            Action::CrashInFlight(index) => {
                self.crash(index);
                self.leave_in_flight(index);
            }
            Action::Arrive(index) => self.arrive(index),
        }
    }

    fn crash(&mut self, index: usize) {
        self.budget.crashes -= 1;
        self.processes[index].crash();
    }

    /// Keeps the pending write of a process that has died.
    fn leave_in_flight(&mut self, index: usize) {
        let turn = self.processes[index].turn();
        if let Some(Operation::Write(file, base, content)) = turn.pending().cloned() {
            let signed_at = turn.signed_at.get(&file).copied().unwrap_or(0);
            self.in_flight.push(InFlight {
                file,
                base,
                content,
                signed_at,
            });
        }
    }

    fn arrive(&mut self, index: usize) {
        let InFlight {
            file,
            base,
            content,
            ..
        } = self.in_flight.remove(index);
        let written = apply(&mut self.files.lock().expect("files"), &file, base, content);
        if written.is_some() && file == "run.json" {
            self.note_takeover();
        }
    }

    fn step(&mut self, index: usize, fate: Fate) {
        let process = &mut self.processes[index];
        {
            let mut turn = process.turn();
            match turn.pending().cloned().expect("a pending operation") {
                Operation::Sign(file) => {
                    turn.signed_at.insert(file, self.clock);
                }
                Operation::Read(file) if file == CLOCK => {
                    // Everything that was signed before the takeover expires.
                    let taken_over_at = self.taken_over_at;
                    self.in_flight
                        .retain(|write| write.signed_at > taken_over_at);
                }
                Operation::Write(..) | Operation::Read(_) => {}
            }
            turn.grant(fate);
        }
        let (is_wait, is_takeover) = {
            let turn = process.turn();
            let is_wait = turn.pending() == Some(&Operation::Read(CLOCK.to_owned()));
            let is_takeover =
                matches!(turn.pending(), Some(Operation::Write(file, ..)) if file == "run.json");
            (is_wait, is_takeover)
        };
        process.poll();
        if is_takeover {
            self.note_takeover();
        }
        if is_wait {
            self.expire_urls();
        }
    }

    /// Notes when run.json changes to another run.
    fn note_takeover(&mut self) {
        let record: Option<RunRecord> = parsed(&self.files.lock().expect("files"), "run.json");
        let run = record.map(|record| record.run);
        if run != self.run {
            self.run = run;
            self.taken_over_at = self.clock;
        }
    }

    /// Fails the writes of living processes whose URLs were signed before the takeover.
    fn expire_urls(&mut self) {
        let taken_over_at = self.taken_over_at;
        for process in &mut self.processes {
            let mut turn = process.turn();
            let is_stale = match turn.pending() {
                Some(Operation::Write(file, ..)) => turn
                    .signed_at
                    .get(file)
                    .is_some_and(|signed_at| *signed_at <= taken_over_at),
                _ => false,
            };
            if is_stale && process.end.is_none() {
                turn.grant(Fate::Expired);
                drop(turn);
                process.poll();
            }
        }
    }

    /// The hash of what the store holds.
    pub(super) fn archive_hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.files.lock().expect("files").hash(&mut hasher);
        hasher.finish()
    }

    /// The hash of everything that can make a difference from here on.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.archive_hash().hash(&mut hasher);
        for process in &self.processes {
            let turn = process.turn();
            (turn.history, turn.pending(), &process.end).hash(&mut hasher);
            // Only whether a URL expires at the next wait matters.
            for (file, signed_at) in &turn.signed_at {
                (file, *signed_at <= self.taken_over_at).hash(&mut hasher);
            }
        }
        let mut in_flight: Vec<_> = self
            .in_flight
            .iter()
            .map(|write| {
                let expires = write.signed_at <= self.taken_over_at;
                let mut hasher = DefaultHasher::new();
                (&write.file, write.base, &write.content, expires).hash(&mut hasher);
                hasher.finish()
            })
            .collect();
        in_flight.sort_unstable();
        in_flight.hash(&mut hasher);
        (self.budget.crashes, self.budget.lost_answers).hash(&mut hasher);
        if self.budget.preemptions < ANY_PREEMPTIONS / 2 {
            (self.budget.preemptions, self.last).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Executes one command to its end, without any fault.
pub(super) fn undisturbed(files: &Files, command: Command) -> (Files, End) {
    let mut world = World::new(
        files,
        &[command],
        Budget {
            crashes: 0,
            lost_answers: 0,
            preemptions: 0,
        },
    );
    loop {
        if let Some(end) = world.processes[0].end.clone() {
            return (world.files(), end);
        }
        world.act(Action::Step(0));
    }
}

/// The JSON file `name`, if there is one.
pub(super) fn parsed<T: serde::de::DeserializeOwned>(files: &Files, name: &str) -> Option<T> {
    match &files.get(name)?.content {
        Content::Text(text) => Some(serde_json::from_slice(text.bytes()).expect("valid JSON")),
        Content::Tar(_) => panic!("{name} is a tar"),
    }
}
