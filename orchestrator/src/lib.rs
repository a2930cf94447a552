//! The orchestrator: fans out one invocation of the component per prefix and keeps the archive whole.
//!
//! Data flows one way, and so do the modules in reading order:
//!
//! 1. [`cli`] says what was typed; only it names the others by command.
//! 2. [`plan`] makes of it which prefixes there are, [`resume`] which of them are there already; [`dispatch`] owns
//!    the run: it alone starts invocations, tries them again ([`retry`]) and knows how each ended.
//! 3. [`host`] runs the component, whose door an [`invoke_token`] opens; [`destination`] prepares the PUT ([`sign`]) and takes the report.
//!    [`mirror`] puts these together: it is the main job in one call.
//! 4. [`progress`] shows what dispatch tells it; [`manifest`] is what is left in the end; [`verify`] reads it all
//!    again.
//!
//! [`generate`], [`range_api`] and [`local_store`] are what a run needs around it where there is no network:
//! ranges, a source and an object store; [`http_server`] serves the latter two.

pub mod cli;

pub mod dispatch;
pub mod mirror;
pub mod plan;
pub mod resume;
pub mod retry;

pub mod destination;
pub mod host;
pub mod invoke_token;
pub mod sign;
pub mod tls;

pub mod cost;
pub mod figures;
pub mod manifest;
pub mod progress;
pub mod verify;
pub mod workers;

pub mod generate;
mod http_client;
pub mod http_server;
pub mod local_store;
pub mod range_api;
