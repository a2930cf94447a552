//! Streams whose readers read, stop reading and read again.

use super::*;
use proptest::prelude::*;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Longer than any step should take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a reader has read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// Everything that was written to `output`.
    pub(crate) fn all_of(&self, output: &Output) -> String {
        assert!(output.drain(&|| false), "the reader is not stuck");
        let bytes = self.0.lock().expect("not poisoned");
        String::from_utf8(bytes.clone()).expect("UTF-8")
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An output whose reader reads everything.
pub(crate) fn captured() -> (Output, Captured) {
    let captured = Captured::default();
    let output = Output::new(captured.clone(), QUEUE_BYTES_MAX, STUCK_AFTER);
    (output, captured)
}

/// A reader that takes one write for every permit, and everything once there is no giver.
struct Gated {
    permits: Receiver<()>,
    reached: SyncSender<()>,
    captured: Captured,
}

impl Write for Gated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Nobody may be interested that a write was reached, or in permitting it.
        let _ = self.reached.try_send(());
        let _ = self.permits.recv();
        self.captured.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stream whose reader reads nothing before it is permitted to.
pub(crate) struct Stuck {
    pub(crate) output: Output,
    permits: SyncSender<()>,
    captured: Captured,
}

impl Stuck {
    /// Fills the queue with lines of eight bytes, the first of which the thread has taken.
    pub(crate) fn new(queue_bytes_max: usize, stuck_after: Duration) -> Self {
        let (permits, received) = sync_channel(64);
        let (reached, at) = sync_channel(1);
        let captured = Captured::default();
        let sink = Gated {
            permits: received,
            reached,
            captured: captured.clone(),
        };
        let output = Output::new(sink, queue_bytes_max, stuck_after);
        assert!(output.line(Urgency::Event, "line 00"));
        at.recv_timeout(PATIENCE).expect("the thread writes");
        for number in 1..queue_bytes_max / 8 {
            assert!(output.line(Urgency::Event, &format!("line {number:02}")));
        }
        Self {
            output,
            permits,
            captured,
        }
    }

    /// The reader reads again.
    pub(crate) fn read(self) -> (Output, Captured) {
        (self.output, self.captured)
    }
}

#[test]
fn progress_is_dropped_at_once_and_not_counted() {
    let stuck = Stuck::new(64, PATIENCE);
    let began = Instant::now();
    assert!(!stuck.output.line(Urgency::Progress, "progress"));
    assert!(began.elapsed() < PATIENCE / 2, "progress has waited");
    let (output, captured) = stuck.read();
    let text = captured.all_of(&output);
    assert_eq!(text.lines().count(), 8, "{text}");
}

#[test]
fn what_a_stuck_reader_misses_is_counted_and_it_is_told_how_much() {
    let stuck_after = Duration::from_millis(50);
    let stuck = Stuck::new(64, stuck_after);
    let began = Instant::now();
    assert!(!stuck.output.line(Urgency::Event, "lost 1"));
    let waited = began.elapsed();
    assert!(waited < PATIENCE, "it waited {waited:?}");
    assert!(stuck.output.0.lock().alive.elapsed() >= stuck_after);
    for _ in 0..1000 {
        assert!(!stuck.output.line(Urgency::Event, "lost"));
    }
    // A stuck reader costs the time once, not once per line.
    assert!(began.elapsed() < PATIENCE, "every line has waited");
    // The result has room, and comes after the notice.
    assert!(stuck.output.line(Urgency::Result, "the result"));
    let (output, captured) = stuck.read();
    let text = captured.all_of(&output);
    let rest: Vec<&str> = text.lines().skip(8).collect();
    let notice = "warning: 1001 lines are missing here, because nobody read them in time";
    assert_eq!(rest, [notice, "the result"]);
}

#[test]
fn a_slow_reader_misses_nothing() {
    let stuck = Stuck::new(64, PATIENCE);
    let output = stuck.output.clone();
    let pushed = std::thread::spawn(move || output.line(Urgency::Event, "in time"));
    stuck.permits.send(()).expect("the thread writes");
    assert!(pushed.join().expect("pushed"));
    let (output, captured) = stuck.read();
    let text = captured.all_of(&output);
    assert!(text.ends_with("line 07\nin time\n"), "{text}");
}

#[test]
fn a_reader_that_reads_again_is_told_at_the_end_what_it_missed() {
    let stuck = Stuck::new(64, Duration::ZERO);
    stuck.output.describe_lost(|lines| format!("{{{lines}}}"));
    assert!(!stuck.output.line(Urgency::Event, "lost"));
    let (output, captured) = stuck.read();
    assert!(captured.all_of(&output).ends_with("line 07\n{1}\n"));
}

#[test]
fn the_program_s_end_waits_for_a_stuck_reader_only_so_long() {
    for (stuck_after, is_hurried) in [(Duration::ZERO, false), (PATIENCE, true)] {
        let stuck = Stuck::new(64, stuck_after);
        let began = Instant::now();
        assert!(!stuck.output.drain(&|| is_hurried));
        let waited = began.elapsed();
        assert!(waited >= LAST_WAIT && waited < PATIENCE, "{waited:?}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let output = Output::new(writer, QUEUE_BYTES_MAX, STUCK_AFTER);
    assert!(output.line(Urgency::Result, "nobody reads this"));
    assert!(output.drain(&|| false));
}

#[test]
fn a_line_is_one_line_and_json_stays_json() {
    let (output, captured) = captured();
    let forged = "a\nb\r\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{2028}";
    output.line(Urgency::Result, forged);
    let record = serde_json::json!({ "message": forged });
    output.json(Urgency::Result, &record.to_string());
    let text = captured.all_of(&output);
    let (line, json) = text.split_once('\n').expect("two lines");
    assert_eq!(line, r"a\u{a}b\u{d}\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{2028}");
    let json = json.strip_suffix('\n').expect("a line");
    assert!(!json.contains(is_unsafe), "{json:?}");
    let read: serde_json::Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(read, record);
}

proptest! {
    #[test]
    fn json_means_the_same_when_it_is_escaped(text in ".*", number in any::<u32>()) {
        let text: String = text.chars().chain(char::from_u32(number & 0x20FF)).collect();
        let record = serde_json::json!({ text.clone(): text });
        let shown = escaped_in_json(&record.to_string()).into_owned();
        prop_assert!(!shown.contains(is_unsafe));
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).ok(), Some(record));
    }
}
