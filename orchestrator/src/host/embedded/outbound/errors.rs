//! Translates the HTTP client's errors to WASI error codes, and detects unprocessed requests.

use crate::host::timed_body::BodyLost;
use crate::http_client;
use crate::tls::causes;
use wasmtime_wasi_http::Error;

/// Whether the server said that it did not process the request: with a GOAWAY that closes the
/// connection without an error, or by refusing the stream (RFC 9113, 6.8 and 8.7).
pub(super) fn was_not_processed(error: &hyper_util::client::legacy::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<h2::Error>())
        .any(|error| {
            error.is_remote()
                && (error.reason() == Some(h2::Reason::REFUSED_STREAM)
                    || error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR))
        })
}

/// Translates the error of a request without a response.
pub(super) fn error_of_client(error: &hyper_util::client::legacy::Error) -> Error {
    tracing::debug!(?error, "a request of the component failed");
    if let Some(failure) = http_client::proxy_failure(error) {
        return match failure.is_transient() {
            true => Error::DestinationUnavailable,
            false => Error::HttpRequestDenied,
        };
    }
    for cause in causes(error) {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return error_of_tls(tls);
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            return error_of_hyper(error);
        }
        if cause.to_string() == "dns error" {
            return Error::DnsError {
                rcode: None,
                info_code: None,
            };
        }
        match cause
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind)
        {
            Some(std::io::ErrorKind::ConnectionRefused) => return Error::ConnectionRefused,
            Some(std::io::ErrorKind::TimedOut) => return Error::ConnectionTimeout,
            _ => {}
        }
    }
    Error::ConnectionTerminated
}

fn error_of_tls(error: &rustls::Error) -> Error {
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            Error::TlsCertificateError
        }
        _ => Error::TlsProtocolError,
    }
}

/// Translates the error of a response body that ended early.
pub(super) fn error_of_body(lost: &BodyLost) -> Error {
    match lost {
        BodyLost::Idle => Error::ConnectionReadTimeout,
        BodyLost::Broken(error) => error_of_hyper(error),
    }
}

fn error_of_hyper(error: &hyper::Error) -> Error {
    if error.is_incomplete_message() {
        Error::HttpResponseIncomplete
    } else if error.is_parse() {
        Error::HttpProtocolError
    } else {
        Error::ConnectionTerminated
    }
}
