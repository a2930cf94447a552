//! Writes to stdout and stderr, each from a queue and on a thread of its own: a reader that stops
//! reading stops that thread, and nothing else.
//!
//! This is also the last place that text passes on its way to a terminal, so what is unsafe to show
//! is escaped here, whatever it is part of.

use prefix_tar::protocol::text::{escaped, is_unsafe};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What one stream queues, in bytes. The events of 256 prefixes that need three retries each take
/// less, so a run into a stuck reader usually loses only progress.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// A reader that has taken nothing for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// How long the program's end waits at least for a reader, even if it is stuck or the user has
/// pressed Ctrl-C.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// How long the program's end waits at most for a reader that takes a little now and then.
const LAST_WAIT_MAX: Duration = Duration::from_secs(60);

/// How often that wait looks for a signal.
const SIGNAL_POLL: Duration = Duration::from_millis(50);

/// How long a line waits for the lines before it on the other stream.
const SETTLE_MAX: Duration = Duration::from_millis(200);

/// One write, in bytes. A pipe takes this much at once (`PIPE_BUF`), so lines of two programs do
/// not mix, and every write shows that the reader is alive.
const PIECE_BYTES_MAX: usize = 4096;

/// The pause before another write to a descriptor that somebody has set to non-blocking.
const NON_BLOCKING_PAUSE: Duration = Duration::from_millis(20);

/// What is queued, and how much of the queue it may fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Obsolete soon: dropped at once if the reader is behind.
    Progress,
    /// A line of the log, from a thread that has other things to do.
    Log,
    /// Something that happened.
    Event,
    /// What the user has started the command for.
    Result,
}

impl Urgency {
    const fn bytes_max(self, queue: usize) -> usize {
        match self {
            Self::Progress => queue / 16,
            Self::Log => queue / 2,
            Self::Event => queue,
            Self::Result => queue * 2,
        }
    }

    /// How long it waits for room in the queue while the reader takes nothing.
    fn patience(self, stuck_after: Duration) -> Duration {
        match self {
            Self::Progress => Duration::ZERO,
            Self::Log => stuck_after / 10,
            Self::Event | Self::Result => stuck_after,
        }
    }
}

/// A stream: a queue, and the thread that writes it. Clones share both.
#[derive(Clone, Debug)]
pub struct Output(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something was queued or written.
    changed: Condvar,
    queue_bytes_max: usize,
    stuck_after: Duration,
}

#[derive(Debug)]
struct State {
    chunks: VecDeque<String>,
    /// Bytes that are not written, with those of the chunk that the thread has taken.
    bytes: usize,
    /// The last write that the reader took, or when the queue was last empty.
    alive: Instant,
    /// Lines that were dropped since the last notice about them; progress is not counted.
    lost: u64,
    describe_lost: fn(u64) -> String,
}

/// stdout, for as long as the program runs.
pub fn stdout() -> &'static Output {
    static STDOUT: LazyLock<Output> = LazyLock::new(|| descriptor(io::stdout()));
    &STDOUT
}

/// stderr, for as long as the program runs.
pub fn stderr() -> &'static Output {
    static STDERR: LazyLock<Output> = LazyLock::new(|| descriptor(io::stderr()));
    &STDERR
}

/// The standard library locks its streams while it writes, and would wait for the lock when the
/// program exits: this writes to a duplicate of the descriptor.
fn descriptor(stream: impl AsFd + Write + Send + 'static) -> Output {
    match stream.as_fd().try_clone_to_owned() {
        Ok(duplicate) => Output::new(File::from(duplicate), QUEUE_BYTES_MAX, STUCK_AFTER),
        Err(_) => Output::new(stream, QUEUE_BYTES_MAX, STUCK_AFTER),
    }
}

/// Waits until both streams are written, or their readers are stuck. If stdout's is, stderr says so.
/// `is_hurried` tells whether the user wants the program to end.
pub fn drain(is_hurried: &dyn Fn() -> bool) {
    if !stdout().drain(is_hurried) {
        stderr().line(Urgency::Result, NOT_READ);
    }
    stderr().drain(is_hurried);
}

/// The warning about a reader of stdout that is stuck.
pub(super) const NOT_READ: &str =
    "warning: nobody reads stdout; events and results that it has no room for are dropped";

fn lines_lost(lines: u64) -> String {
    format!("warning: {lines} lines are missing here, because nobody read them in time")
}

impl Output {
    /// Starts the thread that writes to `sink`. The queue takes this many bytes; a reader is stuck
    /// after this time.
    pub(super) fn new(
        sink: impl Write + Send + 'static,
        queue_bytes_max: usize,
        stuck_after: Duration,
    ) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                chunks: VecDeque::new(),
                bytes: 0,
                alive: Instant::now(),
                lost: 0,
                describe_lost: lines_lost,
            }),
            changed: Condvar::new(),
            queue_bytes_max,
            stuck_after,
        });
        let written = Arc::clone(&shared);
        let writer = std::thread::Builder::new().name("writer".to_owned());
        if let Err(error) = writer.spawn(move || written.write_to(sink)) {
            // Without threads, the runtime does not start either, and nobody is told.
            tracing::error!(%error, "there is no thread that writes");
        }
        Self(shared)
    }

    /// How to tell the reader that this many lines are missing.
    pub(super) fn describe_lost(&self, describe: fn(u64) -> String) {
        self.0.lock().describe_lost = describe;
    }

    /// Writes a line of text. Returns whether the queue took it.
    pub fn line(&self, urgency: Urgency, text: &str) -> bool {
        self.text(urgency, &format!("{}\n", escaped(text)))
    }

    /// Writes a line of JSON, as valid as before. Returns whether the queue took it.
    pub fn json(&self, urgency: Urgency, record: &str) -> bool {
        self.text(urgency, &format!("{}\n", escaped_in_json(record)))
    }

    /// Writes the program's own text as it is. Returns whether the queue took it.
    pub fn text(&self, urgency: Urgency, text: &str) -> bool {
        let bytes_max = urgency.bytes_max(self.0.queue_bytes_max);
        let patience = urgency.patience(self.0.stuck_after);
        let mut state = self.0.lock();
        while state.bytes >= bytes_max {
            let left = patience.saturating_sub(state.alive.elapsed());
            if left.is_zero() {
                state.lost += u64::from(urgency != Urgency::Progress);
                return false;
            }
            state = self.0.wait(state, left);
        }
        state.tell_lost();
        state.queue(text);
        drop(state);
        self.0.changed.notify_all();
        true
    }

    /// Waits a moment for what is queued, so that a line on the other stream comes after it.
    pub fn settle(&self) {
        let mut state = self.0.lock();
        while state.bytes > 0 {
            let left = SETTLE_MAX.saturating_sub(state.alive.elapsed());
            if left.is_zero() {
                return;
            }
            state = self.0.wait(state, left);
        }
    }

    /// Waits until everything is written, or the reader is stuck. Returns whether everything is.
    fn drain(&self, is_hurried: &dyn Fn() -> bool) -> bool {
        let began = Instant::now();
        let mut state = self.0.lock();
        state.tell_lost();
        self.0.changed.notify_all();
        while state.bytes > 0 {
            let deadline = match is_hurried() {
                true => began + LAST_WAIT,
                false => (state.alive + self.0.stuck_after)
                    .clamp(began + LAST_WAIT, began + LAST_WAIT_MAX),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.0.wait(state, left.min(SIGNAL_POLL));
        }
        true
    }
}

impl State {
    fn queue(&mut self, text: &str) {
        if self.bytes == 0 {
            self.alive = Instant::now();
        }
        self.bytes += text.len();
        self.chunks.push_back(text.to_owned());
    }

    fn tell_lost(&mut self) {
        if self.lost > 0 {
            let notice = (self.describe_lost)(std::mem::take(&mut self.lost));
            self.queue(&format!("{notice}\n"));
        }
    }
}

impl Shared {
    /// A poisoned lock holds a valid state: nothing in between can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'state>(
        &self,
        state: MutexGuard<'state, State>,
        timeout: Duration,
    ) -> MutexGuard<'state, State> {
        let waited = self.changed.wait_timeout(state, timeout);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn write_to(&self, mut sink: impl Write) {
        loop {
            let chunk = self.next_chunk();
            for piece in chunk.as_bytes().chunks(PIECE_BYTES_MAX) {
                // A reader that has closed its end wants no more, and nobody else is to blame.
                let _ = write_piece(&mut sink, piece);
                let mut state = self.lock();
                state.bytes -= piece.len();
                state.alive = Instant::now();
                drop(state);
                self.changed.notify_all();
            }
        }
    }

    fn next_chunk(&self) -> String {
        let mut state = self.lock();
        loop {
            if let Some(chunk) = state.chunks.pop_front() {
                return chunk;
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn write_piece(sink: &mut impl Write, mut piece: &[u8]) -> io::Result<()> {
    while !piece.is_empty() {
        match sink.write(piece) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => piece = piece.get(bytes..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(NON_BLOCKING_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
    sink.flush()
}

/// Escapes in JSON are JSON's own. Outside of a string, JSON has no such characters.
fn escaped_in_json(record: &str) -> Cow<'_, str> {
    if !record.contains(is_unsafe) {
        return Cow::Borrowed(record);
    }
    let mut shown = String::with_capacity(record.len());
    for character in record.chars() {
        if is_unsafe(character) {
            // All of them have four digits. Writing to a string cannot fail.
            let _ = write!(shown, "\\u{:04x}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
pub(super) mod tests;
