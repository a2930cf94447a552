//! Checks that the request parser of `serve` never panics, only accepts valid range names, and only chooses codings
//! that the client names.
#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use prefix_tar_fuzz::range_request::RangeRequest;

fuzz_target!(|input: (&str, Option<&str>, &str, &str)| {
    let (path, query, headers, etag) = input;
    let headers = prefix_tar_fuzz::headers(headers);
    if let Ok(request) = RangeRequest::parse(&Method::GET, path, query, &headers) {
        let name = path.strip_prefix("/range/").expect("the path of a range");
        assert!(name.len() == 5 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(matches!(query, None | Some("" | "mode=sha1" | "mode=ntlm")));
        if let Some(coding) = request.codings.best().name() {
            let mut accepted = headers.get_all("accept-encoding").into_iter();
            assert!(accepted.any(|value| {
                let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
                value.contains(coding)
            }));
        }
        let _ = request.knows(etag);
    }
});
