//! Sends HTTP requests, waits for the response's head and translates transport errors.
//!
//! The SDK's `send` passes no request options, so it cannot set timeouts. This calls the outgoing
//! handler directly.

use super::reactor::Readiness;
use crate::engine::retry::retry_after;
use crate::limits::RETRY_AFTER_BYTES_MAX;
use crate::protocol::failure::{
    CERTIFICATE_NOT_TRUSTED, Failure, FailureKind, REQUEST_DENIED, SERVER_UNAVAILABLE,
};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use wasi::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingResponse, Method, OutgoingRequest,
    RequestOptions, Scheme,
};

/// Where a request goes.
pub(super) struct Target<'target> {
    pub(super) is_https: bool,
    pub(super) authority: &'target str,
    pub(super) path_and_query: &'target str,
}

/// The timeouts of a request.
pub(super) struct Timeouts {
    pub(super) connect: Duration,
    pub(super) first_byte: Duration,
    pub(super) between_bytes: Duration,
}

impl Timeouts {
    pub(super) fn to_options(&self) -> RequestOptions {
        let nanoseconds =
            |duration: Duration| Some(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        let options = RequestOptions::new();
        // A host may reject any of them and apply its own.
        let _ = options.set_connect_timeout(nanoseconds(self.connect));
        let _ = options.set_first_byte_timeout(nanoseconds(self.first_byte));
        let _ = options.set_between_bytes_timeout(nanoseconds(self.between_bytes));
        options
    }
}

/// Builds a request; `None` if the host rejects the method or the target as malformed.
pub(super) fn request(
    method: &Method,
    target: &Target<'_>,
    headers: Fields,
) -> Option<OutgoingRequest> {
    let scheme = if target.is_https {
        Scheme::Https
    } else {
        Scheme::Http
    };
    let request = OutgoingRequest::new(headers);
    // A new request is a GET (wasi:http/types), and most stay one. This saves a call to the host.
    if !matches!(method, Method::Get) {
        request.set_method(method).ok()?;
    }
    request.set_scheme(Some(&scheme)).ok()?;
    request.set_authority(Some(target.authority)).ok()?;
    request
        .set_path_with_query(Some(target.path_and_query))
        .ok()?;
    Some(request)
}

/// A response whose head has not arrived yet. Fields drop in this order: WASI requires a pollable
/// to be dropped before its parent.
pub(super) struct PendingResponse {
    readiness: Readiness,
    future: FutureIncomingResponse,
}

impl PendingResponse {
    pub(super) const fn new(future: FutureIncomingResponse) -> Self {
        Self {
            readiness: Readiness::new(),
            future,
        }
    }

    /// The response, if it has arrived. Must not be called again after that.
    pub(super) fn take(&self) -> Option<Result<IncomingResponse, ErrorCode>> {
        self.future.get().map(|taken| {
            taken.unwrap_or_else(|()| {
                Err(ErrorCode::InternalError(Some(
                    "the response was taken twice".to_owned(),
                )))
            })
        })
    }

    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<IncomingResponse, ErrorCode>> {
        loop {
            if let Some(response) = self.take() {
                return Poll::Ready(response);
            }
            if self
                .readiness
                .poll(context, || self.future.subscribe())
                .is_pending()
            {
                return Poll::Pending;
            }
        }
    }
}

/// The first value of a header, if it is UTF-8.
pub(super) fn header(headers: &Fields, name: &str) -> Option<String> {
    headers
        .get(&name.to_owned())
        .into_iter()
        .next()
        .and_then(|value| String::from_utf8(value).ok())
}

/// The wait that a response's Retry-After asks for; `None` if it is absent or malformed.
pub(super) fn parsed_retry_after(headers: &Fields) -> Option<Duration> {
    header(headers, "retry-after")
        .filter(|value| value.len() <= RETRY_AFTER_BYTES_MAX)
        .and_then(|value| retry_after(&value, SystemTime::now()))
}

/// The server that a request goes to.
#[derive(Clone, Copy)]
pub(super) enum Peer {
    Source,
    Store,
}

impl Peer {
    const fn unreachable(self) -> FailureKind {
        match self {
            Self::Source => FailureKind::SourceUnreachable,
            Self::Store => FailureKind::StoreUnreachable,
        }
    }

    const fn timeout(self) -> FailureKind {
        match self {
            Self::Source => FailureKind::SourceTimeout,
            Self::Store => FailureKind::StoreTimeout,
        }
    }
}

/// Translates a transport error. `operation` begins the message: `GET from http://127.0.0.1:8080`.
pub(super) fn transport_failure(peer: Peer, operation: &str, code: &ErrorCode) -> Failure {
    let (reason, is_timeout, is_permanent) = match code {
        ErrorCode::ConnectionRefused => {
            ("the connection was refused; is it running?", false, false)
        }
        ErrorCode::DnsTimeout => ("the DNS lookup timed out", true, false),
        ErrorCode::DnsError(_) | ErrorCode::DestinationNotFound => {
            ("the host name was not found", false, false)
        }
        ErrorCode::ConnectionTimeout => ("the connection timed out", true, false),
        ErrorCode::ConnectionReadTimeout | ErrorCode::HttpResponseTimeout => {
            ("the response timed out", true, false)
        }
        ErrorCode::ConnectionTerminated | ErrorCode::HttpResponseIncomplete => {
            ("the connection was lost", false, false)
        }
        ErrorCode::HttpProtocolError => (
            "the answer is not valid HTTP, or has too many headers; is this the right URL?",
            false,
            false,
        ),
        ErrorCode::TlsCertificateError => (CERTIFICATE_NOT_TRUSTED, false, true),
        ErrorCode::TlsProtocolError | ErrorCode::TlsAlertReceived(_) => {
            ("the TLS handshake failed", false, true)
        }
        ErrorCode::DestinationUnavailable => (SERVER_UNAVAILABLE, false, false),
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => {
            (REQUEST_DENIED, false, true)
        }
        _ => {
            let message = format!("{operation} failed: {code:?}");
            return Failure::transient(peer.unreachable(), message);
        }
    };
    let kind = if is_timeout {
        peer.timeout()
    } else {
        peer.unreachable()
    };
    let message = format!("{operation} failed: {reason}");
    if is_permanent {
        Failure::permanent(kind, message)
    } else {
        Failure::transient(kind, message)
    }
}
