//! Checks that the verifier of V4 signed URLs never panics and never accepts a request that the
//! account did not sign.
#![no_main]

use emulator::key::ServiceAccountKey;
use emulator::signature::Verifier;
use http::Method;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// The account that the verifier trusts. Its public key is valid, so a wrong verdict is possible.
struct Account {
    verifier: Verifier,
    /// Query parameters of a URL that this account signed a minute ago, without the names of the
    /// signed headers and the signature.
    parameters: String,
    now: Timestamp,
}

static ACCOUNT: LazyLock<Account> = LazyLock::new(|| {
    let key = ServiceAccountKey::generate().expect("a key");
    let email = key.client_email().replace('@', "%40");
    Account {
        verifier: Verifier::trusting(&key).expect("an RSA key"),
        parameters: format!(
            "X-Goog-Algorithm=GOOG4-RSA-SHA256\
             &X-Goog-Credential={email}%2F20260101%2Fauto%2Fstorage%2Fgoog4_request\
             &X-Goog-Date=20260101T000000Z&X-Goog-Expires=600"
        ),
        now: "2026-01-01T00:01:00Z".parse().expect("a time"),
    }
});

fuzz_target!(|input: (&str, &str, &str, bool)| {
    let (path, query, headers, is_plausible) = input;
    // Without help, the fuzzer does not get past the name of the algorithm.
    let query = match is_plausible {
        true => format!("{}&{query}", ACCOUNT.parameters),
        false => query.to_owned(),
    };
    let headers = prefix_tar_fuzz::headers(headers);
    let verdict = ACCOUNT
        .verifier
        .verify(&Method::PUT, path, &query, &headers, ACCOUNT.now);
    verdict.expect_err("the account signed nothing");
});
