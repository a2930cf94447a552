//! [`GuestProfile`]: where the guest's time goes, by function, for the first invocation of a run.

use super::InvocationState;
use super::engine::{ComponentEngine, to_anyhow};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wasmtime::{GuestProfiler, Store, StoreContextMut, UpdateDeadline};

/// The time between two samples of the guest's stack: the length of an epoch while a guest is profiled. A sample is
/// taken when the guest next enters a function or repeats a loop. So the time of a call to the host counts for the
/// function that runs after it, often `cabi_realloc`, and a guest that waits is not sampled.
pub const SAMPLE_INTERVAL: Duration = Duration::from_millis(1);

/// A request for a profile, and the profile once an invocation has ended. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct GuestProfile {
    is_claimed: Arc<AtomicBool>,
    json: Arc<Mutex<Option<Vec<u8>>>>,
}

impl GuestProfile {
    /// The profile as JSON of <https://profiler.firefox.com>; `None` if no invocation has ended. It can be taken once.
    pub fn take(&self) -> Option<Vec<u8>> {
        let mut json = self.json.lock().unwrap_or_else(PoisonError::into_inner);
        json.take()
    }

    /// Profiles the guest of `store`, if it is the first.
    pub(super) fn begin(
        &self,
        engine: &ComponentEngine,
        store: &mut Store<InvocationState>,
    ) -> wasmtime::Result<()> {
        if self.is_claimed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let profiler = GuestProfiler::new_component(
            engine.engine(),
            "prefix-tar",
            SAMPLE_INTERVAL,
            engine.component().clone(),
            [],
        )?;
        store.data_mut().profiler = Some(Box::new(profiler));
        store.epoch_deadline_callback(|mut store| {
            sample(&mut store);
            Ok(UpdateDeadline::Yield(1))
        });
        Ok(())
    }

    /// Keeps the profile of an invocation that has ended.
    pub(super) fn finish(&self, profiler: GuestProfiler) {
        match encode(profiler) {
            Ok(json) => *self.json.lock().unwrap_or_else(PoisonError::into_inner) = Some(json),
            Err(error) => tracing::warn!(%error, "the guest's profile cannot be encoded"),
        }
    }
}

/// The profile as JSON, with the names of functions as in the source.
fn encode(profiler: GuestProfiler) -> anyhow::Result<Vec<u8>> {
    let mut json = Vec::new();
    profiler.finish(&mut json).map_err(to_anyhow)?;
    let mut profile: Value = serde_json::from_slice(&json)?;
    let threads = profile["threads"].as_array_mut().into_iter().flatten();
    let names = threads.filter_map(|thread| thread["stringArray"].as_array_mut());
    for name in names.flatten() {
        if let Some(mangled) = name.as_str() {
            *name = format!("{:#}", rustc_demangle::demangle(mangled)).into();
        }
    }
    Ok(serde_json::to_vec(&profile)?)
}

fn sample(store: &mut StoreContextMut<'_, InvocationState>) {
    // The profiler walks the stack of the store that owns it.
    if let Some(mut profiler) = store.data_mut().profiler.take() {
        profiler.sample(&*store, SAMPLE_INTERVAL);
        store.data_mut().profiler = Some(profiler);
    }
}
