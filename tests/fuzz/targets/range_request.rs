//! Checks that the request parser of `serve` never panics and only accepts valid range names.
#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use prefix_tar_fuzz::range_request::RangeRequest;

fuzz_target!(|input: (&str, &str, &str)| {
    let (path, headers, etag) = input;
    let headers = prefix_tar_fuzz::headers(headers);
    if let Ok(request) = RangeRequest::parse(&Method::GET, path, &headers) {
        let name = path.strip_prefix("/range/").expect("the path of a range");
        assert!(name.len() == 5 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let _ = request.knows(etag);
    }
});
