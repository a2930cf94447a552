//! Progress for a program: a line of JSON for everything.

use super::{Show, write_line};
use crate::dispatch::Update;
use serde_json::{Value, json};
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

impl<Out: Write + Send> Show for Json<Out> {
    fn update(&mut self, update: &Update) {
        write_line(&mut self.out, &to_json(update).to_string());
    }
}

fn to_json(update: &Update) -> Value {
    match update {
        Update::TookOver { owner } => json!({"event": "took_over", "owner": owner}),
        Update::Kept(kept) => {
            let prefixes: Vec<_> = kept.iter().map(|kept| kept.prefix).collect();
            json!({"event": "kept", "prefixes": prefixes})
        }
        Update::Began { prefix, attempt } => {
            json!({"event": "began", "prefix": prefix, "attempt": attempt})
        }
        Update::Progress { prefix, progress } => json!({
            "event": "progress",
            "prefix": prefix,
            "ranges": progress.ranges,
            "bytes": progress.data_bytes,
            "linear_memory": progress.linear_memory,
        }),
        Update::Retrying {
            prefix,
            failure,
            wait,
        } => json!({
            "event": "retrying",
            "prefix": prefix,
            "wait_seconds": wait.as_secs_f64(),
            "error": failure,
        }),
        Update::Stored(stored) => json!({
            "event": "stored",
            "prefix": stored.prefix,
            "object": stored.object.object,
            "content_length": stored.object.content_length,
            "crc32c": stored.object.crc32c,
            "generation": stored.object.generation,
            "ranges": stored.totals.ranges,
            "hashes": stored.totals.hashes,
            "data_bytes": stored.totals.data_bytes,
            "requests": stored.totals.requests,
            "retries": stored.totals.retries,
            "seconds": stored.duration.as_secs_f64(),
            "linear_memory_peak": stored.linear_memory_peak,
            "attempts": stored.attempts,
        }),
        Update::Failed(failed) => json!({
            "event": "failed",
            "prefix": failed.prefix,
            "attempts": failed.attempts,
            "error": failed.failure,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::updates;

    #[test]
    fn a_program_gets_a_line_of_json_for_everything() {
        let mut out = Vec::new();
        let mut json = Json::new(&mut out);
        for update in updates() {
            json.update(&update);
        }
        insta::assert_snapshot!(String::from_utf8_lossy(&out), @r#"
        {"event":"took_over","owner":"process 7 on a, since b"}
        {"event":"kept","prefixes":["02"]}
        {"attempt":1,"event":"began","prefix":"00"}
        {"bytes":17203200,"event":"progress","linear_memory":2818048,"prefix":"00","ranges":512}
        {"error":{"kind":"source_status","message":"GET from http://127.0.0.1:8080 answered 503","range":"017FF","retryable":true},"event":"retrying","prefix":"01","wait_seconds":0.5}
        {"attempts":2,"content_length":140001280,"crc32c":"AAAAAQ==","data_bytes":137600000,"event":"stored","generation":"7","hashes":3276800,"linear_memory_peak":3145728,"object":"00.tar","prefix":"00","ranges":4096,"requests":4096,"retries":0,"seconds":0.5}
        {"attempts":4,"error":{"kind":"source_status","message":"GET from http://127.0.0.1:8080 answered 503","range":"017FF","retryable":true},"event":"failed","prefix":"01"}
        "#);
    }
}
