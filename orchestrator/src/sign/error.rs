//! [`SignError`]: why a URL could not be signed.

use prefix_tar::protocol::store_answer::is_transient_status;
use std::fmt;

/// Why a URL could not be signed. No message quotes a key, a token or a signed URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The key is not usable for signing.
    #[error(
        "the service-account key is not usable for signing: its private key is not an RSA key in PKCS#8 and PEM"
    )]
    Key,
    /// The request cannot be signed with any credentials.
    #[error("cannot sign a URL for {object}: {problem}")]
    Request {
        /// The object.
        object: String,
        /// What is wrong with the request.
        problem: String,
    },
    /// The environment names no credentials, and the machine has no account.
    #[error(
        "cannot sign a URL for {object}: there are no Google credentials, and no metadata server answers; set GOOGLE_APPLICATION_CREDENTIALS to a service-account key, or run `gcloud auth application-default login --impersonate-service-account=ACCOUNT`"
    )]
    NoCredentials {
        /// The object.
        object: String,
    },
    /// The credentials gave no signature.
    #[error("cannot sign a URL for {object}: {cause}")]
    Credentials {
        /// The object.
        object: String,
        /// What went wrong, and what to do.
        cause: String,
    },
    /// A service that signing needs refused.
    #[error("cannot sign a URL for {object}: {service} answered {status}; {}", service.advice(*status))]
    Refused {
        /// The object.
        object: String,
        /// The service.
        service: Service,
        /// Its answer.
        status: u16,
    },
    /// Google did not answer in time.
    #[error(
        "cannot sign a URL for {object}: Google, which signs for the account, did not answer in {seconds} s"
    )]
    NoAnswer {
        /// The object.
        object: String,
        /// How long the signer waited.
        seconds: u64,
    },
    /// The connection to a service failed.
    #[error("cannot sign a URL for {object}: the connection to {service} failed: {cause}")]
    Connection {
        /// The object.
        object: String,
        /// The service.
        service: Service,
        /// What went wrong.
        cause: String,
    },
}

impl SignError {
    /// Whether a later attempt may succeed.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::NoAnswer { .. } | Self::Connection { .. } => true,
            Self::Refused { status, .. } => is_transient_status(*status),
            Self::Key
            | Self::Request { .. }
            | Self::NoCredentials { .. }
            | Self::Credentials { .. } => false,
        }
    }
}

/// A service that signing needs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Service {
    /// IAM Credentials, which signs for accounts and gives tokens of impersonated ones.
    IamCredentials,
    /// The machine's metadata server.
    Metadata,
    /// A service that gives tokens or identities, by its host.
    Tokens(String),
}

impl Service {
    fn advice(&self, status: u16) -> &'static str {
        match self {
            _ if is_transient_status(status) => "try later",
            Self::IamCredentials if matches!(status, 401 | 403) => {
                "iamcredentials.googleapis.com must be enabled in the project, and the caller needs roles/iam.serviceAccountTokenCreator on the account that signs"
            }
            Self::IamCredentials => "check that the account that signs exists",
            Self::Metadata => "check that the machine has a service account",
            Self::Tokens(_) => "sign in again, or check the file of Google credentials",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IamCredentials => formatter.write_str("Google"),
            Self::Metadata => formatter.write_str("the metadata server"),
            Self::Tokens(host) => formatter.write_str(host),
        }
    }
}
