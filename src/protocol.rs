//! The contract between the orchestrator and the component: jobs, answers, and the names and
//! credentials that both sides share.
//!
//! In reading order: [`prefix`] names prefixes and ranges, [`mode`] says of which hashes. [`job`] is
//! the request, with the [`signed_url`] of the upload. [`event`] is a line of the answer; the last one carries a
//! [`report`], with the [`crc32c`] of the tar, or a [`failure`], and a [`recording`] of the
//! invocation. The orchestrator adds its [`run_id`] to reports. [`configuration`] is set by the
//! component's operator: the [`source`], the [`token`] and the [`authority`] of every allowed store.
//! [`etag`] compares ETags, and [`store_answer`] interprets the store's answers. [`text`] makes what others say safe to show.

pub mod authority;
pub mod configuration;
pub mod crc32c;
pub mod etag;
pub mod event;
pub mod failure;
pub mod job;
pub mod mode;
pub mod phase;
pub mod prefix;
pub mod recording;
pub mod report;
pub mod run_id;
pub mod signed_url;
pub mod source;
pub mod store_answer;
pub mod text;
pub mod token;
