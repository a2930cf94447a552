//! The orchestrator's pure parsers, taken by their files: the crate itself brings wasmtime along, which would take
//! a quarter of an hour to build with coverage.

#[path = "../../../orchestrator/src/local_store"]
pub mod local_store {
    //! As in the orchestrator.
    pub mod error;
    pub mod signature;
}

#[path = "../../../orchestrator/src/range_api/request.rs"]
pub mod range_request;

/// A header map of what a fuzzer made of text: a line for each header.
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
