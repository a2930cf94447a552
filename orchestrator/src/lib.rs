//! The orchestrator: fans out one invocation of the component per prefix, and keeps the archive.
//!
//! Dependencies point one way: [`cli`] -> [`run`] -> [`host`] and [`destination`]. [`archive`] is read by all of them
//! and writes nothing.
//!
//! - [`cli`] parses the command line and prints results; only it uses the other modules by command.
//! - [`run`] plans, resumes, dispatches and retries. [`progress`] reports its events and decides nothing.
//! - [`host`] runs the component, whose door an [`invoke_token`] opens. It may reach an [`origin`] and no other.
//! - [`destination`] writes tars, reports and the manifest; [`gcs`] and [`sign`] are how it reaches a bucket.
//! - [`archive`] reads them back, and [`verify`] checks all of them.
//! - [`generate`] and [`range_api`] make and serve ranges where there is no network.

pub mod archive;
pub mod cli;
pub mod destination;
pub mod gcs;
pub mod generate;
pub mod host;
mod http_client;
pub mod http_server;
pub mod humanize;
pub mod invoke_token;
pub mod origin;
pub mod progress;
pub mod range_api;
pub mod resource_usage;
pub mod run;
pub mod sign;
pub mod tls;
pub mod verify;
pub mod workers;
