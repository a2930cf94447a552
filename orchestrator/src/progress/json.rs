//! Reports to a program: every event as a line of JSON.

use super::output::{NOT_READ, Output, Urgency};
use super::{Reporter, urgency};
use crate::run::event::{EventRecord, RunEvent};

/// Writes lines of JSON.
pub(super) struct Json {
    out: Output,
    warnings: Output,
    has_warned: bool,
}

impl Json {
    /// Reports to `out`. If nobody reads that, `warnings` says so.
    pub(super) fn new(out: Output, warnings: Output) -> Self {
        out.describe_lost(|events| EventRecord::Dropped { events }.to_line());
        Self {
            out,
            warnings,
            has_warned: false,
        }
    }
}

impl Reporter for Json {
    fn report(&mut self, event: &RunEvent) {
        let urgency = urgency(event);
        let is_queued = self.out.json(urgency, &EventRecord::from(event).to_line());
        if !is_queued && urgency == Urgency::Event && !self.has_warned {
            self.has_warned = true;
            self.warnings.line(Urgency::Log, NOT_READ);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::output::tests::{Stuck, captured};
    use crate::progress::tests::events;
    use std::time::Duration;

    #[test]
    fn a_program_gets_every_event_as_a_line_of_json() {
        let ((out, text), (warnings, warned)) = (captured(), captured());
        let mut json = Json::new(out.clone(), warnings.clone());
        for event in events() {
            json.report(&event);
        }
        insta::assert_snapshot!(text.all_of(&out), @r#"
        {"event":"took_over","owner":"process 7 on a, since b"}
        {"event":"read_denied"}
        {"event":"base_unusable","prefix":null,"reason":"there is no archive"}
        {"event":"base_unusable","prefix":"01","reason":"the base has no tar of it that is whole and fits its report"}
        {"event":"kept","prefixes":["02"]}
        {"event":"began","prefix":"00","attempt":1}
        {"event":"progress","prefix":"00","ranges":512,"bytes":17203200,"linear_memory":2818048}
        {"event":"retrying","prefix":"01","wait_seconds":0.5,"error":{"kind":"source_status","message":"GET from http://127.0.0.1:8080 answered 503","range":"017FF","retryable":true}}
        {"event":"deferred","prefix":"01","attempts":4,"error":{"kind":"source_status","message":"GET from http://127.0.0.1:8080 answered 503","range":"017FF","retryable":true}}
        {"event":"pausing","wait_seconds":12.0,"prefixes":1}
        {"event":"stored","prefix":"00","object":"00.tar","content_length":140001280,"crc32c":"AAAAAQ==","generation":"7","ranges":4096,"hashes":3276800,"data_bytes":137600000,"requests":4096,"retries":0,"seconds":0.5,"linear_memory_peak":3145728,"attempts":2,"reused_ranges":0,"reused_bytes":0,"uploaded":true,"cached_errors":[]}
        {"event":"failed","prefix":"01","attempts":4,"error":{"kind":"source_status","message":"GET from http://127.0.0.1:8080 answered 503","range":"017FF","retryable":true}}
        "#);
        assert_eq!(warned.all_of(&warnings), "");
    }

    #[test]
    fn a_program_that_stops_reading_is_told_later_how_many_events_it_missed() {
        let (stuck, (warnings, warned)) = (Stuck::new(64, Duration::ZERO), captured());
        let mut json = Json::new(stuck.output.clone(), warnings.clone());
        let happened = events();
        for event in &happened {
            json.report(event);
        }
        assert_eq!(warned.all_of(&warnings), format!("{NOT_READ}\n"));
        let (out, text) = stuck.read();
        out.json(Urgency::Result, r#"{"event":"end"}"#);
        let text = text.all_of(&out);
        let lines: Vec<&str> = text.lines().skip(8).collect();
        // Progress is not counted.
        let dropped = format!(r#"{{"event":"dropped","events":{}}}"#, happened.len() - 1);
        assert_eq!(lines, [dropped.as_str(), r#"{"event":"end"}"#]);
    }
}
