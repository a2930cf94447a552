//! Reads the component's answer, a stream of NDJSON events, up to the final event.

use super::{FailedInvocation, InvocationProgress, InvocationUpdate, made_safe, safe_text};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body;
use prefix_tar::limits::{RECORDING_BYTES_MAX, REPORT_BYTES_MAX};
use prefix_tar::protocol::event::Event;
use prefix_tar::protocol::failure::{Failure, FailureKind};
use prefix_tar::protocol::recording::Recording;
use prefix_tar::protocol::report::Report;
use std::pin::pin;

/// The longest line, in bytes: a report, a recording and the event around them.
const LINE_BYTES_MAX: usize = REPORT_BYTES_MAX + RECORDING_BYTES_MAX + 1024;

/// The most progress events in one answer. The component sends one per 256 ranges and one every
/// five seconds, for at most a day.
pub const PROGRESS_EVENTS_MAX: u32 = 20_000;

/// Reads an answer up to its final event and reports progress on the way. Bytes after the final
/// event are not read.
///
/// # Errors
/// The answer ended before its final event.
pub async fn read<AnswerBody>(
    body: AnswerBody,
    on_update: &(dyn Fn(InvocationUpdate) + Send + Sync),
) -> Result<Result<Report, FailedInvocation>, CutOff<AnswerBody::Error>>
where
    AnswerBody: Body<Data = Bytes>,
{
    let mut body = pin!(body);
    let mut lines = Lines::default();
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.map_err(CutOff::Lost)?.into_data() else {
            continue;
        };
        if let Some(outcome) = lines.push(&bytes, on_update) {
            return Ok(outcome);
        }
    }
    Err(CutOff::Ended)
}

/// How an answer ended before its final event.
#[derive(Debug, PartialEq, Eq)]
pub enum CutOff<BodyError> {
    /// Cleanly. A chunked answer also ends cleanly when the instance traps.
    Ended,
    /// With an error of the body.
    Lost(BodyError),
}

/// Splits the answer into lines and holds the line that is still incomplete.
#[derive(Debug, Default)]
struct Lines {
    partial: Vec<u8>,
    progress_events: u32,
}

impl Lines {
    fn push(
        &mut self,
        bytes: &[u8],
        on_update: &(dyn Fn(InvocationUpdate) + Send + Sync),
    ) -> Option<Result<Report, FailedInvocation>> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end + 1);
            rest = after;
            self.partial.extend_from_slice(line);
            let outcome = outcome_of(&self.partial, on_update);
            self.partial.clear();
            if outcome.is_some() {
                return outcome;
            }
            self.progress_events += 1;
            if self.progress_events > PROGRESS_EVENTS_MAX {
                return Some(Err(not_the_component(&format!(
                    "more than {PROGRESS_EVENTS_MAX} progress events"
                ))));
            }
        }
        self.partial.extend_from_slice(rest);
        (self.partial.len() > LINE_BYTES_MAX).then(|| {
            Err(not_the_component(&format!(
                "a line of more than {LINE_BYTES_MAX} bytes"
            )))
        })
    }
}

fn not_the_component(evidence: &str) -> FailedInvocation {
    let message = format!("the answer has {evidence}; is this the component?");
    Failure::permanent(FailureKind::Died, message).into()
}

fn outcome_of(
    line: &[u8],
    on_update: &(dyn Fn(InvocationUpdate) + Send + Sync),
) -> Option<Result<Report, FailedInvocation>> {
    match serde_json::from_slice(line) {
        Ok(Event::Progress {
            ranges,
            bytes,
            linear_memory,
        }) => {
            on_update(InvocationUpdate::Progress(InvocationProgress {
                ranges,
                data_bytes: bytes,
                linear_memory,
            }));
            None
        }
        Ok(Event::Done {
            mut report,
            recording,
        }) => {
            pass_on(recording, on_update);
            if let Some(reuse) = &mut report.reuse {
                reuse.fault = reuse.fault.take().map(|fault| safe_text(&fault));
            }
            Some(Ok(*report))
        }
        Ok(Event::Failed {
            error,
            sent,
            recording,
        }) => {
            pass_on(recording, on_update);
            Some(Err(FailedInvocation {
                failure: made_safe(error),
                sent,
            }))
        }
        Err(error) => Some(Err(Failure::permanent(
            FailureKind::Died,
            format!(
                "the answer has a line that is not an event ({}); is this the component, in the orchestrator's version?",
                describe(&error)
            ),
        )
        .into())),
    }
}

/// Passes a recording on, if it is valid. One that is not says nothing about the tar.
fn pass_on(
    recording: Option<Box<Recording>>,
    on_update: &(dyn Fn(InvocationUpdate) + Send + Sync),
) {
    let Some(recording) = recording else { return };
    match recording.check() {
        Ok(()) => on_update(InvocationUpdate::Recording(recording)),
        Err(fault) => tracing::warn!(%fault, "a component's recording is not usable"),
    }
}

/// Describes a line that is not an event without quoting it, because it may contain a secret.
fn describe(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Data => "other JSON",
        _ => "not JSON",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use std::convert::Infallible;
    use std::sync::Mutex;

    const PROGRESS: &str =
        "{\"event\":\"progress\",\"ranges\":512,\"bytes\":1,\"linear_memory\":2}\n";
    const FAILED: &str = "{\"event\":\"failed\",\"error\":{\"kind\":\"source_status\",\"message\":\"m\",\"retryable\":true}}\n";

    type Outcome = Result<Result<Report, FailedInvocation>, CutOff<Infallible>>;

    async fn read_text(text: &str) -> (Outcome, u32) {
        let seen = Mutex::new(0);
        let on_progress = |_| *seen.lock().expect("not poisoned") += 1;
        let body = Full::new(Bytes::copy_from_slice(text.as_bytes()));
        let outcome = read(body, &on_progress).await;
        let seen = *seen.lock().expect("not poisoned");
        (outcome, seen)
    }

    #[tokio::test]
    async fn events_are_read_up_to_the_final_one() {
        let text = format!("{PROGRESS}{PROGRESS}{FAILED}{PROGRESS}");
        let (outcome, seen) = read_text(&text).await;
        let failed = outcome.expect("an outcome").expect_err("a failure");
        let failure = failed.failure;
        assert_eq!(failure.kind, FailureKind::SourceStatus);
        assert_eq!(seen, 2);
    }

    #[tokio::test]
    async fn the_message_of_a_failure_is_made_safe_to_show() {
        let text = FAILED.replace("\"m\"", r#""a\nb\u001b[2J\u009b\u202e""#);
        let (outcome, _) = read_text(&text).await;
        let failed = outcome.expect("an outcome").expect_err("a failure");
        let message = failed.failure.message;
        assert_eq!(message, r"a\u{a}b\u{1b}[2J\u{9b}\u{202e}");
    }

    #[tokio::test]
    async fn the_message_of_a_failure_loses_its_secrets() {
        for secret in ["https://x/o?X-Goog-Signature=5ec4e7", "Bearer 5ec4e7"] {
            let (outcome, _) = read_text(&FAILED.replace("\"m\"", &format!("\"{secret}\""))).await;
            let failed = outcome.expect("an outcome").expect_err("a failure");
            let message = failed.failure.message;
            assert!(message.ends_with("<redacted>"), "{message}");
        }
    }

    #[tokio::test]
    async fn an_answer_without_a_final_event_has_no_outcome() {
        for text in ["", PROGRESS, &FAILED[..FAILED.len() - 1]] {
            let (outcome, _) = read_text(text).await;
            assert_eq!(outcome, Err(CutOff::Ended));
        }
    }

    #[tokio::test]
    async fn a_line_that_is_not_an_event_fails_the_invocation_and_is_not_quoted() {
        for text in ["<html>secret\n", "{\"secret\":1}\n", &"x".repeat(1 << 21)] {
            let (outcome, _) = read_text(text).await;
            let failed = outcome.expect("an outcome").expect_err("a failure");
            let failure = failed.failure;
            assert_eq!(failure.kind, FailureKind::Died);
            assert!(!failure.message.contains("secret"));
        }
    }

    #[tokio::test]
    async fn the_number_of_progress_events_is_bounded() {
        let mut text = PROGRESS.repeat(PROGRESS_EVENTS_MAX as usize);
        let (outcome, seen) = read_text(&text).await;
        assert_eq!((outcome, seen), (Err(CutOff::Ended), PROGRESS_EVENTS_MAX));
        text.push_str(PROGRESS);
        let (outcome, _) = read_text(&text).await;
        let failed = outcome.expect("an outcome").expect_err("one too many");
        assert_eq!(failed.failure.kind, FailureKind::Died);
    }

    #[test]
    fn a_line_may_arrive_byte_by_byte() {
        let mut lines = Lines::default();
        let outcomes: Vec<_> = FAILED
            .as_bytes()
            .chunks(1)
            .filter_map(|byte| lines.push(byte, &|_| ()))
            .collect();
        assert_eq!(outcomes.len(), 1);
    }
}
