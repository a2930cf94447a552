//! The parts that turn 4,096 range bodies into one tar. They are pure: no clock, no network, no
//! WASI.
//!
//! In reading order: [`window`] limits the requests in flight, [`chunk_pool`] holds their bodies,
//! and [`retry`] schedules the next attempt at a failed range. [`head`] interprets a response's head,
//! [`inflate`] decodes a gzip body, [`range_body`] validates it line by line, [`content_md5`]
//! compares it with its stated digest, and [`duplicate_detector`] rejects the body of another range. [`base`] knows what
//! an earlier tar has. [`length`] plans the tar's length from the first ranges, [`mod@tar`] encodes headers and
//! padding, and [`tar_checksum`] computes the CRC32C of each range and of the tar, with
//! [`checksum`].

pub mod base;
pub mod checksum;
pub mod chunk_pool;
pub mod content_md5;
pub mod duplicate_detector;
pub mod head;
pub mod inflate;
pub mod length;
pub mod range_body;
pub mod retry;
pub mod tar;
pub mod tar_checksum;
pub mod window;
