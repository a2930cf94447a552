//! The orchestrator: fans out one invocation of the component per prefix, and keeps the archive.
//!
//! Dependencies point one way: [`cli`] -> [`run`] -> [`host`] and [`destination`]. All of them read
//! through [`archive`].
//!
//! - [`cli`] parses the command line and prints results.
//! - [`run`] plans, resumes, dispatches and retries. [`progress`] reports its events and decides nothing.
//! - [`host`] runs the component, which accepts a job only with its [`invoke_token`] and reaches
//!   only the permitted [`origin`]s.
//! - [`destination`] writes tars, reports and the manifest; for a bucket, it uses [`gcs`] and
//!   [`sign`].
//! - [`archive`] reads them back and writes nothing; [`verify`] checks all of them.
//! - [`export`] turns them into other files, such as a [`filter_file`]; [`check`] looks passwords up.
//! - [`status`] compares a sample of them with the source. It asks through [`range_client`], as [`check`] does.
//! - [`range_api`] serves ranges from an archive, and those that [`generate`] makes, where there is no network.

pub mod archive;
pub mod base;
pub mod check;
pub mod cli;
pub mod destination;
pub mod export;
pub mod filter_file;
mod framing;
pub mod gcs;
pub mod generate;
pub mod host;
mod http_client;
pub mod http_server;
pub mod humanize;
pub mod invoke_token;
pub mod liveness;
pub mod nt_hash;
pub mod open_files;
pub mod origin;
pub mod page;
pub mod progress;
mod proxy;
pub mod range_api;
pub mod range_client;
mod redaction;
mod regular_file;
pub mod resource_usage;
pub mod run;
pub mod sign;
pub mod status;
pub mod timeline;
pub mod tls;
pub mod trace;
pub mod verify;
pub mod workers;
