//! Says why a server's certificate is not trusted.

use jiff::Timestamp;
use prefix_tar::protocol::failure::CERTIFICATE_NOT_TRUSTED;
use rustls::pki_types::UnixTime;
use rustls::{CertificateError, Error, OtherError};
use std::error::Error as StdError;

/// The reason if no trusted CA has issued the certificate.
pub(crate) const UNKNOWN_ISSUER: &str = "its issuer is unknown";

/// The reason if a server presents a CA's certificate as its own.
pub(crate) const IS_OF_CA: &str = "it is a CA's own";

/// The reason if no trusted CA has signed it, although one has the issuer's name.
pub(crate) const WRONG_SIGNATURE: &str = "a signature is wrong";

/// What to do about a certificate that no trusted CA has issued.
const PRIVATE_ISSUER_HINT: &str =
    "if it is self-signed or a private CA has issued it, name it or the CA with --ca-file";

/// The most names of a certificate that a message shows.
const NAMES_SHOWN_MAX: usize = 4;

/// The longest host name.
const NAME_BYTES_MAX: usize = 253;

/// What the user can do if `message` says that a certificate is not trusted because of its issuer. Only some hosts give the
/// reason; the issuer is the usual one.
pub(crate) fn private_issuer_hint(message: &str) -> Option<&'static str> {
    let (_, rest) = message.split_once(CERTIFICATE_NOT_TRUSTED)?;
    let is_of_issuer = rest.strip_prefix(" (").is_none_or(|reason| {
        [UNKNOWN_ISSUER, WRONG_SIGNATURE, IS_OF_CA]
            .iter()
            .any(|private| reason.starts_with(private))
    });
    is_of_issuer.then_some(PRIVATE_ISSUER_HINT)
}

type Cause<'error> = &'error (dyn StdError + 'static);

/// An error and its chain of causes.
pub(crate) fn causes(error: Cause<'_>) -> impl Iterator<Item = Cause<'_>> {
    std::iter::successors(Some(error), |error| next_cause(*error))
}

/// The cause of an error. `source` of an I/O error skips the error that it wraps and returns that
/// error's source.
fn next_cause(error: Cause<'_>) -> Option<Cause<'_>> {
    match error.downcast_ref::<std::io::Error>() {
        None => error.source(),
        Some(error) => error.get_ref().map(|inner| inner as Cause<'_>),
    }
}

/// Why the server's certificate is not trusted, if that is the cause of the error. The text is safe
/// to print, although parts of it come from the server.
pub(crate) fn distrust(error: Cause<'_>) -> Option<String> {
    causes(error)
        .find_map(|cause| cause.downcast_ref::<Error>())
        .and_then(reason)
}

fn reason(error: &Error) -> Option<String> {
    match error {
        Error::NoCertificatesPresented => Some("the server sent none".to_owned()),
        Error::InvalidCertificate(error) => Some(reason_of(error)),
        _ => None,
    }
}

fn reason_of(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("it expired at {}", shown(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("it is not valid before {}", shown(*not_before))
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let expected = expected.to_str();
            let names = names(presented);
            format!("it is valid for {names}, not for {expected}")
        }
        CertificateError::UnknownIssuer => UNKNOWN_ISSUER.to_owned(),
        CertificateError::BadSignature => WRONG_SIGNATURE.to_owned(),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "its signature algorithm is not supported".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for servers".to_owned()
        }
        CertificateError::BadEncoding => "it is malformed".to_owned(),
        // webpki's own error is only reachable as text.
        CertificateError::Other(OtherError(other)) => match other.to_string().as_str() {
            "CaUsedAsEndEntity" => IS_OF_CA.to_owned(),
            other => format!("it is refused: {other}"),
        },
        // What is left carries no data of the server's choice.
        error => format!("it is refused: {error}"),
    }
}

/// A time as it stands in logs: `2026-01-01T00:00:00Z`.
fn shown(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(
        |_| format!("{seconds} s after 1970"),
        |time| time.to_string(),
    )
}

/// The names as a sentence has them. rustls writes them as `DnsName("a.example")` and
/// `IpAddress(127.0.0.1)`.
fn names(presented: &[String]) -> String {
    let mut names: Vec<&str> = presented
        .iter()
        .filter_map(|name| {
            let quoted = name
                .strip_prefix("DnsName(")
                .or_else(|| name.strip_prefix("IpAddress("))?
                .strip_suffix(')')?;
            let name = quoted.trim_matches('"');
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*:".contains(&byte);
            (name.len() <= NAME_BYTES_MAX && name.bytes().all(is_name)).then_some(name)
        })
        .collect();
    if names.is_empty() {
        return "no host name, as it has no subjectAltName for one".to_owned();
    }
    let more = names.len().saturating_sub(NAMES_SHOWN_MAX);
    names.truncate(NAMES_SHOWN_MAX);
    let names = names.join(" and ");
    match more {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}
