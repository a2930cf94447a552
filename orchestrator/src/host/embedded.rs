//! The embedded host: wasmtime in this process, one store per invocation.
//! The compiled component is `engine`'s, connections are `outbound`'s, the memory's bound is `memory`'s.

mod engine;
mod memory;
mod outbound;

pub use engine::{CompiledCache, bundled_component};

use super::{FailedInvocation, Host, InvocationProgress, answer};
use crate::invoke_token;
use bytes::Bytes;
use engine::ComponentEngine;
use http_body_util::{BodyExt as _, Full};
use memory::MemoryBound;
pub use outbound::{InProcess, Origin};
use outbound::{Lane, Lanes};
use prefix_tar::configuration::{INVOKE_TOKEN_SHA256, UPLOAD_AUTHORITIES};
use prefix_tar::failure::{Failure, FailureKind};
use prefix_tar::job::{JOB_CONTENT_TYPE, Job, Report};
use prefix_tar::limits::LINEAR_MEMORY_BYTES_MAX;
use prefix_tar::token::Token;
use std::path::PathBuf;
use std::time::Duration;
use wasmtime::Store;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// What a component may write to its standard error, in bytes.
const LOG_BYTES_MAX: usize = 16 * 1024;

/// How long an invocation may take, unless it is said. A prefix is 130 MB: at 1 MB/s, about two minutes.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// How the embedded host runs the component.
#[derive(Debug)]
pub struct EmbeddedSettings {
    /// The component's bytes.
    pub component: Vec<u8>,
    /// Where compiled code is kept between runs.
    pub cache: CompiledCache,
    /// The component's environment. The digest of the token and where uploads may go are added to it.
    pub environment: Vec<(String, String)>,
    /// What the component may reach besides where uploads may go, and nothing else.
    pub origins: Vec<Origin>,
    /// A private CA to trust besides the platform's.
    pub ca_file: Option<PathBuf>,
    /// The bound of the linear memory, in bytes. The module has its own of 8 MiB.
    pub linear_memory_bytes_max: usize,
    /// The bound of an invocation's time.
    pub deadline: Duration,
}

impl EmbeddedSettings {
    /// The component that the orchestrator carries, with the cache and the bounds that suit most.
    pub fn new(environment: Vec<(String, String)>, origins: Vec<Origin>) -> Self {
        Self {
            component: bundled_component().to_vec(),
            cache: CompiledCache::User,
            environment,
            origins,
            ca_file: None,
            linear_memory_bytes_max: LINEAR_MEMORY_BYTES_MAX,
            deadline: DEADLINE_DEFAULT,
        }
    }
}

/// wasmtime in this process.
pub struct EmbeddedHost {
    engine: ComponentEngine,
    lanes: Lanes,
    environment: Vec<(String, String)>,
    /// Of this host's own, so that nothing else could open the component's door.
    token: Token,
    upload_authorities: Vec<String>,
    linear_memory_bytes_max: usize,
    deadline: Duration,
}

impl EmbeddedHost {
    /// Compiles the component, or takes it from the cache. Takes up to a second: not for an async task.
    ///
    /// # Errors
    /// The component is not one, or the CA file is not usable.
    pub fn new(settings: EmbeddedSettings) -> anyhow::Result<Self> {
        Ok(Self {
            engine: ComponentEngine::new(&settings.component, &settings.cache)?,
            lanes: Lanes::new(settings.origins, settings.ca_file.as_deref())?,
            environment: settings.environment,
            token: invoke_token::generate()?,
            upload_authorities: Vec::new(),
            linear_memory_bytes_max: settings.linear_memory_bytes_max,
            deadline: settings.deadline,
        })
    }

    /// Lets the component write to one more origin.
    pub fn allow_upload(&mut self, origin: Origin) {
        self.upload_authorities.push(origin.authority().to_owned());
        self.lanes.allow(origin);
    }

    /// The token that opens the door of this host's component.
    pub const fn token(&self) -> &Token {
        &self.token
    }

    fn store(&self, lane: Lane, log: MemoryOutputPipe) -> Store<InvocationState> {
        let wasi = WasiCtx::builder()
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
            lane,
        };
        let mut store = Store::new(self.engine.engine(), state);
        store.limiter(|state| &mut state.memory);
        // A guest that never waits gives way at every tick, so that the deadline can end it.
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        store
    }

    async fn run(
        &self,
        job: Job,
        log: MemoryOutputPipe,
        on_progress: &(dyn Fn(InvocationProgress) + Send + Sync),
    ) -> Result<Report, FailedInvocation> {
        let request = http::Request::post("http://component/")
            .header(http::header::CONTENT_TYPE, JOB_CONTENT_TYPE)
            .header(
                http::header::AUTHORIZATION,
                self.token.expose_bearer_to_the_wire(),
            )
            .body(Bytes::from(job.expose_to_the_wire()))
            .map_err(|error| host_failure(&error))?;
        let read = async |response: http::Response<HyperOutgoingBody>| {
            answer::read(response.into_body(), on_progress).await.ok()
        };
        self.call(request, log, read).await?.unwrap_or_else(|| {
            Err(Failure::passing(
                FailureKind::Died,
                "the component ended without a final event",
            )
            .into())
        })
    }

    /// Sends one request to a fresh instance, and gives what `read` makes of the answer, `None` where there
    /// was no answer. Not bounded in time.
    ///
    /// # Errors
    /// The instance cannot be made, or died before `read` had what it wanted.
    pub async fn call<Answer>(
        &self,
        request: http::Request<Bytes>,
        log: MemoryOutputPipe,
        read: impl AsyncFnOnce(http::Response<HyperOutgoingBody>) -> Option<Answer>,
    ) -> Result<Option<Answer>, Failure> {
        let mut store = self.store(self.lanes.take(), log);
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
            // What the store holds of the answer ends with it.
            drop(store);
            ended
        };
        let answer = async {
            match head.await {
                Ok(Ok(response)) => read(response).await,
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
    async fn invoke(
        &self,
        job: Job,
        on_progress: &(dyn Fn(InvocationProgress) + Send + Sync),
    ) -> Result<Report, FailedInvocation> {
        let prefix = job.prefix;
        let log = MemoryOutputPipe::new(LOG_BYTES_MAX);
        let run = Box::pin(self.run(job, log.clone(), on_progress));
        let outcome = match tokio::time::timeout(self.deadline, run).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::passing(
                FailureKind::Deadline,
                format!(
                    "the invocation was stopped after {} s; lower --parallel or raise --deadline",
                    self.deadline.as_secs_f64()
                ),
            )
            .into()),
        };
        let written = log.contents();
        if !written.is_empty() {
            let text = String::from_utf8_lossy(&written);
            tracing::warn!(%prefix, log = text.trim_end(), "the component wrote to its log");
        }
        outcome
    }
}

fn host_failure(error: &dyn std::fmt::Display) -> Failure {
    let message = format!("the embedded host could not begin the invocation: {error}");
    Failure::lasting(FailureKind::Died, message)
}

fn died(error: &wasmtime::Error) -> Failure {
    let cause = match error.downcast_ref::<wasmtime::Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    Failure::passing(FailureKind::Died, format!("the component died: {cause}"))
}

/// What a store holds for its one invocation.
struct InvocationState {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    memory: MemoryBound,
    lane: Lane,
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
            hooks: &mut self.lane,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}
