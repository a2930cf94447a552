//! Compiles the component, caches the compiled code between runs and ticks wasmtime's epochs.

use super::InvocationState;
use anyhow::Context as _;
use std::path::PathBuf;
use std::time::Duration;
use wasmtime::component::{Component, Linker};
use wasmtime::{Cache, CacheConfig, Config, Engine, Store};
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};

/// The length of an epoch. A guest that never waits yields once per epoch.
pub(super) const EPOCH: Duration = Duration::from_millis(10);

/// The component that was built with the orchestrator.
pub fn bundled_component() -> &'static [u8] {
    include_bytes!(env!("PREFIX_TAR_COMPONENT"))
}

/// Where compiled code is cached between runs.
#[derive(Clone, Debug)]
pub enum CompiledCache {
    /// Nowhere.
    Off,
    /// In wasmtime's folder in the user's cache.
    User,
    /// In this folder.
    In(PathBuf),
}

impl CompiledCache {
    fn open(&self) -> Option<Cache> {
        let mut config = CacheConfig::new();
        match self {
            Self::Off => return None,
            // wasmtime's default folder, shared with its command line.
            Self::User => {}
            Self::In(folder) => {
                config.with_directory(folder);
            }
        }
        Cache::new(config)
            .inspect_err(|error| {
                tracing::warn!(%error, "no cache for compiled code; every run compiles the component");
            })
            .ok()
    }
}

/// The component, compiled and linked.
pub(super) struct ComponentEngine {
    engine: Engine,
    component: ProxyPre<InvocationState>,
}

impl ComponentEngine {
    pub(super) fn new(
        component: &[u8],
        cache: &CompiledCache,
        epoch: Duration,
    ) -> anyhow::Result<Self> {
        let mut config = Config::new();
        config.epoch_interruption(true).cache(cache.open());
        let engine = Engine::new(&config)
            .map_err(to_anyhow)
            .context("cannot start wasmtime")?;
        start_epochs(&engine, epoch)?;
        let component = Self::link(&engine, component)
            .map_err(to_anyhow)
            .context("cannot compile and link the component; is it a WASI 0.2 HTTP component?")?;
        Ok(Self { engine, component })
    }

    fn link(engine: &Engine, component: &[u8]) -> wasmtime::Result<ProxyPre<InvocationState>> {
        let component = Component::from_binary(engine, component)?;
        let mut linker = Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        ProxyPre::new(linker.instantiate_pre(&component)?)
    }

    pub(super) const fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn component(&self) -> &Component {
        self.component.instance_pre().component()
    }

    pub(super) async fn instantiate(
        &self,
        store: &mut Store<InvocationState>,
    ) -> wasmtime::Result<Proxy> {
        self.component.instantiate_async(store).await
    }
}

/// Converts a wasmtime error, which is not an `anyhow` error, with its sources.
pub(super) fn to_anyhow(error: wasmtime::Error) -> anyhow::Error {
    anyhow::Error::msg(format!("{error:#}"))
}

/// Increments the epoch for as long as the engine exists. It has its own thread, because no task
/// would run while every worker is busy with a guest that never waits.
fn start_epochs(engine: &Engine, epoch: Duration) -> anyhow::Result<()> {
    let engine = engine.weak();
    std::thread::Builder::new()
        .name("epochs".to_owned())
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(epoch);
            }
        })
        .context("cannot start the epoch thread")?;
    Ok(())
}
