//! The V4 verifier takes nothing that nobody signed, and panics on nothing.
#![no_main]

use http::Method;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use prefix_tar_fuzz::local_store::signature::Verifier;

const DATE: &str = "20260101T000000Z";

fuzz_target!(|input: (&str, &str, &str, bool)| {
    let (path, query, headers, is_plausible) = input;
    let verifier = Verifier::new("signer@example.com".to_owned(), vec![0x30, 0x00]);
    // Left to itself, a fuzzer does not get past the algorithm's name.
    let query = match is_plausible {
        true => format!(
            "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=signer%40example.com%2F20260101%2Fauto%2Fstorage%2Fgoog4_request&X-Goog-Date={DATE}&X-Goog-Expires=600&{query}"
        ),
        false => query.to_owned(),
    };
    let headers = prefix_tar_fuzz::headers(headers);
    let now = "2026-01-01T00:01:00Z".parse::<Timestamp>().expect("a time");
    let verdict = verifier.verify(&Method::PUT, path, &query, &headers, now);
    verdict.expect_err("nobody signed it");
});
