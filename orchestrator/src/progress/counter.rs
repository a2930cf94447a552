//! A progress bar that counts prefixes, for commands without run events. In a pipe it shows nothing.

use super::output::stderr;
use super::screen::draw_target;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Counts prefixes on a terminal.
#[derive(Debug)]
pub struct Counter(ProgressBar);

impl Counter {
    /// A counter. `verb` says what happens to the prefixes: `verifying`.
    pub fn new(verb: &'static str, is_shown: bool) -> Self {
        let target = if is_shown {
            draw_target(stderr().clone())
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target).with_message(verb);
        let style = ProgressStyle::with_template("{msg} {bar:28} {pos}/{len} prefixes, {eta} left");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(bar)
    }

    /// Sets the number of prefixes.
    pub fn begin(&self, prefixes: usize) {
        self.0.set_length(prefixes as u64);
    }

    /// Counts one prefix.
    pub fn count(&self) {
        self.0.inc(1);
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
