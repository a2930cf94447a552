//! The compiled component: wasmtime's engine, its cache between runs, its clock of epochs.
//! What an instance may do is left to the store that it lives in.

use super::InvocationState;
use anyhow::Context as _;
use std::path::PathBuf;
use std::time::Duration;
use wasmtime::component::{Component, Linker};
use wasmtime::{Cache, CacheConfig, Config, Engine, Store};
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};

/// How often a guest that never waits is made to give way.
const EPOCH: Duration = Duration::from_millis(10);

/// The component that was built with the orchestrator.
pub fn bundled_component() -> &'static [u8] {
    include_bytes!(env!("PREFIX_TAR_COMPONENT"))
}

/// Where compiled code is kept between runs.
#[derive(Clone, Debug)]
pub enum CompiledCache {
    /// Nowhere.
    Off,
    /// In the user's cache folder; nowhere, where there is none.
    User,
    /// In this folder.
    In(PathBuf),
}

impl CompiledCache {
    fn open(&self) -> Option<Cache> {
        let folder = match self {
            Self::Off => return None,
            Self::User => dirs::cache_dir()?.join("prefix-tar").join("compiled"),
            Self::In(folder) => folder.clone(),
        };
        let mut config = CacheConfig::new();
        config.with_directory(&folder);
        Cache::new(config)
            .inspect_err(|error| {
                let folder = folder.display();
                tracing::warn!(%folder, %error, "compiled code cannot be kept; every run compiles anew");
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
    pub(super) fn new(component: &[u8], cache: &CompiledCache) -> anyhow::Result<Self> {
        let mut config = Config::new();
        config.epoch_interruption(true).cache(cache.open());
        let engine = Engine::new(&config)
            .map_err(to_anyhow)
            .context("wasmtime cannot be started")?;
        start_epochs(&engine)?;
        let component = Self::link(&engine, component)
            .map_err(to_anyhow)
            .context("this is no component that this host can run")?;
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

    pub(super) async fn instantiate(
        &self,
        store: &mut Store<InvocationState>,
    ) -> wasmtime::Result<Proxy> {
        self.component.instantiate_async(store).await
    }
}

/// wasmtime's errors are not `anyhow`'s.
fn to_anyhow(error: wasmtime::Error) -> anyhow::Error {
    anyhow::Error::msg(format!("{error:#}"))
}

/// Counts epochs for as long as the engine is there. On a thread of its own: where every worker runs a guest
/// that never waits, no task would get to.
fn start_epochs(engine: &Engine) -> anyhow::Result<()> {
    let engine = engine.weak();
    std::thread::Builder::new()
        .name("epochs".to_owned())
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(EPOCH);
            }
        })
        .context("cannot start the thread that counts epochs")?;
    Ok(())
}
