//! What progress bars draw on: stderr's queue, so that a terminal that is stopped (Ctrl-S) stops no
//! drawing thread.

use super::output::{Output, Urgency};
use console::Term;
use indicatif::{ProgressDrawTarget, TermLike};
use prefix_tar::protocol::text::escaped;
use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most redraws per second.
const DRAWS_PER_SECOND: u8 = 10;

/// A terminal behind a queue. A frame is collected and then queued as a whole.
struct Screen {
    output: Output,
    frame: Mutex<String>,
    /// Only asked for its size.
    terminal: Term,
}

/// Where to draw a bar.
pub(super) fn draw_target(output: Output) -> ProgressDrawTarget {
    let screen = Screen {
        output,
        frame: Mutex::default(),
        terminal: Term::stderr(),
    };
    ProgressDrawTarget::term_like_with_hz(Box::new(screen), DRAWS_PER_SECOND)
}

impl Screen {
    fn frame(&self) -> MutexGuard<'_, String> {
        self.frame.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn control(&self, sequence: &str) -> io::Result<()> {
        self.frame().push_str(sequence);
        Ok(())
    }

    fn move_cursor(&self, n: usize, direction: char) -> io::Result<()> {
        match n {
            0 => Ok(()),
            n => self.control(&format!("\u{1b}[{n}{direction}")),
        }
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Screen")
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.terminal.size().1
    }

    fn height(&self) -> u16 {
        self.terminal.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.control(&escaped(text))?;
        self.control("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        // This is how indicatif moves to the start of the line.
        match text {
            "\r" => self.control(text),
            text => self.control(&escaped(text)),
        }
    }

    fn clear_line(&self) -> io::Result<()> {
        self.control("\r\u{1b}[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let frame = std::mem::take(&mut *self.frame());
        self.output.text(Urgency::Event, &frame);
        Ok(())
    }
}
