//! Adds to a failure what the user can do about it. The component states only facts, because the
//! flags are the orchestrator's.

use prefix_tar::protocol::failure::{CERTIFICATE_NOT_TRUSTED, Failure, FailureKind};

/// Appends the hint for a failure to its message, if there is one.
pub fn with_hint(mut failure: Failure) -> Failure {
    if let Some(hint) = hint(&failure) {
        failure.message = format!("{}; {hint}", failure.message);
    }
    failure
}

fn hint(failure: &Failure) -> Option<&'static str> {
    match (failure.kind, failure.status) {
        (FailureKind::SourceStatus, Some(429 | 503)) => Some("lower --window or try later"),
        (FailureKind::SourceUnreachable | FailureKind::StoreUnreachable, _)
            if failure.message.contains(CERTIFICATE_NOT_TRUSTED) =>
        {
            Some("if a private CA has issued it, name the CA with --ca-file")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_untrusted_certificate_leads_to_the_ca_file() {
        let message = format!("GET from https://localhost failed: {CERTIFICATE_NOT_TRUSTED}");
        let untrusted = Failure::permanent(FailureKind::SourceUnreachable, message);
        assert!(with_hint(untrusted).message.ends_with("with --ca-file"));
    }
}
