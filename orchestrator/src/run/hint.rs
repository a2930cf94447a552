//! Adds to a failure what the user can do about it. The component states only facts, because the
//! flags are the orchestrator's.

use crate::http_client::NO_FILE_DESCRIPTORS;
use crate::proxy::CREDENTIALS_HINT;
use crate::tls::private_issuer_hint;
use prefix_tar::protocol::failure::{Failure, FailureKind};

/// Appends the hint for a failure to its message, if there is one.
pub fn with_hint(mut failure: Failure) -> Failure {
    if let Some(hint) = hint(&failure) {
        failure.message = format!("{}; {hint}", failure.message);
    }
    failure
}

fn hint(failure: &Failure) -> Option<&'static str> {
    match (failure.kind, failure.status) {
        (FailureKind::SourceStatus, Some(407)) => Some(CREDENTIALS_HINT),
        (FailureKind::SourceStatus, Some(429 | 503)) => Some("lower --window or try later"),
        (
            FailureKind::SourceUnreachable
            | FailureKind::StoreUnreachable
            | FailureKind::HostUnreachable
            | FailureKind::Destination,
            _,
        ) => private_issuer_hint(&failure.message),
        (FailureKind::StoreStatus, Some(503 | 507)) => of_local_store(&failure.message),
        _ => None,
    }
}

/// What to do about a code of the local store. Google's has none of these.
fn of_local_store(message: &str) -> Option<&'static str> {
    [
        ("NoSpaceLeft", "free some space on the store's disk"),
        ("QuotaExceeded", "raise the disk quota of the store's user"),
        (
            "ReadOnlyFileSystem",
            "the store's file system is read-only; remount it for writing",
        ),
        ("NoFileDescriptors", NO_FILE_DESCRIPTORS),
    ]
    .iter()
    .find_map(|(code, hint)| message.contains(code).then_some(*hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{IS_OF_CA, UNKNOWN_ISSUER, WRONG_SIGNATURE};
    use prefix_tar::protocol::failure::CERTIFICATE_NOT_TRUSTED;

    #[test]
    fn a_source_that_throttles_is_given_a_smaller_window() {
        let throttled = Failure {
            status: Some(503),
            ..Failure::transient(FailureKind::SourceStatus, "GET answered 503")
        };
        let hinted = with_hint(throttled.clone()).message;
        assert_eq!(hinted, "GET answered 503; lower --window or try later");
        let gone = Failure {
            status: Some(404),
            ..throttled
        };
        assert_eq!(with_hint(gone.clone()), gone);
    }

    #[test]
    fn what_the_local_store_lacks_is_named_with_what_to_do() {
        for (status, code, remedy) in [
            (507, "NoSpaceLeft", "free some space"),
            (507, "QuotaExceeded", "raise the disk quota"),
            (507, "ReadOnlyFileSystem", "remount it"),
            (503, "NoFileDescriptors", "ulimit -n"),
        ] {
            let message = format!("PUT of /archive/00.tar was answered {status} {code}");
            let refused = Failure {
                status: Some(status),
                ..Failure::permanent(FailureKind::StoreStatus, message)
            };
            let hinted = with_hint(refused).message;
            assert!(hinted.contains(remedy), "{hinted}");
        }
        let busy = Failure {
            status: Some(503),
            ..Failure::transient(FailureKind::StoreStatus, "PUT was answered 503 SlowDown")
        };
        assert_eq!(with_hint(busy.clone()), busy);
    }

    #[test]
    fn an_untrusted_certificate_leads_to_the_ca_file() {
        let message = format!("GET from https://localhost failed: {CERTIFICATE_NOT_TRUSTED}");
        let untrusted = Failure::permanent(FailureKind::SourceUnreachable, message);
        let untrusted = with_hint(untrusted).message;
        assert!(untrusted.ends_with("with --ca-file"), "{untrusted}");
        for (reason, is_hinted) in [
            (UNKNOWN_ISSUER, true),
            (IS_OF_CA, true),
            (WRONG_SIGNATURE, true),
            ("it expired at 2026-01-01T00:00:00Z", false),
        ] {
            let message = format!("GET failed: {CERTIFICATE_NOT_TRUSTED} ({reason})");
            let failure = Failure::permanent(FailureKind::SourceUnreachable, message);
            let hinted = with_hint(failure).message;
            assert_eq!(hinted.ends_with("with --ca-file"), is_hinted, "{hinted}");
        }
    }
}
