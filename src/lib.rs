//! prefix-tar's component: one request, one job, one prefix of the Pwned Passwords range API, one tar.
//!
//! The way of one range through this crate, and the modules in reading order:
//!
//! 1. [`prefix`] names it: `AB7FF`, the range at index `7FF` of prefix `AB`.
//! 2. [`job`] says what the component is sent (a prefix and a signed URL) and what it answers (events, the last
//!    of which carries the report); [`failure`] says why there is no report,
//!    [`store_answer`] what a store has said.
//! 3. [`configuration`] is what the operator says: the [`source`] of the ranges, the [`token`] that opens the door,
//!    and to which [`authority`] an upload may go.
//! 4. [`window`] says how many requests may be in flight, [`chunk_pool`] holds what they bring,
//!    [`retry`] says when one that failed is sent again.
//! 5. [`inflate`] decodes a gzip body, [`range_body`] checks it line by line, and
//!    [`distinct`] that it is not the body of another range.
//! 6. [`length`] plans the tar's length from the first ranges, [`mod@tar`] gives the range its header and its padding,
//!    [`checksum`] sums it all up.
//! 7. `shell`, the only module that knows WASI, drives all of this: it is not there in a native build.
//!
//! [`limits`] has every bound, and the sum that keeps an invocation inside its 8 MiB.

pub mod prefix;

pub mod authority;
pub mod configuration;
pub mod failure;
pub mod job;
pub mod source;
pub mod store_answer;
pub mod token;

pub mod limits;

pub mod chunk_pool;
pub mod window;

pub mod retry;

pub mod distinct;
pub mod inflate;
pub mod range_body;

pub mod checksum;
pub mod length;
pub mod tar;

#[cfg(target_arch = "wasm32")]
mod shell;
