//! [`ProxyFailure`]: why there is no connection through a proxy, and what the user can do.

use super::variables::Proxy;
use crate::tls::causes;
use http::StatusCode;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// There is no connection through a proxy. The text has no credentials.
#[derive(Debug)]
pub(crate) struct ProxyFailure {
    pub(super) proxy: Arc<Proxy>,
    /// The host and port behind the proxy.
    pub(super) target: String,
    pub(super) fault: Fault,
}

/// What a proxy did instead of opening a tunnel.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is no connection to the proxy itself.
    Unreachable(Box<dyn StdError + Send + Sync>),
    /// The connection was lost.
    Lost(io::Error),
    /// It closed the connection.
    Closed,
    /// It did not answer in time.
    Late(Duration),
    /// It answered with more than this many bytes.
    TooLong(usize),
    /// What it answered is not HTTP/1.
    NotHttp,
    /// It sent something through the tunnel before the server was asked for anything.
    Early,
    /// It answered with this status.
    Refused(StatusCode),
}

impl ProxyFailure {
    /// Whether another attempt may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match &self.fault {
            Fault::NotHttp => false,
            Fault::Refused(status) => {
                status.is_server_error()
                    || matches!(
                        *status,
                        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
                    )
            }
            _ => true,
        }
    }

    fn hint(&self) -> String {
        let variable = self.proxy.variable();
        let has_credentials = self.proxy.credentials().is_some();
        match &self.fault {
            Fault::Refused(StatusCode::PROXY_AUTHENTICATION_REQUIRED) if has_credentials => {
                format!("; it does not accept the credentials in {variable}")
            }
            Fault::Refused(StatusCode::PROXY_AUTHENTICATION_REQUIRED) => {
                format!("; {variable} may be http://USER:PASSWORD@HOST:PORT")
            }
            Fault::Refused(status) if status.is_client_error() => {
                "; it may not permit this host or port; NO_PROXY lists the hosts to reach without it"
                    .to_owned()
            }
            Fault::Refused(status) if status.is_server_error() => {
                "; it may not reach this host".to_owned()
            }
            Fault::NotHttp | Fault::Refused(_) => format!("; does {variable} name an HTTP proxy?"),
            _ => String::new(),
        }
    }
}

impl fmt::Display for ProxyFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (proxy, target, hint) = (&self.proxy, &self.target, self.hint());
        let variable = proxy.variable();
        write!(formatter, "the proxy {proxy} ({variable}) ")?;
        match &self.fault {
            Fault::Unreachable(error) => {
                // The connector's own text only names the step that failed.
                let error: &(dyn StdError + 'static) = error.as_ref();
                let cause = causes(error).last().unwrap_or(error);
                write!(formatter, "cannot be reached: {cause}")
            }
            Fault::Lost(error) => {
                write!(formatter, "was lost during CONNECT {target}: {error}")
            }
            Fault::Closed => {
                write!(
                    formatter,
                    "closed the connection without an answer to CONNECT {target}"
                )
            }
            Fault::Late(time_max) => {
                let seconds = time_max.as_secs_f64();
                write!(
                    formatter,
                    "did not answer CONNECT {target} within {seconds} s"
                )
            }
            Fault::TooLong(bytes_max) => {
                write!(
                    formatter,
                    "answered CONNECT {target} with more than {bytes_max} bytes"
                )
            }
            Fault::NotHttp => write!(formatter, "did not answer CONNECT {target} in HTTP/1"),
            Fault::Early => write!(
                formatter,
                "sent data for CONNECT {target} before the server was asked for any"
            ),
            Fault::Refused(status) => {
                write!(
                    formatter,
                    "answered {} to CONNECT {target}",
                    status.as_u16()
                )
            }
        }?;
        formatter.write_str(&hint)
    }
}

impl StdError for ProxyFailure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.fault {
            Fault::Unreachable(error) => Some(error.as_ref()),
            Fault::Lost(error) => Some(error),
            _ => None,
        }
    }
}

/// The failure of a proxy, if that is the cause of an error.
pub(crate) fn failure_in<'error>(
    error: &'error (dyn StdError + 'static),
) -> Option<&'error ProxyFailure> {
    causes(error).find_map(|cause| cause.downcast_ref())
}
