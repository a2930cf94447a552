//! Code that the fuzz targets share.

// The orchestrator as a dependency would bring in wasmtime, which takes a quarter of an hour to
// build with coverage. Its request parser depends on nothing else in the orchestrator.
#[path = "../../../orchestrator/src/range_api/coding.rs"]
pub mod coding;
#[path = "../../../orchestrator/src/range_api/request.rs"]
pub mod range_request;

// The same for what `verify` reads. These modules name each other by `super`.
#[path = "../../../orchestrator/src/archive/layout.rs"]
pub mod layout;
#[path = "../../../orchestrator/src/archive/manifest.rs"]
pub mod manifest;
#[path = "../../../orchestrator/src/verify/tar_check.rs"]
pub mod tar_check;
#[path = "../../../orchestrator/src/verify/tar_header.rs"]
mod tar_header;
#[path = "../../../orchestrator/src/verify/tar_source.rs"]
mod tar_source;
#[path = "../../../orchestrator/src/verify/text.rs"]
pub mod text;

/// Makes a header map of fuzzed text: one header per line, without the invalid ones.
pub fn headers(text: &str) -> http::HeaderMap {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((
                name.parse::<http::HeaderName>().ok()?,
                http::HeaderValue::from_str(value.trim()).ok()?,
            ))
        })
        .collect()
}
