//! prefix-tar's component: one request, one job, one prefix of the Pwned Passwords range API, one tar.
//!
//! The way of one range through this crate, and the modules in reading order:
//!
//! 1. [`prefix`] names it: `AB7FF`, the range at index `7FF` of prefix `AB`.
//! 2. [`job`] says what the component is sent (a prefix and a signed URL) and what it answers (events, the last
//!    of which carries the report); [`failure`] says why there is no report; [`source`] where ranges come from.
//! 3. [`window`] says how many requests may be in flight, [`chunk_pool`] holds what they bring.
//! 4. [`inflate`] decodes a gzip body, [`range_body`] checks it line by line.
//! 5. [`length`] plans the tar's length from the first ranges, [`mod@tar`] gives the range its header and its padding,
//!    [`checksum`] sums it all up.
//! 6. `shell`, the only module that knows WASI, drives all of this: it is not there in a native build.
//!
//! [`limits`] has every bound, and the sum that keeps an invocation inside its 8 MiB.

pub mod prefix;

pub mod failure;
pub mod job;
pub mod source;

pub mod limits;

pub mod chunk_pool;
pub mod window;

pub mod inflate;
pub mod range_body;

pub mod checksum;
pub mod length;
pub mod tar;

#[cfg(target_arch = "wasm32")]
mod shell;
