//! [`EmbeddedHost`]: runs the component with wasmtime in this process, one store per invocation.
//!
//! No wasmtime type leaves this module.

mod causes;
mod engine;
mod memory;
mod outbound;
mod profile;

pub use engine::{CompiledCache, bundled_component};
pub use profile::{GuestProfile, SAMPLE_INTERVAL};

use super::{FailedInvocation, Host, InvocationUpdate, answer};
use crate::invoke_token;
use crate::liveness::Liveness;
use crate::origin::Origin;
use bytes::Bytes;
use causes::Causes;
use engine::{ComponentEngine, EPOCH};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use memory::MemoryBound;
use outbound::{ClientPool, OutboundSettings, PooledClient, TIMEOUT_DEFAULT};
use prefix_tar::limits::{LINEAR_MEMORY_BYTES_MAX, UPLOAD_STALL_TIME_MAX, WINDOW_DEFAULT};
use prefix_tar::protocol::configuration::{
    HOST_CHECKS_FRAMING, INVOKE_TOKEN_SHA256, UPLOAD_AUTHORITIES,
};
use prefix_tar::protocol::failure::{Failure, FailureKind};
use prefix_tar::protocol::job::{JOB_CONTENT_TYPE, Job};
use prefix_tar::protocol::report::Report;
use prefix_tar::protocol::text::escaped_within;
use prefix_tar::protocol::token::Token;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use wasmtime::component::ResourceTable;
use wasmtime::{GuestProfiler, Store};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// What the component may write to stderr per invocation, in bytes.
const LOG_BYTES_MAX: usize = 16 * 1024;

/// The default deadline of an invocation. A tar of 310 MB takes about five minutes at 1 MB/s.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// The body of the component's answer.
pub type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;

/// How the embedded host runs the component.
#[derive(Debug)]
pub struct EmbeddedSettings {
    /// The component's bytes.
    pub component: Vec<u8>,
    /// Where compiled code is cached between runs.
    pub cache: CompiledCache,
    /// The component's environment. The host adds what it does about framing, the token's digest and
    /// the upload authorities.
    pub environment: Vec<(String, String)>,
    /// The origins that the component may reach, besides those that uploads are permitted to.
    pub origins: Vec<Origin>,
    /// PEM file with certificates that are trusted in addition to the platform's: CAs, or servers'
    /// own.
    pub ca_file: Option<PathBuf>,
    /// The most linear memory, in bytes. The module's own limit is 8 MiB.
    pub linear_memory_bytes_max: usize,
    /// The longest time that an invocation may take.
    pub deadline: Duration,
    /// Where the profile of the first invocation's guest goes, if it is wanted.
    pub profile: Option<GuestProfile>,
    /// When the component's connections count as dead.
    pub liveness: Liveness,
    /// The longest silence before and in the response to a request without a body. The component
    /// sets a shorter one.
    pub silence_max: Duration,
    /// Connections that all concurrent invocations will use. The more, the less each buffers.
    pub connections: usize,
}

impl EmbeddedSettings {
    /// Settings for the bundled component, with the user's cache and the default limits.
    pub fn new(environment: Vec<(String, String)>, origins: Vec<Origin>) -> Self {
        Self {
            component: bundled_component().to_vec(),
            cache: CompiledCache::User,
            environment,
            origins,
            ca_file: None,
            linear_memory_bytes_max: LINEAR_MEMORY_BYTES_MAX,
            deadline: DEADLINE_DEFAULT,
            profile: None,
            liveness: Liveness {
                // A store may stop reading for as long as the component waits for it.
                unacknowledged_max: UPLOAD_STALL_TIME_MAX,
                ..Liveness::default()
            },
            silence_max: TIMEOUT_DEFAULT,
            connections: connections_of(1, WINDOW_DEFAULT),
        }
    }
}

/// The connections that so many concurrent invocations use: one per request in the window, and the
/// PUT's.
pub fn connections_of(invocations: usize, window: u16) -> usize {
    invocations * (usize::from(window) + 1)
}

/// Runs the component in this process.
pub struct EmbeddedHost {
    engine: ComponentEngine,
    clients: ClientPool,
    environment: Vec<(String, String)>,
    /// Generated per host, so that only this host can invoke its component.
    token: Token,
    upload_authorities: Vec<String>,
    linear_memory_bytes_max: usize,
    deadline: Duration,
    profile: Option<GuestProfile>,
}

impl EmbeddedHost {
    /// Compiles the component, or loads it from the cache. This blocks for up to a second, so do not
    /// call it from an async task.
    ///
    /// # Errors
    /// The bytes are not a component that this host can run, or the CA file is not usable.
    pub fn new(settings: EmbeddedSettings) -> anyhow::Result<Self> {
        let outbound = OutboundSettings {
            liveness: settings.liveness,
            silence_max: settings.silence_max,
            connections: settings.connections,
        };
        let ca_file = settings.ca_file.as_deref();
        let epoch = match &settings.profile {
            None => EPOCH,
            Some(_) => SAMPLE_INTERVAL,
        };
        Ok(Self {
            engine: ComponentEngine::new(&settings.component, &settings.cache, epoch)?,
            clients: ClientPool::new(settings.origins, ca_file, outbound)?,
            environment: settings.environment,
            token: invoke_token::generate()?,
            upload_authorities: Vec::new(),
            linear_memory_bytes_max: settings.linear_memory_bytes_max,
            deadline: settings.deadline,
            profile: settings.profile,
        })
    }

    /// The bearer token that this host's component accepts.
    pub const fn token(&self) -> &Token {
        &self.token
    }

    fn store(&self, client: PooledClient, log: MemoryOutputPipe) -> Store<InvocationState> {
        let wasi = WasiCtx::builder()
            .env(HOST_CHECKS_FRAMING, "true")
            .envs(&self.environment)
            .env(INVOKE_TOKEN_SHA256, self.token.digest().to_string())
            .env(UPLOAD_AUTHORITIES, self.upload_authorities.join(","))
            .stderr(log)
            .build();
        let state = InvocationState {
            wasi,
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
            memory: MemoryBound::new(self.linear_memory_bytes_max),
            client,
            profiler: None,
        };
        let mut store = Store::new(self.engine.engine(), state);
        store.limiter(|state| &mut state.memory);
        // A guest that never waits yields at every epoch, so that the deadline can end it.
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        store
    }

    async fn run(
        &self,
        job: Job,
        traces: Traces,
        on_update: &(dyn Fn(InvocationUpdate) + Send + Sync),
    ) -> Result<Report, FailedInvocation> {
        let request = http::Request::post("http://component/")
            .header(http::header::CONTENT_TYPE, JOB_CONTENT_TYPE)
            .header(http::header::AUTHORIZATION, self.token.expose_bearer())
            .body(Bytes::from(job.expose_secret()))
            .map_err(|error| host_failure(&error))?;
        let read = async |response: http::Response<AnswerBody>| {
            answer::read(response.into_body(), on_update).await.ok()
        };
        let outcome = self.call_with_traces(request, traces, read).await?;
        outcome.unwrap_or_else(|| {
            Err(Failure::transient(
                FailureKind::Died,
                "the component ended without a final event",
            )
            .into())
        })
    }

    /// Sends one request to a new instance and returns what `read` makes of the answer; `None` if
    /// there was no answer. There is no deadline.
    ///
    /// # Errors
    /// The instance could not be created, or it died before `read` returned a value.
    pub async fn call<Answer>(
        &self,
        request: http::Request<Bytes>,
        read: impl AsyncFnOnce(http::Response<AnswerBody>) -> Option<Answer>,
    ) -> Result<Option<Answer>, Failure> {
        self.call_with_traces(request, Traces::new(), read).await
    }

    async fn call_with_traces<Answer>(
        &self,
        request: http::Request<Bytes>,
        traces: Traces,
        read: impl AsyncFnOnce(http::Response<AnswerBody>) -> Option<Answer>,
    ) -> Result<Option<Answer>, Failure> {
        let mut store = self.store(self.clients.take(traces.causes), traces.log);
        if let Some(profile) = &self.profile {
            let begun = profile.begin(&self.engine, &mut store);
            begun.map_err(|error| host_failure(&error))?;
        }
        let (head_sender, head) = tokio::sync::oneshot::channel();
        let request = request.map(|body| {
            Full::new(body)
                .map_err(|never| match never {})
                .boxed_unsync()
        });
        let mut view = store.data_mut().http();
        let request = view
            .new_incoming_request::<wasmtime_wasi_http::WasiBody>(Scheme::Http, request)
            .map_err(|error| host_failure(&error))?;
        let response = view
            .new_response_outparam(head_sender)
            .map_err(|error| host_failure(&error))?;
        let guest = async move {
            let component = self.engine.instantiate(&mut store).await?;
            let ended = component
                .wasi_http_incoming_handler()
                .call_handle(&mut store, request, response)
                .await;
            let profiler = store.data_mut().profiler.take();
            // The store holds the answer's sender: dropping it ends the answer.
            drop(store);
            if let (Some(profile), Some(profiler)) = (&self.profile, profiler) {
                profile.finish(*profiler);
            }
            ended
        };
        let answer = async {
            match head.await {
                Ok(Ok(response)) => read(response.map(into_answer_body)).await,
                Ok(Err(_)) | Err(_) => None,
            }
        };
        match futures::join!(guest, answer) {
            (Err(error), None) => Err(died(&error)),
            (_, answer) => Ok(answer),
        }
    }
}

#[async_trait::async_trait]
impl Host for EmbeddedHost {
    fn allow_upload(&mut self, origin: Origin) {
        self.upload_authorities.push(origin.authority().to_owned());
        self.clients.allow(origin);
    }

    fn is_in_process(&self) -> bool {
        true
    }

    async fn invoke(
        &self,
        job: Job,
        on_update: &(dyn Fn(InvocationUpdate) + Send + Sync),
    ) -> Result<Report, FailedInvocation> {
        let prefix = job.prefix;
        let traces = Traces::new();
        let run = Box::pin(self.run(job, traces.clone(), on_update));
        let outcome = match tokio::time::timeout(self.deadline, run).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::transient(
                FailureKind::Deadline,
                format!(
                    "the invocation was stopped after {} s; lower --parallel or raise --deadline",
                    self.deadline.as_secs_f64()
                ),
            )
            .into()),
        };
        let written = traces.log.contents();
        if !written.is_empty() {
            let text = String::from_utf8_lossy(&written);
            let log = escaped_within(text.trim_end(), LOG_BYTES_MAX);
            tracing::warn!(%prefix, %log, "the component wrote to stderr");
        }
        outcome.map_err(|failed| FailedInvocation {
            failure: traces.causes.explain(failed.failure),
            sent: failed.sent,
        })
    }
}

/// What an invocation leaves behind besides its answer.
#[derive(Clone)]
struct Traces {
    /// What the component wrote to stderr.
    log: MemoryOutputPipe,
    causes: Causes,
}

impl Traces {
    fn new() -> Self {
        Self {
            log: MemoryOutputPipe::new(LOG_BYTES_MAX),
            causes: Causes::default(),
        }
    }
}

fn into_answer_body(body: HyperOutgoingBody) -> AnswerBody {
    body.map_err(io::Error::other).boxed_unsync()
}

fn host_failure(error: &dyn std::fmt::Display) -> Failure {
    let message = format!("the embedded host could not start the invocation: {error}");
    Failure::permanent(FailureKind::Died, message).sanitized()
}

fn died(error: &wasmtime::Error) -> Failure {
    let cause = match error.downcast_ref::<wasmtime::Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    // The cause may quote names from the component.
    Failure::transient(FailureKind::Died, format!("the component died: {cause}")).sanitized()
}

/// The state of one invocation, held by its store.
struct InvocationState {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    memory: MemoryBound,
    client: PooledClient,
    /// Samples the guest, if it is profiled.
    profiler: Option<Box<GuestProfiler>>,
}

impl WasiView for InvocationState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for InvocationState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.client,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}
