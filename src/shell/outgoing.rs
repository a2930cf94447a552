//! Outgoing HTTP requests, made by hand because the SDK's `send` sets no timeouts: opening them, waiting for
//! the head of their response, and what their errors mean. What the response says is left to the caller.

use super::reactor::Readiness;
use crate::failure::{Failure, FailureKind};
use crate::limits::RETRY_AFTER_BYTES_MAX;
use crate::retry::retry_after;
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

/// How long a request may take.
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
        // A host may refuse to have one of them set; its own timeouts hold then.
        let _ = options.set_connect_timeout(nanoseconds(self.connect));
        let _ = options.set_first_byte_timeout(nanoseconds(self.first_byte));
        let _ = options.set_between_bytes_timeout(nanoseconds(self.between_bytes));
        options
    }
}

/// A request that is not sent yet; `None` where the host takes the method or the target for malformed.
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
    // GET is what a request is made with (wasi:http/types), and most are that: a call to the host less.
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

/// A response whose head is waited for. Fields drop in this order: the wait before what it waits for.
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

    /// The response if it is there. Not to be called again once it was.
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

/// The first value of a header, where it is text.
pub(super) fn header(headers: &Fields, name: &str) -> Option<String> {
    headers
        .get(&name.to_owned())
        .into_iter()
        .next()
        .and_then(|value| String::from_utf8(value).ok())
}

/// What a response's Retry-After asks for, where it has one that can be read.
pub(super) fn stated_retry_after(headers: &Fields) -> Option<Duration> {
    header(headers, "retry-after")
        .filter(|value| value.len() <= RETRY_AFTER_BYTES_MAX)
        .and_then(|value| retry_after(&value, SystemTime::now()))
}

/// Which end of the way a request went to.
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

/// What a transport error means. `tried` is the beginning of the sentence: `GET http://127.0.0.1:8080`.
pub(super) fn transport_failure(peer: Peer, tried: &str, code: &ErrorCode) -> Failure {
    let (what, is_timeout, is_lasting) = match code {
        ErrorCode::ConnectionRefused => {
            ("the connection was refused; is it running?", false, false)
        }
        ErrorCode::DnsTimeout => ("the name look-up timed out", true, false),
        ErrorCode::DnsError(_) | ErrorCode::DestinationNotFound => {
            ("the host name was not found", false, false)
        }
        ErrorCode::ConnectionTimeout => ("no connection in time", true, false),
        ErrorCode::ConnectionReadTimeout | ErrorCode::HttpResponseTimeout => {
            ("no answer in time", true, false)
        }
        ErrorCode::ConnectionTerminated | ErrorCode::HttpResponseIncomplete => {
            ("the connection was lost", false, false)
        }
        ErrorCode::HttpProtocolError => (
            "the answer is no valid HTTP, or has too many headers; is this the right URL?",
            false,
            false,
        ),
        ErrorCode::TlsCertificateError => (
            "its TLS certificate is not trusted; name the CA with --ca-file if it is a private one",
            false,
            true,
        ),
        ErrorCode::TlsProtocolError | ErrorCode::TlsAlertReceived(_) => {
            ("the TLS handshake failed", false, true)
        }
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => (
            "the component may not reach it; where it runs, outbound hosts have to be allowed",
            false,
            true,
        ),
        _ => {
            let message = format!("{tried} failed: {code:?}");
            return Failure::passing(peer.unreachable(), message);
        }
    };
    let kind = if is_timeout {
        peer.timeout()
    } else {
        peer.unreachable()
    };
    let message = format!("{tried} failed: {what}");
    if is_lasting {
        Failure::lasting(kind, message)
    } else {
        Failure::passing(kind, message)
    }
}
