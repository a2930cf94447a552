//! Sends the HTTP requests that signing needs, over the program's own client.

use super::SignError;
use super::error::Service;
use crate::http_client::{self, HttpClient};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use prefix_tar::protocol::authority::Authority;
use reqsign_core::{Context, FileRead, HttpSend, OsEnv};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

/// From the first byte of a request to the last byte of its answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);

/// An answer or a file, in bytes. Tokens of other clouds have a few KB.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where reqsign expects IAM Credentials.
const IAM_CREDENTIALS_HOST: &str = "iamcredentials.googleapis.com";

/// Where reqsign expects tokens for users.
const TOKEN_HOST: &str = "oauth2.googleapis.com";

/// Where the metadata server is unless `GCE_METADATA_HOST` says otherwise.
const METADATA_HOST: &str = "metadata.google.internal";

/// EC2's metadata server. On IPv4 it is link-local.
const EC2_METADATA_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Where the services are. These environment variables are gcloud's and the client libraries' own;
/// the first two are for Private Service Connect.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    /// Replaces `https://iamcredentials.googleapis.com`, without a slash at the end.
    pub(super) iam_credentials: Option<String>,
    /// Replaces `https://oauth2.googleapis.com/token`.
    pub(super) token: Option<String>,
    /// The metadata server's host and port.
    pub(super) metadata: String,
}

impl Endpoints {
    pub(super) fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let base = variable("CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS");
        Self {
            iam_credentials: base.map(|base| base.trim_end_matches('/').to_owned()),
            token: variable("CLOUDSDK_AUTH_TOKEN_HOST"),
            metadata: variable("GCE_METADATA_HOST").unwrap_or_else(|| METADATA_HOST.to_owned()),
        }
    }

    /// The service that a request is for, and the URL to send it to.
    fn route(&self, uri: &Uri) -> Result<(Service, Uri), Failure> {
        let authority = uri.authority().map_or("", http::uri::Authority::as_str);
        if authority == self.metadata && uri.path().starts_with("/computeMetadata/") {
            return Ok((Service::Metadata, uri.clone()));
        }
        let is_of_iam =
            uri.path().ends_with(":signBlob") || uri.path().ends_with(":generateAccessToken");
        let service = if is_of_iam {
            Service::IamCredentials
        } else {
            Service::Tokens(uri.host().unwrap_or_default().to_owned())
        };
        let replaced = match (authority, &self.iam_credentials, &self.token) {
            (IAM_CREDENTIALS_HOST, Some(base), _) => Some(format!("{base}{}", uri.path())),
            (TOKEN_HOST, _, Some(url)) => Some(url.clone()),
            _ => None,
        };
        let routed = replaced.map_or_else(|| Ok(uri.clone()), |url| url.parse());
        let routed = routed.map_err(|_| Failure::Url(service.clone()))?;
        if routed.scheme_str() == Some("https") || may_be_plain(&routed) {
            Ok((service, routed))
        } else {
            Err(Failure::Url(service))
        }
    }
}

/// Whether a token may be sent there unencrypted: loopback, or the link-local address of a cloud's
/// metadata server.
fn may_be_plain(uri: &Uri) -> bool {
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let is_loopback = authority
        .parse()
        .is_ok_and(|authority: Authority| authority.is_loopback());
    let host = uri.host().unwrap_or_default();
    let is_link_local = match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(address)) => address.is_link_local(),
        Ok(IpAddr::V6(address)) => address == EC2_METADATA_ADDRESS,
        Err(_) => false,
    };
    is_loopback || is_link_local
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Its URL is not valid, or not one that a token may be sent to.
    Url(Service),
    Refused(Service, StatusCode),
    Timeout(Service),
    Connection(Service, String),
    /// The answer is too large.
    TooLarge(Service),
}

impl Failure {
    /// Whether there seems to be no metadata server, or none with an account.
    pub(super) fn is_missing_account(&self) -> bool {
        match self {
            Self::Connection(service, _) | Self::Timeout(service) => *service == Service::Metadata,
            Self::Refused(service, status) => {
                *service == Service::Metadata && *status == StatusCode::NOT_FOUND
            }
            Self::Url(_) | Self::TooLarge(_) => false,
        }
    }

    pub(super) fn into_error(self, object: &str) -> SignError {
        let object = object.to_owned();
        match self {
            Self::Url(service) => SignError::Credentials {
                object,
                cause: format!("the URL of {service} is not a valid https URL"),
            },
            Self::Refused(service, status) => SignError::Refused {
                object,
                service,
                status: status.as_u16(),
            },
            Self::Timeout(_) => SignError::NoAnswer {
                object,
                seconds: ANSWER_TIME_MAX.as_secs(),
            },
            Self::Connection(service, cause) => SignError::Connection {
                object,
                service,
                cause,
            },
            Self::TooLarge(service) => SignError::Credentials {
                object,
                cause: format!("{service} sent more than {ANSWER_BYTES_MAX} bytes"),
            },
        }
    }
}

/// The client and the services' endpoints.
#[derive(Debug)]
pub(super) struct Google {
    pub(super) http: HttpClient,
    pub(super) endpoints: Endpoints,
}

impl Google {
    async fn answer(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Failure> {
        let (mut head, body) = request.into_parts();
        let (service, uri) = self.endpoints.route(&head.uri)?;
        head.uri = uri;
        let request = Request::from_parts(head, Full::new(body));
        match tokio::time::timeout(ANSWER_TIME_MAX, self.read(&service, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Timeout(service)),
        }
    }

    async fn read(
        &self,
        service: &Service,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, Failure> {
        let lease = self.http.lease();
        let response = lease.request(request).await;
        let response = response
            .map_err(|error| Failure::Connection(service.clone(), http_client::cause(&error)))?;
        if response.status() != StatusCode::OK {
            return Err(Failure::Refused(service.clone(), response.status()));
        }
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX);
        let body = lease.watch(body.collect()).await;
        let body = body.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                Failure::TooLarge(service.clone())
            } else {
                Failure::Connection(service.clone(), error.to_string())
            }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

/// The requests of one attempt at a signature. reqsign drops the causes of some failures, so the
/// last one is kept here. Only 200s reach reqsign, because it logs other bodies.
#[derive(Clone)]
pub(super) struct Exchange {
    google: Arc<Google>,
    failure: Arc<Mutex<Option<Failure>>>,
}

impl Exchange {
    pub(super) fn new(google: Arc<Google>) -> Self {
        Self {
            google,
            failure: Arc::default(),
        }
    }

    /// Where reqsign looks for credentials.
    pub(super) fn context(&self) -> Context {
        Context::new()
            .with_file_read(Files)
            .with_http_send(self.clone())
            .with_env(OsEnv)
    }

    /// The last request failure, if any.
    pub(super) fn take_failure(&self) -> Option<Failure> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take()
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Exchange")
    }
}

impl HttpSend for Exchange {
    async fn http_send(&self, request: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        let answer = self.google.answer(request).await;
        answer.map_err(|failure| {
            let mut last = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some(failure);
            reqsign_core::Error::unexpected("a request failed")
        })
    }
}

/// Reads the files that credentials name.
#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        let unreadable = |cause: String| {
            reqsign_core::Error::config_invalid(format!("cannot read {path}: {cause}"))
        };
        let file = tokio::fs::File::open(path).await;
        let file = file.map_err(|error| unreadable(error.to_string()))?;
        let mut text = Vec::new();
        let mut start = file.take(ANSWER_BYTES_MAX as u64 + 1);
        let read = start.read_to_end(&mut text).await;
        read.map_err(|error| unreadable(error.to_string()))?;
        if text.len() > ANSWER_BYTES_MAX {
            return Err(unreadable(format!(
                "it has more than {ANSWER_BYTES_MAX} bytes"
            )));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_unencrypted_to_loopback_and_metadata_servers_only() {
        let may_be_plain = |url: &'static str| may_be_plain(&Uri::from_static(url));
        for url in [
            "http://127.0.0.1:9000/token",
            "http://[::1]/token",
            "http://localhost:80/token",
            "http://169.254.169.254/metadata/identity/oauth2/token",
            "http://[fd00:ec2::254]/latest/api/token",
        ] {
            assert!(may_be_plain(url), "{url}");
        }
        for url in [
            "http://iamcredentials.googleapis.com/",
            "http://10.0.0.1/",
            "http://[fd00::1]/",
            "http://127.0.0.1.example/",
            "http://169.254.169.254.example/",
        ] {
            assert!(!may_be_plain(url), "{url}");
        }
    }

    #[test]
    fn the_variables_of_gcloud_move_googles_services_and_no_others() {
        let endpoints = Endpoints {
            iam_credentials: Some("https://iam.p.googleapis.com/base".to_owned()),
            token: Some("https://tokens.p.googleapis.com/token".to_owned()),
            metadata: "metadata.google.internal".to_owned(),
        };
        for (url, service, routed) in [
            (
                "https://iamcredentials.googleapis.com/v1/a:signBlob",
                Service::IamCredentials,
                "https://iam.p.googleapis.com/base/v1/a:signBlob",
            ),
            (
                "https://oauth2.googleapis.com/token",
                Service::Tokens("oauth2.googleapis.com".to_owned()),
                "https://tokens.p.googleapis.com/token",
            ),
            (
                "https://sts.googleapis.com/v1/token",
                Service::Tokens("sts.googleapis.com".to_owned()),
                "https://sts.googleapis.com/v1/token",
            ),
            (
                "http://metadata.google.internal/computeMetadata/v1/a",
                Service::Metadata,
                "http://metadata.google.internal/computeMetadata/v1/a",
            ),
        ] {
            let found = endpoints.route(&Uri::from_static(url)).expect("a route");
            assert_eq!(found, (service, Uri::from_static(routed)));
        }
    }
}
