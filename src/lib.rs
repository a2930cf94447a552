//! The prefix-tar component: one request is one job, which mirrors one prefix of the Pwned
//! Passwords range API into one tar.
//!
//! - [`protocol`] is the contract with the orchestrator: jobs, events, reports, names and
//!   credentials.
//! - [`engine`] turns range bodies into a tar. It is pure.
//! - [`limits`] lists every limit and proves that their sum fits into 8 MiB of linear memory.
//! - `shell` runs the engine on WASI. It exists only in the WebAssembly build.

pub mod engine;
pub mod limits;
pub mod protocol;

#[cfg(target_arch = "wasm32")]
mod shell;
