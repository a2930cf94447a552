//! Reports to a program: every event as a line of JSON.

use super::{Reporter, write_line};
use crate::run::event::{EventRecord, RunEvent};
use std::io::Write;

/// Writes lines of JSON.
pub(super) struct Json<Out> {
    out: Out,
}

impl<Out: Write> Json<Out> {
    pub(super) const fn new(out: Out) -> Self {
        Self { out }
    }
}

impl<Out: Write + Send> Reporter for Json<Out> {
    fn report(&mut self, event: &RunEvent) {
        write_line(&mut self.out, &EventRecord::from(event).to_line());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::events;

    #[test]
    fn a_program_gets_every_event_as_a_line_of_json() {
        let mut out = Vec::new();
        let mut json = Json::new(&mut out);
        for event in events() {
            json.report(&event);
        }
        insta::assert_snapshot!(String::from_utf8_lossy(&out), @r#"
        {"event":"took_over","owner":"process 7 on a, since b"}
        {"event":"kept","prefixes":["02"]}
        {"event":"began","prefix":"00","attempt":1}
        {"event":"progress","prefix":"00","ranges":512,"bytes":17203200,"linear_memory":2818048}
        {"event":"retrying","prefix":"01","wait_seconds":0.5,"error":{"kind":"source_status","message":"GET from http://127.0.0.1:8080 answered 503","range":"017FF","retryable":true}}
        {"event":"stored","prefix":"00","object":"00.tar","content_length":140001280,"crc32c":"AAAAAQ==","generation":"7","ranges":4096,"hashes":3276800,"data_bytes":137600000,"requests":4096,"retries":0,"seconds":0.5,"linear_memory_peak":3145728,"attempts":2}
        {"event":"failed","prefix":"01","attempts":4,"error":{"kind":"source_status","message":"GET from http://127.0.0.1:8080 answered 503","range":"017FF","retryable":true}}
        "#);
    }
}
