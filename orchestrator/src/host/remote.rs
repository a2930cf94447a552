//! Components that run elsewhere: `spin up`, `wasmtime serve`, a cluster. Endpoints share the invocations; one that
//! fails is left alone for a while, and the others take its work. That an invocation is tried again, and how often,
//! is left to `dispatch`.

mod endpoints;
mod url;

pub use url::{ComponentUrl, ComponentUrlError};

use super::answer::CutOff;
use super::timed_body::{BodyLost, TimedBody};
use super::{FailedInvocation, Host, InvocationProgress, answer};
use crate::http_client::{self, HttpClient};
use anyhow::Context as _;
use bytes::Bytes;
use endpoints::Endpoints;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use prefix_tar::failure::{Failure, FailureKind};
use prefix_tar::job::{Event, JOB_CONTENT_TYPE, Job, Report};
use prefix_tar::prefix::RANGES_PER_PREFIX;
use prefix_tar::source::SourceUrl;
use prefix_tar::token::Token;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Endpoints at the most.
pub const ENDPOINTS_MAX: usize = 64;

/// How long an answer may be silent: the component tells something every five seconds.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// From the job's last byte to the answer's head: an instance has to be made, and nothing has to be fetched.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// What is cut off after as long as this may have met its platform's limit of time: 30 s, as Akamai Functions publish it.
const PLATFORM_TIME_LIMITS: RangeInclusive<Duration> =
    Duration::from_secs(28)..=Duration::from_secs(33);

/// What is read of an answer that is no stream of events, in bytes.
const REFUSAL_BYTES_MAX: usize = 16 * 1024;

/// Components elsewhere.
pub struct RemoteHost {
    client: HttpClient,
    authorization: HeaderValue,
    endpoints: Endpoints,
    source: SourceUrl,
    deadline: Duration,
}

impl RemoteHost {
    /// A host of the components at `urls`, which mirror `source` and admit `token`.
    ///
    /// # Errors
    /// There is no URL or there are too many, or the CA file is not usable.
    pub fn new(
        urls: Vec<ComponentUrl>,
        token: &Token,
        source: SourceUrl,
        deadline: Duration,
        ca_file: Option<&Path>,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(
            (1..=ENDPOINTS_MAX).contains(&urls.len()),
            "there are {} components; 1 to {ENDPOINTS_MAX} are possible",
            urls.len()
        );
        let mut authorization = HeaderValue::from_str(&token.expose_bearer_to_the_wire())
            .context("the token cannot be a header")?;
        authorization.set_sensitive(true);
        Ok(Self {
            client: http_client::new(ca_file)?,
            authorization,
            endpoints: Endpoints::new(urls),
            source,
            deadline,
        })
    }

    async fn invoke_at(
        &self,
        url: &ComponentUrl,
        job: &Job,
        on_progress: &(dyn Fn(InvocationProgress) + Send + Sync),
    ) -> Result<Report, FailedInvocation> {
        let request = http::Request::post(url.0.clone())
            .header(CONTENT_TYPE, JOB_CONTENT_TYPE)
            .header(AUTHORIZATION, self.authorization.clone())
            .body(Full::new(Bytes::from(job.expose_to_the_wire())))
            .map_err(|error| unreachable(url, &error))?;
        let response = tokio::time::timeout(HEAD_TIMEOUT, self.client.request(request))
            .await
            .map_err(|_| unreachable(url, &"no answer in time"))?
            .map_err(|error| unreachable(url, &http_client::cause(&error)))?;
        if response.status() != http::StatusCode::OK {
            return Err(refusal(url, response).await);
        }
        let body = TimedBody::new(response.into_body(), SILENCE_MAX);
        let (began, ranges) = (Instant::now(), AtomicU32::new(0));
        let on_progress = |progress: InvocationProgress| {
            ranges.store(progress.ranges, Ordering::Relaxed);
            on_progress(progress);
        };
        let report = answer::read(body, &on_progress)
            .await
            .unwrap_or_else(|how| {
                let ranges = ranges.load(Ordering::Relaxed);
                let message = cut_off(url, &how, began.elapsed(), ranges);
                Err(Failure::passing(FailureKind::Died, message).into())
            });
        let told = match &report {
            Ok(report) => Some(report),
            Err(failed) => failed.sent.as_deref(),
        };
        if let Some(told) = told {
            self.check(url, job, told)?;
        }
        report
    }

    /// Refuses a report that is about something else than was asked for: the component has another source than the run.
    fn check(&self, url: &ComponentUrl, job: &Job, report: &Report) -> Result<(), Failure> {
        let source = self.source.to_string();
        if report.source == source && report.prefix == job.prefix {
            return Ok(());
        }
        let message = format!(
            "the component at {url} mirrors {} of {}, and this run is about {source}; name the component's source with --source",
            report.prefix, report.source
        );
        Err(Failure::lasting(FailureKind::Configuration, message))
    }
}

#[async_trait::async_trait]
impl Host for RemoteHost {
    async fn invoke(
        &self,
        job: Job,
        on_progress: &(dyn Fn(InvocationProgress) + Send + Sync),
    ) -> Result<Report, FailedInvocation> {
        let taken = self.endpoints.take().ok_or_else(|| {
            Failure::lasting(
                FailureKind::Configuration,
                "there is no component to invoke",
            )
        })?;
        let url = taken.url();
        let invocation = self.invoke_at(url, &job, on_progress);
        let outcome = tokio::time::timeout(self.deadline, invocation)
            .await
            .unwrap_or_else(|_| {
                let message = format!(
                    "the invocation at {url} was given up after {} s; lower --parallel or raise --deadline",
                    self.deadline.as_secs_f64()
                );
                Err(Failure::passing(FailureKind::Deadline, message).into())
            });
        let failed = outcome.as_ref().err();
        taken.note(failed.is_some_and(|failed| is_of_the_endpoint(&failed.failure)));
        outcome
    }
}

/// Whether it is the endpoint that failed, and not the source, the store or the job.
fn is_of_the_endpoint(failure: &Failure) -> bool {
    matches!(
        failure.kind,
        FailureKind::HostUnreachable | FailureKind::Died | FailureKind::Deadline
    )
}

fn unreachable(url: &ComponentUrl, error: &dyn fmt::Display) -> FailedInvocation {
    let message = format!("POST to the component at {url} failed: {error}");
    Failure::passing(FailureKind::HostUnreachable, message).into()
}

/// An answer that ended before its final event, after so long and so many ranges.
fn cut_off(url: &ComponentUrl, how: &CutOff<BodyLost>, after: Duration, ranges: u32) -> String {
    let how = match how {
        CutOff::Ended => "ended its answer without a final event".to_owned(),
        CutOff::Lost(BodyLost::Silent) => {
            format!("said nothing for {} s", SILENCE_MAX.as_secs())
        }
        CutOff::Lost(BodyLost::Broken(error)) => format!("lost the connection: {error}"),
    };
    let advice = match PLATFORM_TIME_LIMITS.contains(&after) {
        true => {
            "; some platforms end an invocation after 30 s: a larger --window makes it shorter, and needs more memory"
        }
        false => "",
    };
    format!(
        "the component at {url} {how}, after {:.1} s and {ranges} of {RANGES_PER_PREFIX} ranges{advice}",
        after.as_secs_f64()
    )
}

/// What an answer means that is no stream of events.
async fn refusal(url: &ComponentUrl, response: http::Response<Incoming>) -> FailedInvocation {
    let status = response.status();
    let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX);
    let read = tokio::time::timeout(HEAD_TIMEOUT, body.collect()).await;
    let body = match read {
        Ok(Ok(body)) => body.to_bytes(),
        _ => Bytes::new(),
    };
    let failure = match serde_json::from_slice(&body) {
        Ok(Event::Failed { error, .. }) => Failure {
            message: format!(
                "the component at {url} answered {status}: {}",
                error.message
            ),
            ..error
        },
        // A trap before the answer's head is a 500 without a body, on every host.
        _ if status.is_server_error() => Failure::passing(
            FailureKind::HostUnreachable,
            format!("the component at {url} answered {status}"),
        ),
        _ => Failure::lasting(
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
    fn who_is_cut_off_is_told_how_far_it_came_and_what_may_have_ended_it() {
        let url = "https://component.example/".parse().expect("a URL");
        let seconds = Duration::from_secs_f64;
        insta::assert_snapshot!(
            cut_off(&url, &CutOff::Ended, seconds(30.04), 2048),
            @"the component at https://component.example/ ended its answer without a final event, after 30.0 s and 2048 of 4096 ranges; some platforms end an invocation after 30 s: a larger --window makes it shorter, and needs more memory"
        );
        insta::assert_snapshot!(
            cut_off(&url, &CutOff::Ended, seconds(0.4), 0),
            @"the component at https://component.example/ ended its answer without a final event, after 0.4 s and 0 of 4096 ranges"
        );
        insta::assert_snapshot!(
            cut_off(&url, &CutOff::Lost(BodyLost::Silent), seconds(75.0), 256),
            @"the component at https://component.example/ said nothing for 60 s, after 75.0 s and 256 of 4096 ranges"
        );
    }
}
