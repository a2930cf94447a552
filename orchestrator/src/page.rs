//! The page of a run: one HTML file with its picture of memory, its throughput and its figures. It needs no network.
//!
//! [`charts`] draws, [`figures`] computes what the tables say, [`html`] puts both together, and [`memory_png`] encodes
//! the picture of memory alone.

pub mod charts;
pub mod figures;
pub mod html;
mod png;

pub use png::memory_png;
