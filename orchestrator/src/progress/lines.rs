//! Progress in a pipe or a log: a line for everything that is decided.

use super::{Show, failed_line, kept_line, retrying_line, stored_line, took_over_line, write_line};
use crate::dispatch::Update;
use std::io::Write;

/// Writes lines.
pub(super) struct Lines<Out> {
    out: Out,
    prefixes: usize,
    decided: usize,
}

impl<Out: Write> Lines<Out> {
    pub(super) const fn new(out: Out, prefixes: usize) -> Self {
        Self {
            out,
            prefixes,
            decided: 0,
        }
    }

    fn decide(&mut self, line: &str) {
        self.decided += 1;
        let line = format!("[{}/{}] {line}", self.decided, self.prefixes);
        write_line(&mut self.out, &line);
    }
}

impl<Out: Write + Send> Show for Lines<Out> {
    fn update(&mut self, update: &Update) {
        match update {
            Update::Began { .. } | Update::Progress { .. } => {}
            Update::TookOver { owner } => write_line(&mut self.out, &took_over_line(owner)),
            Update::Kept(kept) => {
                self.decided += kept.len() - 1;
                self.decide(&kept_line(kept.len()));
            }
            Update::Retrying {
                prefix,
                failure,
                wait,
            } => {
                let line = retrying_line(*prefix, failure, *wait);
                write_line(&mut self.out, &line);
            }
            Update::Stored(stored) => self.decide(&stored_line(stored)),
            Update::Failed(failed) => self.decide(&failed_line(failed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::updates;

    #[test]
    fn a_pipe_gets_a_line_for_everything_that_is_decided() {
        let mut out = Vec::new();
        let mut lines = Lines::new(&mut out, 3);
        for update in updates() {
            lines.update(&update);
        }
        insta::assert_snapshot!(String::from_utf8_lossy(&out), @r"
        warning: a run that died had this archive (process 7 on a, since b); going on where it ended
        [1/3] kept 1 prefix of an earlier run; --force does them again
        01 again in 0.50 s: range 017FF: GET from http://127.0.0.1:8080 answered 503
        [2/3] 00 stored: 137.6 MB in 0.50 s, 8,192 ranges/s, 3.0 MiB of linear memory, 2 attempts
        [3/3] 01 failed: source_status
        ");
    }
}
