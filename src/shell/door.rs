//! Admits or rejects a request, then answers with the events of its invocation.

use super::events::Events;
use super::incoming::BodyReader;
use super::invocation;
use super::recorder::Recorder;
use crate::limits::JOB_BYTES_MAX;
use crate::protocol::configuration::Configuration;
use crate::protocol::event::{EVENTS_CONTENT_TYPE, Event};
use crate::protocol::failure::{Failure, FailureKind};
use crate::protocol::job::{JOB_CONTENT_TYPE, Job};
use spin_sdk::http::{Fields, IncomingRequest, Method, OutgoingResponse, ResponseOutparam};
use std::rc::Rc;

/// Why a request is rejected.
struct Refusal {
    status: u16,
    failure: Failure,
}

impl Refusal {
    fn bad_job(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            failure: Failure::permanent(FailureKind::BadJob, message),
        }
    }
}

/// Answers one request.
pub(super) async fn answer(request: IncomingRequest, response: ResponseOutparam) {
    let (job, configuration) = match admit(request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refuse(refusal, response).await,
    };
    let Some(events) = begin(response, 200, EVENTS_CONTENT_TYPE) else {
        return;
    };
    let recorder = Rc::new(Recorder::start());
    let outcome = invocation::run(&job, &configuration, &events, &recorder).await;
    let recording = Some(Box::new(recorder.finish()));
    let event = match outcome {
        Ok(report) => Event::Done {
            report: Box::new(report),
            recording,
        },
        Err(failed) => Event::Failed {
            error: failed.error,
            sent: failed.sent.map(Box::new),
            recording,
        },
    };
    // A caller that has disconnected cannot receive the error.
    let _ = events.finish(&event).await;
}

/// Checks the token, then reads and validates the job. The body of a request without the token is
/// never read.
async fn admit(request: IncomingRequest) -> Result<(Job, Configuration), Refusal> {
    let configuration = Configuration::from_environment(std::env::vars()).map_err(|error| {
        log_error(&error.to_string());
        Refusal {
            status: 500,
            failure: Failure::permanent(
                FailureKind::Configuration,
                "the component is not configured; its log has the reason",
            ),
        }
    })?;
    let headers = request.headers();
    let authorizations = headers.get("authorization");
    let is_admitted = match authorizations.as_slice() {
        [authorization] => configuration.token_digest.admits(authorization),
        _ => false,
    };
    if !is_admitted {
        return Err(Refusal {
            status: 401,
            failure: Failure::permanent(
                FailureKind::Unauthorized,
                "the component did not admit this token",
            ),
        });
    }
    if !matches!(request.method(), Method::Post) {
        return Err(Refusal::bad_job(405, "a job is sent by POST"));
    }
    check_head(&headers)?;
    drop(headers);
    let body = read_job(request).await?;
    let job = Job::from_wire(&body).map_err(|error| Refusal::bad_job(400, error.to_string()))?;
    for url in job.signed_urls() {
        configuration
            .check_store_url(url)
            .map_err(|error| Refusal::bad_job(400, error.to_string()))?;
    }
    Ok((job, configuration))
}

fn check_head(headers: &Fields) -> Result<(), Refusal> {
    let header = |name: &str| {
        headers
            .get(name)
            .into_iter()
            .next()
            .and_then(|value| String::from_utf8(value).ok())
    };
    let content_type = header("content-type").unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case(JOB_CONTENT_TYPE) {
        let message = format!("a job's content-type is {JOB_CONTENT_TYPE}");
        return Err(Refusal::bad_job(415, message));
    }
    let content_length = header("content-length").and_then(|text| text.parse::<u64>().ok());
    if content_length.is_some_and(|bytes| bytes > JOB_BYTES_MAX as u64) {
        return Err(too_large());
    }
    Ok(())
}

fn too_large() -> Refusal {
    Refusal::bad_job(413, format!("a job has at most {JOB_BYTES_MAX} bytes"))
}

async fn read_job(request: IncomingRequest) -> Result<Vec<u8>, Refusal> {
    let unreadable = || Refusal::bad_job(400, "the request body could not be read");
    let body = request.consume().map_err(|()| unreadable())?;
    let stream = body.stream().map_err(|()| unreadable())?;
    let mut reader = BodyReader::new(stream, body);
    let mut job = Vec::new();
    while let Some(piece) = reader.read(JOB_BYTES_MAX).await.map_err(|_| unreadable())? {
        job.extend(piece);
        if job.len() > JOB_BYTES_MAX {
            return Err(too_large());
        }
    }
    Ok(job)
}

async fn refuse(refusal: Refusal, response: ResponseOutparam) {
    if let Some(events) = begin(response, refusal.status, JOB_CONTENT_TYPE) {
        let event = Event::Failed {
            error: refusal.failure,
            sent: None,
            recording: None,
        };
        let _ = events.finish(&event).await;
    }
}

/// Sends the head of the answer and opens the stream for its body.
fn begin(response: ResponseOutparam, status: u16, content_type: &str) -> Option<Events> {
    let headers = [("content-type".to_owned(), content_type.as_bytes().to_vec())];
    let answer = OutgoingResponse::new(Fields::from_list(&headers).ok()?);
    answer.set_status_code(status).ok()?;
    let body = answer.body().ok()?;
    response.set(answer);
    Events::of_answer(body)
}

#[expect(
    clippy::print_stderr,
    reason = "stderr is the component's log on every host"
)]
fn log_error(message: &str) {
    eprintln!("prefix-tar: {message}");
}
