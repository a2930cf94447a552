//! Explores every interleaving of processes that share an archive in a bucket: crashes, lost answers, uploads that
//! outlive their process, and URLs that expire. It drives the real code, one operation on the store at a time.
//!
//! A state is what the store holds, what each process has seen so far, which decides what it does next, and what may
//! still arrive. States that were seen before are not explored again.

use super::{Admission, Opening, Request, Transaction};
use crate::archive::Archive as _;
use crate::archive::manifest::Manifest;
use crate::archive::run_record::RunRecord;
use crate::destination::Destination;
use crate::run::memory_store::{
    Content, Fate, File, Files, Gate, Lost, MemoryStore, Operation, Text, apply, crc32c_of, report,
};
use crate::run::outcome::StoredPrefix;
use crate::run::plan::PrefixSet;
use futures::task::noop_waker_ref;
use jiff::{SignedDuration, Timestamp};
use prefix_tar::protocol::failure::{Failure, FailureKind};
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use prefix_tar::protocol::run_id::RunId;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use tokio_util::sync::CancellationToken;

const SOURCE: &str = "http://127.0.0.1:8080";

/// Attempts of a process at one prefix.
const ATTEMPTS_MAX: u32 = 4;

/// What a process is told to do.
#[derive(Clone, Copy, Debug)]
struct Command {
    prefixes: &'static str,
    force: bool,
    /// The same for the processes of one run.
    random: u32,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum End {
    /// Exit code 0.
    Done,
    /// Another exit code.
    Failed,
}

/// What a scenario permits.
#[derive(Clone, Copy, Debug)]
struct Budget {
    crashes: u32,
    lost_answers: u32,
    /// How often a process that could go on is interrupted by another one.
    switches: u32,
}

/// More interruptions than any path has steps.
const ANY_SWITCHES: u32 = 1000;

/// Where a process is: what it has been answered, and what it waits to do.
#[derive(Debug, Default)]
struct Turn {
    /// Decides what the process does next.
    history: u64,
    /// What the process waits to do; concurrent operations take turns.
    waiting: VecDeque<(u64, Operation)>,
    tickets: u64,
    /// Whose turn it is, and with which fate.
    granted: Option<(u64, Fate)>,
    wakers: Vec<Waker>,
    /// The clock when the process last signed something that it has not used yet.
    signed_at: BTreeMap<String, u64>,
}

/// The gate of one process.
#[derive(Default)]
struct Turnstile(Mutex<Turn>);

impl Turn {
    /// The next operation.
    fn pending(&self) -> Option<&Operation> {
        self.waiting.front().map(|(_, operation)| operation)
    }

    fn grant(&mut self, fate: Fate) {
        let (ticket, _) = self.waiting.front().expect("a pending operation");
        self.granted = Some((*ticket, fate));
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}

impl Gate for Turnstile {
    fn pass(&self, operation: Operation) -> Pin<Box<dyn Future<Output = Fate> + Send + '_>> {
        // Nobody writes other prefixes, so it does not matter when they are read.
        if let Operation::Read(file) = &operation
            && !["00.", "01.", "run.", "manifest.", CLOCK]
                .iter()
                .any(|relevant| file.starts_with(relevant))
        {
            return Box::pin(std::future::ready(Fate::Answered));
        }
        let ticket = {
            let mut turn = self.0.lock().expect("not poisoned");
            turn.tickets += 1;
            let ticket = turn.tickets;
            turn.waiting.push_back((ticket, operation));
            ticket
        };
        Box::pin(std::future::poll_fn(move |context| {
            let mut turn = self.0.lock().expect("not poisoned");
            match turn.granted {
                Some((granted, fate)) if granted == ticket => {
                    turn.granted = None;
                    turn.waiting.pop_front();
                    Poll::Ready(fate)
                }
                _ => {
                    turn.wakers.push(context.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }

    fn note(&self, answer: u64) {
        let mut turn = self.0.lock().expect("not poisoned");
        let mut hasher = DefaultHasher::new();
        (turn.history, answer).hash(&mut hasher);
        turn.history = hasher.finish();
    }
}

/// A write that its process has sent, or may have sent, before it died.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct InFlight {
    file: String,
    base: Option<u64>,
    content: Content,
    signed_at: u64,
}

struct Process {
    turnstile: Arc<Turnstile>,
    future: Option<Pin<Box<dyn Future<Output = End>>>>,
    end: Option<End>,
}

/// The wait for an unfinished run's uploads is an operation on this file.
const CLOCK: &str = "the clock";

/// One step of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Step(usize),
    StepAnswerLost(usize),
    /// The process dies. Its pending write is lost.
    Crash(usize),
    /// The process dies. Its pending write may still arrive.
    CrashInFlight(usize),
    /// A write of a dead process arrives.
    Arrive(usize),
}

struct World {
    files: Arc<Mutex<Files>>,
    processes: Vec<Process>,
    in_flight: Vec<InFlight>,
    budget: Budget,
    clock: u64,
    /// When run.json last came to name another run: what was signed before expires if somebody waits.
    taken_over_at: u64,
    /// The run that run.json names.
    run: Option<RunId>,
    /// The process that acted last.
    last: usize,
}

impl World {
    fn new(initial: &Files, commands: &[Command], budget: Budget) -> Self {
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

    /// Notes when run.json names another run.
    fn note_takeover(&mut self) {
        let record: Option<RunRecord> = parsed(&self.files.lock().expect("files"), "run.json");
        let run = record.map(|record| record.run);
        if run != self.run {
            self.run = run;
            self.taken_over_at = self.clock;
        }
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (index, process) in self.processes.iter().enumerate() {
            let turn = process.turnstile.0.lock().expect("not poisoned");
            let is_switch = index != self.last && self.processes[self.last].end.is_none();
            if process.end.is_some() || is_switch && self.budget.switches == 0 {
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

    fn act(&mut self, action: Action) {
        self.clock += 1;
        if let Action::Step(index)
        | Action::StepAnswerLost(index)
        | Action::Crash(index)
        | Action::CrashInFlight(index) = action
        {
            if index != self.last && self.processes[self.last].end.is_none() {
                self.budget.switches -= 1;
            }
            self.last = index;
        }
        match action {
            Action::Step(index) => self.step(index, Fate::Answered),
            Action::StepAnswerLost(index) => {
                self.budget.lost_answers -= 1;
                self.step(index, Fate::AnswerLost);
            }
            Action::Crash(index) | Action::CrashInFlight(index) => {
                self.budget.crashes -= 1;
                let process = &mut self.processes[index];
                process.future = None;
                process.end = Some(End::Failed);
                let turn = process.turnstile.0.lock().expect("not poisoned");
                if let (Action::CrashInFlight(_), Some(Operation::Write(file, base, content))) =
                    (action, turn.pending().cloned())
                {
                    let signed_at = turn.signed_at.get(&file).copied().unwrap_or(0);
                    self.in_flight.push(InFlight {
                        file,
                        base,
                        content,
                        signed_at,
                    });
                }
            }
            Action::Arrive(index) => {
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
        }
    }

    fn step(&mut self, index: usize, fate: Fate) {
        let process = &mut self.processes[index];
        {
            let mut turn = process.turnstile.0.lock().expect("not poisoned");
            let fate = match turn.pending().cloned().expect("a pending operation") {
                Operation::Sign(file) => {
                    turn.signed_at.insert(file, self.clock);
                    fate
                }
                Operation::Read(file) if file == CLOCK => {
                    // Everything that was signed before the takeover expires.
                    let taken_over_at = self.taken_over_at;
                    self.in_flight
                        .retain(|write| write.signed_at > taken_over_at);
                    fate
                }
                Operation::Write(..) | Operation::Read(_) => fate,
            };
            turn.grant(fate);
        }
        let (is_wait, is_takeover) = {
            let turn = process.turnstile.0.lock().expect("not poisoned");
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
            // A URL that a living process has signed and not used has expired, too.
            let taken_over_at = self.taken_over_at;
            for other in &mut self.processes {
                let mut turn = other.turnstile.0.lock().expect("not poisoned");
                let is_stale = match turn.pending() {
                    Some(Operation::Write(file, ..)) => turn
                        .signed_at
                        .get(file)
                        .is_some_and(|signed_at| *signed_at <= taken_over_at),
                    _ => false,
                };
                if is_stale && other.end.is_none() {
                    turn.grant(Fate::Expired);
                    drop(turn);
                    other.poll();
                }
            }
        }
    }

    fn archive_hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.files.lock().expect("files").hash(&mut hasher);
        hasher.finish()
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.archive_hash().hash(&mut hasher);
        for process in &self.processes {
            let turn = process.turnstile.0.lock().expect("not poisoned");
            (turn.history, turn.pending(), &process.end).hash(&mut hasher);
            // Only whether it expires at the next wait matters.
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
        if self.budget.switches < ANY_SWITCHES / 2 {
            (self.budget.switches, self.last).hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl Process {
    fn start(files: &Arc<Mutex<Files>>, command: Command) -> Self {
        let turnstile = Arc::<Turnstile>::default();
        let gate: Arc<dyn Gate> = Arc::<Turnstile>::clone(&turnstile);
        let store = Arc::new(MemoryStore::new(Arc::clone(files), gate));
        let mut process = Self {
            turnstile,
            future: Some(Box::pin(run(store, command))),
            end: None,
        };
        process.poll();
        process
    }

    fn poll(&mut self) {
        let Some(future) = &mut self.future else {
            return;
        };
        let mut context = Context::from_waker(noop_waker_ref());
        if let Poll::Ready(end) = future.as_mut().poll(&mut context) {
            self.future = None;
            self.end = Some(end);
        }
    }
}

/// The present time of the model.
fn now() -> Timestamp {
    "2026-11-25T03:17:00Z".parse().expect("a time")
}

/// One process: opens the transaction, stores every prefix, writes the manifest.
async fn run(store: Arc<MemoryStore>, command: Command) -> End {
    let prefixes: PrefixSet = command.prefixes.parse().expect("prefixes");
    let mut request = Request {
        source: SOURCE,
        prefixes: &prefixes,
        force: command.force,
        now: now(),
        random: command.random,
    };
    let shutdown = CancellationToken::new();
    let opening = loop {
        let destination: Arc<dyn Destination> = Arc::<MemoryStore>::clone(&store);
        match Transaction::open(destination, request, &shutdown).await {
            Ok(Opening::Wait { until }) => {
                store.generation(CLOCK).await.expect("answered");
                request.now = until;
            }
            Ok(opening) => break opening,
            Err(_) => return End::Failed,
        }
    };
    let (transaction, mut stored) = match opening {
        Opening::Complete(_) => return End::Done,
        Opening::Begun {
            transaction,
            stored,
        } => (transaction, stored),
        Opening::Stopped | Opening::Wait { .. } => return End::Failed,
    };
    let done: Vec<Prefix> = stored.iter().map(|stored| stored.prefix).collect();
    for prefix in prefixes.iter().filter(|prefix| !done.contains(prefix)) {
        match store_prefix(&store, &transaction, prefix).await {
            Some(report) => stored.push(StoredPrefix::new(&report, 1)),
            None => return End::Failed,
        }
    }
    let stored: Vec<&StoredPrefix> = stored.iter().collect();
    match transaction.finish(&stored, "then").await {
        Ok(_) => End::Done,
        Err(_) => End::Failed,
    }
}

async fn store_prefix(
    store: &MemoryStore,
    transaction: &Transaction,
    prefix: Prefix,
) -> Option<Report> {
    let tar = format!("{prefix} of {}", transaction.run());
    for _ in 0..ATTEMPTS_MAX {
        let upload = match transaction.admit(prefix).await.ok()? {
            Admission::Stored(report) => return Some(*report),
            Admission::Upload(upload) => upload,
        };
        match store.upload(prefix, &upload, &tar, SOURCE).await {
            Ok(Some(report)) => return transaction.commit(prefix, report, false).await.ok(),
            Ok(None) | Err(Lost::Expired) => {}
            Err(Lost::Answer) => {
                let sent = report(prefix, SOURCE, &tar);
                let mut failure = Failure::transient(FailureKind::StoreUnreachable, "lost");
                let settled = transaction.settle(prefix, &sent, &mut failure).await;
                if let Ok(Some(report)) = settled {
                    return Some(report);
                }
            }
        }
    }
    None
}

/// A run that nobody disturbs.
fn undisturbed(files: &Files, command: Command) -> (Files, End) {
    let mut world = World::new(
        files,
        &[command],
        Budget {
            crashes: 0,
            lost_answers: 0,
            switches: 0,
        },
    );
    while world.processes[0].end.is_none() {
        world.act(Action::Step(0));
    }
    let files = world.files.lock().expect("files").clone();
    (files, world.processes[0].end.clone().expect("an end"))
}

fn parsed<T: serde::de::DeserializeOwned>(files: &Files, name: &str) -> Option<T> {
    match &files.get(name)?.content {
        Content::Text(text) => Some(serde_json::from_slice(text.bytes()).expect("valid books")),
        _ => panic!("{name} is a tar"),
    }
}

/// What must hold in every state. Returns what does not.
fn violation(initial: &Files, files: &Files) -> Option<String> {
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
        // Another tar than the manifest's can only be one of another run, and only while a run is unfinished.
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

/// What must hold when every process has ended and nothing is in flight: the same commands complete the archive, and a
/// process that said it was done was right.
fn violation_at_the_end(world: &World, commands: &[Command]) -> Option<String> {
    let files = world.files.lock().expect("files").clone();
    let manifest: Option<Manifest> = parsed(&files, "manifest.json");
    if world
        .processes
        .iter()
        .any(|process| process.end == Some(End::Done))
    {
        let Some(manifest) = manifest else {
            return Some("a run is done without a manifest".to_owned());
        };
        let record: Option<RunRecord> = parsed(&files, "run.json");
        let is_last = record.is_none_or(|record| manifest.run == Some(record.run));
        for (process, command) in world.processes.iter().zip(commands) {
            if process.end != Some(End::Done) {
                continue;
            }
            let prefixes: PrefixSet = command.prefixes.parse().expect("prefixes");
            for prefix in prefixes.iter() {
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
        }
    }
    // Whatever happened: the same command, undisturbed, completes the archive.
    for command in commands {
        let (after, end) = undisturbed(&files, *command);
        if end != End::Done {
            return Some(format!("{command:?} does not complete the archive"));
        }
        if let Some(violation) = violation(&files, &after) {
            return Some(violation);
        }
        let manifest: Manifest = parsed(&after, "manifest.json").expect("a manifest");
        let prefixes: PrefixSet = command.prefixes.parse().expect("prefixes");
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
    }
    None
}

struct Explored {
    states: usize,
    ends: usize,
}

/// Explores every state that `commands` can reach from `initial`.
fn explore(initial: &Files, commands: &[Command], budget: Budget) -> Explored {
    let mut seen = HashSet::new();
    let mut archives = HashSet::new();
    let mut last_archives = HashSet::new();
    let mut ends = 0;
    let mut paths = vec![Vec::new()];
    while let Some(path) = paths.pop() {
        let mut path: Vec<Action> = path;
        let mut world = World::new(initial, commands, budget);
        for action in &path {
            world.act(*action);
        }
        // The first child is explored without a replay.
        loop {
            if !seen.insert(world.hash()) {
                break;
            }
            let archive = world.archive_hash();
            if archives.insert(archive) {
                let found = violation(initial, &world.files.lock().expect("files"));
                assert_eq!(found, None, "{commands:?} after {path:?}");
            }
            let actions = world.actions();
            let Some((first, others)) = actions.split_first() else {
                ends += 1;
                let how: Vec<_> = world
                    .processes
                    .iter()
                    .map(|process| process.end.clone())
                    .collect();
                if last_archives.insert((archive, how)) {
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

/// An archive that an earlier run has completed.
fn archive_of(command: Command) -> Files {
    let (files, end) = undisturbed(&Files::new(), command);
    assert_eq!(end, End::Done);
    files
}

const EARLIER: Command = Command {
    prefixes: "00-01",
    force: false,
    random: 1,
};

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

const fn plain(prefixes: &'static str, random: u32) -> Command {
    Command {
        prefixes,
        force: false,
        random,
    }
}

const fn forced(prefixes: &'static str, random: u32) -> Command {
    Command {
        force: true,
        ..plain(prefixes, random)
    }
}

/// Explores a scenario and prints how many states it has.
#[expect(
    clippy::print_stdout,
    reason = "`--nocapture` shows how much was explored"
)]
fn explore_all(what: &str, initial: &Files, commands: &[Command], budgets: &[(u32, u32, u32)]) {
    for (crashes, lost_answers, switches) in budgets {
        let budget = Budget {
            crashes: *crashes,
            lost_answers: *lost_answers,
            switches: *switches,
        };
        let explored = explore(initial, commands, budget);
        println!(
            "{what}, {crashes} crashes, {lost_answers} lost answers, {switches} switches: {} states, {} ends",
            explored.states, explored.ends
        );
        assert!(explored.ends > 0);
    }
}

/// Crashes, lost answers and interruptions that take seconds to explore.
const SOME: [(u32, u32, u32); 3] = [(0, 0, 3), (1, 0, 1), (0, 1, 1)];

/// All that can happen. It takes minutes; `make soak` runs it.
const ALL: [(u32, u32, u32); 3] = [
    (0, 0, ANY_SWITCHES),
    (1, 0, ANY_SWITCHES),
    (0, 1, ANY_SWITCHES),
];

/// A run, and the processes that resume it one after the other.
fn successions() -> [(&'static str, Files, Vec<Command>); 3] {
    let complete = archive_of(EARLIER);
    [
        (
            "a run and its successors",
            Files::new(),
            vec![plain("00-01", 7), plain("00-01", 8), plain("00-01", 9)],
        ),
        (
            "a forced run and its successors",
            complete.clone(),
            vec![forced("00-01", 7), forced("00-01", 8), plain("00-01", 9)],
        ),
        (
            "a forced run, then another",
            complete,
            vec![forced("00", 7), plain("00-01", 8)],
        ),
    ]
}

#[test]
fn the_books_are_true_wherever_a_run_is_killed() {
    // Without interruptions, the next process starts when the one before has ended.
    for (what, files, commands) in successions() {
        explore_all(what, &files, &commands[..2], &[(1, 0, 0), (0, 1, 0)]);
    }
}

/// Two processes of one run, of one forced run, and of two runs that overlap.
fn meetings() -> [(&'static str, Files, [Command; 2]); 3] {
    let complete = archive_of(plain("00", 1));
    [
        (
            "one run twice",
            Files::new(),
            [plain("00", 7), plain("00", 8)],
        ),
        (
            "one forced run twice",
            complete.clone(),
            [forced("00", 7), forced("00", 8)],
        ),
        ("two runs", complete, [forced("00", 7), plain("00-01", 8)]),
    ]
}

#[test]
fn the_books_are_true_when_two_processes_meet() {
    for (what, files, commands) in meetings() {
        explore_all(what, &files, &commands, &SOME);
    }
}

#[test]
#[ignore = "takes minutes; `make soak`"]
fn the_books_are_true_when_two_processes_meet_whatever_happens() {
    for (what, files, commands) in successions() {
        explore_all(what, &files, &commands, &[(2, 0, 0), (1, 1, 0)]);
    }
    for (what, files, commands) in meetings() {
        explore_all(what, &files, &commands, &ALL);
    }
    let complete = archive_of(EARLIER);
    let commands = [forced("00-01", 7), forced("01", 8)];
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
fn an_unfinished_run_of_last_month_is_not_resumed() {
    let mut files = archive_of(EARLIER);
    files.remove("manifest.json");
    let mut record: RunRecord = parsed(&files, "run.json").expect("a record");
    let before = record.run.clone();
    for (age, is_resumed) in [(6, true), (8, false)] {
        let started = now() - SignedDuration::from_hours(24 * age);
        record.started = started.to_string();
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
