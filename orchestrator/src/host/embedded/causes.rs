//! [`Causes`]: why requests of an invocation failed, where WASI's error codes cannot say it.

use crate::http_client::{self, NO_FILE_DESCRIPTORS};
use crate::tls;
use hyper_util::client::legacy::Error;
use prefix_tar::protocol::failure::{
    CERTIFICATE_NOT_TRUSTED, Failure, FailureKind, REQUEST_DENIED, SERVER_UNAVAILABLE,
};
use std::sync::{Arc, Mutex, PoisonError};

/// What an invocation's requests have run into.
#[derive(Clone, Debug, Default)]
pub(super) struct Causes(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    /// Why a server's certificate was not trusted.
    distrust: Option<String>,
    /// Whether the process could not open another socket.
    lacks_file_descriptors: bool,
    /// What the proxy did at last, by whether another attempt may succeed.
    proxy_refused: Option<String>,
    proxy_failed: Option<String>,
}

impl Causes {
    /// Notes the cause of a request without a response.
    pub(super) fn note(&self, error: &Error) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = tls::distrust(error) {
            noted.distrust = Some(reason);
        }
        if http_client::lacks_file_descriptors(error) {
            noted.lacks_file_descriptors = true;
        }
        if let Some(failure) = http_client::proxy_failure(error) {
            let text = Some(failure.to_string());
            match failure.is_transient() {
                true => noted.proxy_failed = text,
                false => noted.proxy_refused = text,
            }
        }
    }

    /// Adds the cause to the failure that the component made of it.
    pub(super) fn explain(&self, mut failure: Failure) -> Failure {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &noted.distrust {
            let explained = format!("{CERTIFICATE_NOT_TRUSTED} ({reason})");
            failure.message = failure
                .message
                .replacen(CERTIFICATE_NOT_TRUSTED, &explained, 1);
        }
        for (stated, noted) in [
            (REQUEST_DENIED, &noted.proxy_refused),
            (SERVER_UNAVAILABLE, &noted.proxy_failed),
        ] {
            if let Some(explained) = noted {
                failure.message = failure.message.replacen(stated, explained, 1);
            }
        }
        let is_unreachable = matches!(
            failure.kind,
            FailureKind::SourceUnreachable | FailureKind::StoreUnreachable
        );
        if noted.lacks_file_descriptors && is_unreachable {
            failure.message = format!("{}: {NO_FILE_DESCRIPTORS}", failure.message);
        }
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_without_a_noted_cause_is_left_alone() {
        let failure = Failure::transient(FailureKind::SourceUnreachable, "refused");
        assert_eq!(Causes::default().explain(failure.clone()), failure);
    }

    #[test]
    fn the_lack_of_file_descriptors_explains_only_what_was_not_reached() {
        let causes = Causes::default();
        causes
            .0
            .lock()
            .expect("not poisoned")
            .lacks_file_descriptors = true;
        for kind in [
            FailureKind::SourceUnreachable,
            FailureKind::StoreUnreachable,
        ] {
            let message = causes.explain(Failure::transient(kind, "failed")).message;
            assert_eq!(
                message,
                "failed: no file descriptors are left; lower --parallel or --window, or raise the limit with ulimit -n"
            );
        }
        let other = Failure::transient(FailureKind::RangeInvalid, "unsorted");
        assert_eq!(causes.explain(other.clone()), other);
    }

    #[test]
    fn what_a_proxy_did_replaces_what_the_component_can_know() {
        let causes = Causes::default();
        {
            let mut noted = causes.0.lock().expect("not poisoned");
            noted.proxy_refused = Some("the proxy answered 407".to_owned());
            noted.proxy_failed = Some("the proxy answered 502".to_owned());
        }
        for (stated, explained) in [
            (REQUEST_DENIED, "GET failed: the proxy answered 407"),
            (SERVER_UNAVAILABLE, "GET failed: the proxy answered 502"),
            (
                "the connection was lost",
                "GET failed: the connection was lost",
            ),
        ] {
            let message = format!("GET failed: {stated}");
            let failure = Failure::transient(FailureKind::SourceUnreachable, message);
            assert_eq!(causes.explain(failure).message, explained);
        }
    }
}
