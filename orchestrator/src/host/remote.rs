//! Components that run elsewhere: `spin up`, `wasmtime serve`, a cluster. Endpoints share the invocations; one that
//! fails is left alone for a while, and the others take its work. That an invocation is tried again, and how often,
//! is left to `dispatch`.

use super::timed_body::TimedBody;
use super::{FailedInvocation, Host, InvocationProgress, answer};
use anyhow::Context as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prefix_tar::failure::{Failure, FailureKind};
use prefix_tar::job::{Event, JOB_CONTENT_TYPE, Job, Report};
use prefix_tar::prefix::RANGES_PER_PREFIX;
use prefix_tar::source::SourceUrl;
use prefix_tar::token::Token;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Endpoints at the most.
pub const ENDPOINTS_MAX: usize = 64;

/// How long an answer may be silent: the component tells something every five seconds.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// From the job's last byte to the answer's head: an instance has to be made, and nothing has to be fetched.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// What ended after as long as this may have been ended by its platform's limit of time.
const CUT_OFF_MIN: Duration = Duration::from_secs(10);

/// What is read of an answer that is no stream of events, in bytes.
const REFUSAL_BYTES_MAX: usize = 16 * 1024;

/// For how long an endpoint is left alone after its first failure. It doubles with every failure in a row.
const REST_FIRST: Duration = Duration::from_secs(1);

/// For how long an endpoint is left alone at the most.
const REST_MAX: Duration = Duration::from_secs(60);

/// Where a component is: the URL that jobs are posted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentUrl(http::Uri);

/// Why a text is no component's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComponentUrlError {
    /// Not an absolute http or https URL without user information.
    #[error("it is not an absolute http or https URL without a user name")]
    NotHttp,
    /// `http` over a network would show the token to everybody on the way.
    #[error("it is http and not on this machine; the token would be seen on the way")]
    Insecure,
}

impl FromStr for ComponentUrl {
    type Err = ComponentUrlError;

    fn from_str(text: &str) -> Result<Self, ComponentUrlError> {
        let uri: http::Uri = text.parse().map_err(|_| ComponentUrlError::NotHttp)?;
        let source: SourceUrl = text.parse().map_err(|_| ComponentUrlError::NotHttp)?;
        Ok(Self(uri)).and_then(|url| {
            let is_cluster = source.authority().host().ends_with(".svc.cluster.local");
            if source.is_https() || source.authority().is_loopback() || is_cluster {
                Ok(url)
            } else {
                Err(ComponentUrlError::Insecure)
            }
        })
    }
}

impl fmt::Display for ComponentUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// One component, and how it has done.
#[derive(Debug)]
struct Endpoint {
    url: ComponentUrl,
    under_way: usize,
    failures_in_a_row: u32,
    rests_until: Option<Instant>,
}

/// Components elsewhere.
pub struct RemoteHost {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    authorization: HeaderValue,
    endpoints: Mutex<Vec<Endpoint>>,
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
        let connector = crate::tls::connector(ca_file)?;
        let mut authorization = HeaderValue::from_str(&token.expose_bearer_to_the_wire())
            .context("the token cannot be a header")?;
        authorization.set_sensitive(true);
        let endpoints = urls.into_iter().map(|url| Endpoint {
            url,
            under_way: 0,
            failures_in_a_row: 0,
            rests_until: None,
        });
        Ok(Self {
            client: Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .build(connector),
            authorization,
            endpoints: Mutex::new(endpoints.collect()),
            source,
            deadline,
        })
    }

    /// Takes the endpoint that has the least to do of those that do not rest; where all rest, the one whose rest ends
    /// first.
    fn take(&self) -> Taken<'_> {
        let now = Instant::now();
        let mut endpoints = self.lock();
        let chosen = endpoints
            .iter()
            .enumerate()
            .min_by_key(|(_, endpoint)| {
                let rest = endpoint.rests_until.filter(|until| *until > now);
                (rest, endpoint.under_way)
            })
            .map_or(0, |(index, _)| index);
        if let Some(endpoint) = endpoints.get_mut(chosen) {
            endpoint.under_way += 1;
        }
        Taken {
            host: self,
            index: chosen,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Endpoint>> {
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
            .map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                unreachable(url, &cause.unwrap_or_else(|| error.to_string()))
            })?;
        if response.status() != http::StatusCode::OK {
            return Err(refusal(url, response).await);
        }
        let body = TimedBody::new(response.into_body(), SILENCE_MAX);
        let (began, ranges) = (Instant::now(), AtomicU32::new(0));
        let on_progress = |progress: InvocationProgress| {
            ranges.store(progress.ranges, Ordering::Relaxed);
            on_progress(progress);
        };
        let report = answer::read(body, &on_progress).await.unwrap_or_else(|| {
            let message = cut_off(url, began.elapsed(), ranges.load(Ordering::Relaxed));
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
        let taken = self.take();
        let url = taken.url();
        let invocation = self.invoke_at(&url, &job, on_progress);
        let outcome = tokio::time::timeout(self.deadline, invocation)
            .await
            .unwrap_or_else(|_| {
                let message = format!(
                    "the invocation at {url} was given up after {} s; lower --parallel or raise --deadline",
                    self.deadline.as_secs_f64()
                );
                Err(Failure::passing(FailureKind::Deadline, message).into())
            });
        taken.note(&outcome);
        outcome
    }
}

/// An endpoint that has an invocation under way.
struct Taken<'host> {
    host: &'host RemoteHost,
    index: usize,
}

impl Taken<'_> {
    fn url(&self) -> ComponentUrl {
        self.host.lock()[self.index].url.clone()
    }

    /// Takes note of how the endpoint has done. What is the source's or the store's fault is not the endpoint's.
    fn note(&self, outcome: &Result<Report, FailedInvocation>) {
        let has_failed = outcome.as_ref().is_err_and(|failed| {
            matches!(
                failed.failure.kind,
                FailureKind::HostUnreachable | FailureKind::Died | FailureKind::Deadline
            )
        });
        let mut endpoints = self.host.lock();
        let Some(endpoint) = endpoints.get_mut(self.index) else {
            return;
        };
        if !has_failed {
            endpoint.failures_in_a_row = 0;
            endpoint.rests_until = None;
            return;
        }
        let doublings = endpoint.failures_in_a_row.min(6);
        let rest = (REST_FIRST * 2_u32.pow(doublings)).min(REST_MAX);
        endpoint.failures_in_a_row += 1;
        endpoint.rests_until = Some(Instant::now() + rest);
        tracing::warn!(url = %endpoint.url, ?rest, "a component failed and is left alone for a while");
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(endpoint) = self.host.lock().get_mut(self.index) {
            endpoint.under_way -= 1;
        }
    }
}

fn unreachable(url: &ComponentUrl, error: &dyn fmt::Display) -> FailedInvocation {
    let message = format!("POST to the component at {url} failed: {error}");
    Failure::passing(FailureKind::HostUnreachable, message).into()
}

/// An answer that ended before its final event, after so long and so many ranges.
fn cut_off(url: &ComponentUrl, after: Duration, ranges: u32) -> String {
    let advice = match after >= CUT_OFF_MIN {
        true => {
            "; some platforms end an invocation after 30 s, and a larger --window makes it shorter"
        }
        false => "",
    };
    format!(
        "the component at {url} ended its answer without a final event, after {:.1} s and {ranges} of {RANGES_PER_PREFIX} ranges{advice}",
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

    fn url(text: &str) -> ComponentUrl {
        text.parse().expect("a URL")
    }

    #[test]
    fn a_token_goes_over_a_network_only_by_https() {
        use ComponentUrlError::{Insecure, NotHttp};
        for (text, error) in [
            ("http://component.example", Insecure),
            ("http://10.0.0.1:3000/", Insecure),
            ("ftp://component.example", NotHttp),
            ("https://user:secret@component.example", NotHttp),
            ("component.example", NotHttp),
        ] {
            assert_eq!(text.parse::<ComponentUrl>(), Err(error), "{text}");
        }
        for text in [
            "https://component.example/path",
            "http://127.0.0.1:3000",
            "http://[::1]:3000/",
            "http://prefix-tar.default.svc.cluster.local",
        ] {
            assert!(text.parse::<ComponentUrl>().is_ok(), "{text}");
        }
    }

    #[test]
    fn who_is_cut_off_is_told_how_far_it_came_and_what_may_have_ended_it() {
        let url = url("https://component.example/");
        insta::assert_snapshot!(
            cut_off(&url, Duration::from_millis(30_040), 2048),
            @"the component at https://component.example/ ended its answer without a final event, after 30.0 s and 2048 of 4096 ranges; some platforms end an invocation after 30 s, and a larger --window makes it shorter"
        );
        insta::assert_snapshot!(
            cut_off(&url, Duration::from_millis(400), 0),
            @"the component at https://component.example/ ended its answer without a final event, after 0.4 s and 0 of 4096 ranges"
        );
    }

    #[tokio::test]
    async fn endpoints_share_the_work_and_one_that_fails_rests() {
        crate::tls::install_crypto_provider();
        let token = crate::invoke_token::generate().expect("a token");
        let urls = [
            "http://127.0.0.1:1",
            "http://127.0.0.1:2",
            "http://127.0.0.1:3",
        ]
        .map(url);
        let source: SourceUrl = "http://127.0.0.1:4".parse().expect("a source");
        let host = RemoteHost::new(urls.to_vec(), &token, source, SILENCE_MAX, None);
        let host = host.expect("a host");
        let (first, second) = (host.take(), host.take());
        assert_eq!(
            (first.url(), second.url()),
            (url("http://127.0.0.1:1"), url("http://127.0.0.1:2"))
        );
        second.note(&Err(unreachable(&urls[1], &"refused")));
        drop(second);
        let third = host.take();
        assert_eq!(third.url(), url("http://127.0.0.1:3"));
        drop(first);
        assert_eq!(
            host.take().url(),
            url("http://127.0.0.1:1"),
            "the one that failed rests"
        );
        for (index, url) in urls.iter().enumerate() {
            let taken = Taken { host: &host, index };
            host.lock()[index].under_way += 1;
            taken.note(&Err(unreachable(url, &"refused")));
        }
        // All rest; the second failed twice in a row and rests for longer.
        assert_ne!(host.take().url(), url("http://127.0.0.1:2"));
    }
}
