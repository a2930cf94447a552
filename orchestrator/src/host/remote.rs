//! [`RemoteHost`]: invokes components that run elsewhere, in `spin up`, `wasmtime serve` or a cluster.
//!
//! The endpoints share the invocations. A failing endpoint is skipped during a cooldown.

mod endpoints;
mod url;

pub use url::{ComponentUrl, ComponentUrlError};

use super::answer::CutOff;
use super::timed_body::{BodyLost, TimedBody};
use super::{FailedInvocation, Host, InvocationUpdate, answer, made_safe};
use crate::http_client::{self, HttpClient};
use crate::origin::Origin;
use anyhow::Context as _;
use bytes::Bytes;
use endpoints::Endpoints;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use prefix_tar::protocol::event::Event;
use prefix_tar::protocol::failure::{Failure, FailureKind};
use prefix_tar::protocol::job::{JOB_CONTENT_TYPE, Job};
use prefix_tar::protocol::prefix::RANGES_PER_PREFIX;
use prefix_tar::protocol::report::Report;
use prefix_tar::protocol::source::SourceUrl;
use prefix_tar::protocol::token::Token;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The most endpoints.
pub const ENDPOINTS_MAX: usize = 64;

/// The idle timeout of an answer. The component sends an event at least every five seconds.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest time from the request to the answer's head. The platform creates an instance in this
/// time; the component fetches nothing before it answers.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// An invocation that is cut off after this time may have reached its platform's time limit. Akamai
/// Functions document 30 s.
const PLATFORM_TIME_LIMITS: RangeInclusive<Duration> =
    Duration::from_secs(28)..=Duration::from_secs(33);

/// The part of a refusal's body that is read, in bytes.
const REFUSAL_BYTES_MAX: usize = 16 * 1024;

/// How long a component may be silent.
#[derive(Clone, Copy, Debug)]
pub struct RemoteTimeouts {
    /// From the request to the answer's head.
    pub head: Duration,
    /// Between two pieces of the answer.
    pub idle: Duration,
}

impl Default for RemoteTimeouts {
    fn default() -> Self {
        Self {
            head: HEAD_TIMEOUT,
            idle: IDLE_TIMEOUT,
        }
    }
}

/// Invokes components at one or more endpoints.
pub struct RemoteHost {
    client: HttpClient,
    timeouts: RemoteTimeouts,
    authorization: HeaderValue,
    endpoints: Endpoints,
    source: SourceUrl,
    deadline: Duration,
}

impl RemoteHost {
    /// A host for the components at `urls`, which must mirror `source` and accept `token`.
    ///
    /// # Errors
    /// There is no URL or more than [`ENDPOINTS_MAX`], or the CA file is not usable.
    pub fn new(
        urls: Vec<ComponentUrl>,
        token: &Token,
        source: SourceUrl,
        deadline: Duration,
        ca_file: Option<&Path>,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(
            (1..=ENDPOINTS_MAX).contains(&urls.len()),
            "{} component URLs; give 1 to {ENDPOINTS_MAX}",
            urls.len()
        );
        let mut authorization = HeaderValue::from_str(&token.expose_bearer())
            .context("the token cannot be sent as a header")?;
        authorization.set_sensitive(true);
        Ok(Self {
            client: http_client::new(ca_file)?,
            timeouts: RemoteTimeouts::default(),
            authorization,
            endpoints: Endpoints::new(urls),
            source,
            deadline,
        })
    }

    /// Waits for components as long as `timeouts` say.
    #[must_use]
    pub fn with_timeouts(self, timeouts: RemoteTimeouts) -> Self {
        Self { timeouts, ..self }
    }

    async fn invoke_at(
        &self,
        url: &ComponentUrl,
        job: &Job,
        on_update: &(dyn Fn(InvocationUpdate) + Send + Sync),
    ) -> Result<Report, FailedInvocation> {
        let request = http::Request::post(url.0.clone())
            .header(CONTENT_TYPE, JOB_CONTENT_TYPE)
            .header(AUTHORIZATION, self.authorization.clone())
            .body(Full::new(Bytes::from(job.expose_secret())))
            .map_err(|error| unreachable(url, &error))?;
        let RemoteTimeouts { head, idle } = self.timeouts;
        let lease = self.client.lease();
        let response = tokio::time::timeout(head, lease.request(request))
            .await
            .map_err(|_| {
                let seconds = head.as_secs_f64();
                unreachable(url, &format_args!("no answer within {seconds} s"))
            })?
            .map_err(|error| unreachable(url, &http_client::cause(&error)))?;
        if response.status() != http::StatusCode::OK {
            return Err(refusal(url, response).await);
        }
        let body = TimedBody::new(response.into_body(), idle);
        let (started, ranges) = (Instant::now(), AtomicU32::new(0));
        let on_update = |update: InvocationUpdate| {
            if let InvocationUpdate::Progress(progress) = &update {
                ranges.store(progress.ranges, Ordering::Relaxed);
            }
            on_update(update);
        };
        let outcome = answer::read(body, &on_update)
            .await
            .unwrap_or_else(|cut_off| {
                if matches!(cut_off, CutOff::Lost(BodyLost::Idle)) {
                    lease.abandon();
                }
                let ranges = ranges.load(Ordering::Relaxed);
                let message = cut_off_message(url, &cut_off, idle, started.elapsed(), ranges);
                Err(Failure::transient(FailureKind::Died, message).into())
            });
        let report = match &outcome {
            Ok(report) => Some(report),
            Err(failed) => failed.sent.as_deref(),
        };
        if let Some(report) = report {
            self.check(url, job, report)?;
        }
        outcome
    }

    /// Refuses a report about another source or prefix than the job's: the component is configured
    /// with another source than the run.
    fn check(&self, url: &ComponentUrl, job: &Job, report: &Report) -> Result<(), Failure> {
        let source = self.source.to_string();
        if report.source == source && report.prefix == job.prefix {
            return Ok(());
        }
        let message = format!(
            "the component at {url} mirrored {} of {}, but the job was {} of {source}; name the component's source with --source",
            report.prefix, report.source, job.prefix
        );
        Err(Failure::permanent(FailureKind::Configuration, message))
    }
}

#[async_trait::async_trait]
impl Host for RemoteHost {
    fn allow_upload(&mut self, _origin: Origin) {}

    async fn invoke(
        &self,
        job: Job,
        on_update: &(dyn Fn(InvocationUpdate) + Send + Sync),
    ) -> Result<Report, FailedInvocation> {
        let endpoint = self.endpoints.take().ok_or_else(|| {
            Failure::permanent(
                FailureKind::Configuration,
                "there is no component to invoke",
            )
        })?;
        let url = endpoint.url();
        let invocation = self.invoke_at(url, &job, on_update);
        let outcome = tokio::time::timeout(self.deadline, invocation)
            .await
            .unwrap_or_else(|_| {
                let message = format!(
                    "the invocation at {url} was stopped after {} s; lower --parallel or raise --deadline",
                    self.deadline.as_secs_f64()
                );
                Err(Failure::transient(FailureKind::Deadline, message).into())
            });
        match &outcome {
            Err(failed) if is_endpoint_failure(&failed.failure) => endpoint.record_failure(),
            _ => endpoint.record_success(),
        }
        outcome
    }
}

/// Whether the endpoint itself failed, rather than the source, the store or the job.
fn is_endpoint_failure(failure: &Failure) -> bool {
    matches!(
        failure.kind,
        FailureKind::HostUnreachable | FailureKind::Died | FailureKind::Deadline
    )
}

fn unreachable(url: &ComponentUrl, error: &dyn fmt::Display) -> FailedInvocation {
    let message = format!("POST to the component at {url} failed: {error}");
    Failure::transient(FailureKind::HostUnreachable, message).into()
}

/// Describes an answer that ended before its final event, `elapsed` after its head and with so many
/// `ranges` in the tar.
fn cut_off_message(
    url: &ComponentUrl,
    cut_off: &CutOff<BodyLost>,
    idle: Duration,
    elapsed: Duration,
    ranges: u32,
) -> String {
    let cause = match cut_off {
        CutOff::Ended => "ended its answer without a final event".to_owned(),
        CutOff::Lost(BodyLost::Idle) => {
            format!("sent nothing for {} s", idle.as_secs_f64())
        }
        CutOff::Lost(BodyLost::Broken(error)) => format!("lost the connection ({error})"),
    };
    // With ranges of 75 KB, the memory budget keeps about 40 requests in flight, whatever the window.
    let hint = match PLATFORM_TIME_LIMITS.contains(&elapsed) {
        true => {
            "; some platforms end an invocation after 30 s: raise --window (up to about 40 helps), or run the component closer to its source"
        }
        false => "",
    };
    format!(
        "the component at {url} {cause}, after {:.1} s and {ranges} of {RANGES_PER_PREFIX} ranges{hint}",
        elapsed.as_secs_f64()
    )
}

/// Translates an answer with another status than 200.
async fn refusal(url: &ComponentUrl, response: http::Response<Incoming>) -> FailedInvocation {
    let status = response.status();
    let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX);
    let collected = tokio::time::timeout(HEAD_TIMEOUT, body.collect()).await;
    let body = match collected {
        Ok(Ok(body)) => body.to_bytes(),
        _ => Bytes::new(),
    };
    let failure = match serde_json::from_slice(&body) {
        Ok(Event::Failed { error, .. }) => {
            let error = made_safe(error);
            let message = &error.message;
            Failure {
                message: format!("the component at {url} answered {status}: {message}"),
                ..error
            }
        }
        // On every host, a trap before the answer's head becomes a 500 without a body.
        _ if status.is_server_error() => Failure::transient(
            FailureKind::HostUnreachable,
            format!("the component at {url} answered {status}"),
        ),
        _ => Failure::permanent(
            FailureKind::HostUnreachable,
            format!("POST to {url} was answered {status}; is this the component's URL?"),
        ),
    };
    failure.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_off_invocation_reports_its_progress_and_the_likely_cause() {
        let url = "https://component.example/".parse().expect("a URL");
        let seconds = Duration::from_secs_f64;
        insta::assert_snapshot!(
            cut_off_message(&url, &CutOff::Ended, IDLE_TIMEOUT, seconds(30.04), 2048),
            @"the component at https://component.example/ ended its answer without a final event, after 30.0 s and 2048 of 4096 ranges; some platforms end an invocation after 30 s: raise --window (up to about 40 helps), or run the component closer to its source"
        );
        insta::assert_snapshot!(
            cut_off_message(&url, &CutOff::Ended, IDLE_TIMEOUT, seconds(0.4), 0),
            @"the component at https://component.example/ ended its answer without a final event, after 0.4 s and 0 of 4096 ranges"
        );
        insta::assert_snapshot!(
            cut_off_message(&url, &CutOff::Lost(BodyLost::Idle), IDLE_TIMEOUT, seconds(75.0), 256),
            @"the component at https://component.example/ sent nothing for 60 s, after 75.0 s and 256 of 4096 ranges"
        );
    }
}
