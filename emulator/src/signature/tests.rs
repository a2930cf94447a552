use super::*;
use crate::test_signer::{KEY, SignRequest, Signed};
use http::HeaderValue;

fn verify(method: &Method, signed: &Signed, after_seconds: i64) -> Result<(), StoreError> {
    let now = Timestamp::now() + SignedDuration::from_secs(after_seconds);
    Verifier::trusting(&KEY).expect("a verifier").verify(
        method,
        &signed.path,
        &signed.query,
        &signed.headers,
        now,
    )
}

#[test]
fn a_correctly_signed_request_is_verified_for_any_object_name() {
    for object in ["AB.tar", "a/b c/100%.tar", "Ä+ö~é&=?#.json"] {
        let signed = SignRequest {
            headers: &[
                ("content-type", "application/x-tar"),
                ("x-goog-if-generation-match", "0"),
                ("x-goog-meta-note", "  two   spaces "),
            ],
            ..SignRequest::put(object)
        }
        .sign();
        assert_eq!(verify(&Method::PUT, &signed, 0), Ok(()), "{object}");
        assert_eq!(
            verify(&Method::GET, &signed, 0),
            Err(StoreError::SignatureDoesNotMatch)
        );
    }
}

#[test]
fn the_host_can_be_signed_with_or_without_its_port() {
    for (signed_host, verdict) in [
        ("127.0.0.1", Ok(())),
        ("127.0.0.1:9000", Ok(())),
        ("127.0.0.1:9001", Err(StoreError::SignatureDoesNotMatch)),
        ("127.0.0.1:", Err(StoreError::SignatureDoesNotMatch)),
        ("127.0.0.2", Err(StoreError::SignatureDoesNotMatch)),
        ("", Err(StoreError::SignatureDoesNotMatch)),
    ] {
        let signed = SignRequest {
            signed_host,
            ..SignRequest::put("AB.tar")
        }
        .sign();
        assert_eq!(verify(&Method::PUT, &signed, 0), verdict, "{signed_host}");
    }
}

#[test]
fn query_parameters_are_sorted_by_name_and_not_by_the_joined_pair() {
    let signed = SignRequest {
        parameters: &[("a", "1"), ("a-b", "2"), ("generation", "7"), ("z", "")],
        ..SignRequest::put("AB.tar")
    }
    .sign();
    assert!(signed.query.contains("a=1&a-b=2&generation=7&z="));
    assert_eq!(verify(&Method::PUT, &signed, 0), Ok(()));
}

#[test]
fn an_expired_or_premature_url_is_refused() {
    let signed = SignRequest::put("AB.tar").sign();
    assert_eq!(verify(&Method::PUT, &signed, 58), Ok(()));
    assert_eq!(
        verify(&Method::PUT, &signed, 62),
        Err(StoreError::ExpiredToken)
    );
    assert_eq!(
        verify(&Method::PUT, &signed, -1000),
        Err(StoreError::RequestTimeTooSkewed)
    );
}

#[test]
fn a_request_that_was_changed_after_signing_is_refused() {
    const GENERATION_MATCH: &str = "x-goog-if-generation-match";
    fn insert(signed: &mut Signed, name: &'static str, value: &'static str) {
        let value = HeaderValue::from_static(value);
        signed.headers.insert(name, value);
    }
    let refused = |change: fn(&mut Signed)| {
        let mut signed = SignRequest {
            headers: &[(GENERATION_MATCH, "0")],
            ..SignRequest::put("AB.tar")
        }
        .sign();
        change(&mut signed);
        verify(&Method::PUT, &signed, 0).expect_err("refused")
    };
    assert_eq!(
        refused(|signed| signed.path = "/archive/AC.tar".to_owned()),
        StoreError::SignatureDoesNotMatch
    );
    assert_eq!(
        refused(|signed| signed.query = signed.query.replace("Expires=60", "Expires=6000")),
        StoreError::SignatureDoesNotMatch
    );
    assert_eq!(
        refused(|signed| insert(signed, GENERATION_MATCH, "7")),
        StoreError::SignatureDoesNotMatch
    );
    assert_eq!(
        refused(|signed| drop(signed.headers.remove(GENERATION_MATCH))),
        StoreError::MalformedSecurityHeader
    );
    assert_eq!(
        refused(|signed| insert(signed, "content-type", "text/plain")),
        StoreError::MalformedSecurityHeader
    );
    assert_eq!(
        refused(|signed| insert(signed, "x-amz-acl", "private")),
        StoreError::ExcessHeaderValues
    );
    assert_eq!(
        refused(|signed| signed.query.clear()),
        StoreError::AccessDenied
    );
}

#[test]
fn a_signature_by_another_account_is_refused() {
    let signed = SignRequest::put("AB.tar").sign();
    let other = ServiceAccountKey::generate().expect("a key");
    let verdict = Verifier::trusting(&other).expect("a verifier").verify(
        &Method::PUT,
        &signed.path,
        &signed.query,
        &signed.headers,
        Timestamp::now(),
    );
    assert_eq!(verdict, Err(StoreError::SignatureDoesNotMatch));
}
