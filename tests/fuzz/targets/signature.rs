//! Checks that the verifier of V4 signed URLs never panics, accepts what the account signed, and
//! never accepts anything else.
//!
//! Each input is verified as it is, which must fail, and a request made of it is signed with the real
//! key, which must succeed, and fail again after a change.
#![no_main]

mod signer;

use emulator::key::ServiceAccountKey;
use emulator::signature::Verifier;
use http::{HeaderValue, Method};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use signer::{HOST, NOTE, Signed, Signer, encode, words};
use std::sync::LazyLock;

/// The account that the verifier trusts.
struct Account {
    verifier: Verifier,
    signer: Signer,
    now: Timestamp,
}

static ACCOUNT: LazyLock<Account> = LazyLock::new(|| {
    let key = ServiceAccountKey::generate().expect("a key");
    Account {
        verifier: Verifier::trusting(&key).expect("an RSA key"),
        signer: Signer::new(&key),
        now: "2026-01-01T00:01:00Z".parse().expect("a time"),
    }
});

impl Account {
    fn accepts(&self, method: &Method, path: &str, query: &str, headers: &http::HeaderMap) -> bool {
        let verdict = self.verifier.verify(method, path, query, headers, self.now);
        verdict.is_ok()
    }

    fn accepts_put(&self, signed: &Signed) -> bool {
        self.accepts(&Method::PUT, &signed.path, &signed.query(), &signed.headers)
    }
}

fuzz_target!(|input: (&str, &str, &str, u8, &str)| {
    let (path, query, headers, change, with) = input;
    let account = &*ACCOUNT;
    let signed = account.signer.sign(path, query, &visible(headers));
    assert!(account.accepts_put(&signed), "the account signed this");

    // Without help, the fuzzer does not get past the name of the algorithm.
    let plausible: Vec<String> = signed.parameters[..4]
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let plausible = format!("{}&{query}", plausible.join("&"));
    let headers = prefix_tar_fuzz::headers(headers);
    for query in [query, &plausible] {
        let accepted = account.accepts(&Method::PUT, path, query, &headers);
        assert!(!accepted, "the account did not sign this");
    }
    check_changed(account, signed, change, with);
});

/// Changes one part of a signed request, and checks that it is accepted only if it still means the
/// same.
fn check_changed(account: &Account, signed: Signed, change: u8, with: &str) {
    let mut changed = signed.clone();
    let mut means_the_same = false;
    match change % 8 {
        0 => {
            for method in [Method::GET, Method::HEAD, Method::DELETE, Method::POST] {
                let accepted =
                    account.accepts(&method, &signed.path, &signed.query(), &signed.headers);
                assert!(!accepted, "the account signed a PUT, not a {method}");
            }
            return;
        }
        1 => {
            changed.path = format!("/archive/{}", encode(with, "/"));
            means_the_same = changed.path == signed.path;
        }
        2 => {
            let own = changed.parameters.last_mut().expect("a parameter");
            own.1 = encode(with, "");
            means_the_same = changed.parameters == signed.parameters;
        }
        3 => changed
            .parameters
            .push((format!("further{}", encode(with, "")), encode(with, ""))),
        4 => {
            let note = visible(with);
            let before = signed.headers[NOTE].to_str().expect("text");
            means_the_same = words(&note) == words(before);
            changed.headers.insert(NOTE, note.parse().expect("a value"));
        }
        5 => {
            let value: HeaderValue = visible(with).parse().expect("a value");
            changed.headers.append("x-goog-if-generation-match", value);
        }
        6 => {
            let host = visible(with);
            let port = words(&host);
            let port = port.strip_prefix(HOST);
            means_the_same = port.is_some_and(|port| {
                let digits = port.strip_prefix(':').unwrap_or(port);
                port.is_empty()
                    || port.starts_with(':') && digits.bytes().all(|byte| byte.is_ascii_digit())
            });
            changed
                .headers
                .insert("host", host.parse().expect("a value"));
        }
        _ => {
            let at = with.len() % changed.signature.len();
            changed.signature[at] ^= with.bytes().next().unwrap_or(0).max(1);
        }
    }
    assert_eq!(
        account.accepts_put(&changed),
        means_the_same,
        "change {}: {with:?}",
        change % 8
    );
}

/// The characters of a text that a header can have.
fn visible(text: &str) -> String {
    let is_visible = |character: &char| matches!(character, ' '..='~');
    text.chars().filter(is_visible).collect()
}
