//! [`ServerVerifier`]: verifies a server's certificate by its issuer, or as one that the CA file
//! holds itself.
//!
//! webpki trusts what a CA has issued, but refuses a CA's certificate that a server presents as its
//! own. Plain `openssl req -x509` makes such a certificate. curl accepts it if the CA file has it.

use der::asn1::{GeneralizedTime, UtcTime};
use der::{Reader, SliceReader, Tag};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Verifies servers' certificates.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    roots: RootCertStore,
    /// The certificates of the CA file. A server may present one of them as its own.
    named: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    /// Trusts what `roots` have issued, and the certificates `named` themselves.
    pub(super) const fn new(
        roots: RootCertStore,
        named: Vec<CertificateDer<'static>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self {
            roots,
            named,
            algorithms,
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let issued = verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        );
        match issued {
            Err(error) if is_about_issuer(&error) && self.named.contains(end_entity) => {
                check_validity(end_entity, now)?;
            }
            issued => issued?,
        }
        verify_server_name(&certificate, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether the error is about who issued the certificate, rather than about its validity or purpose.
fn is_about_issuer(error: &Error) -> bool {
    let Error::InvalidCertificate(error) = error else {
        return false;
    };
    matches!(
        error,
        CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
            // webpki's `CaUsedAsEndEntity` is one of the others.
            | CertificateError::Other(_)
    )
}

/// Checks that `now` is within the certificate's validity.
fn check_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (not_before, not_after) =
        validity(certificate).map_err(|_| CertificateError::BadEncoding)?;
    if now < not_before {
        let time = now;
        return Err(CertificateError::NotValidYetContext { time, not_before }.into());
    }
    if now > not_after {
        let time = now;
        return Err(CertificateError::ExpiredContext { time, not_after }.into());
    }
    Ok(())
}

/// Reads `notBefore` and `notAfter` (RFC 5280, 4.1).
fn validity(certificate: &[u8]) -> der::Result<(UnixTime, UnixTime)> {
    SliceReader::new(certificate)?.sequence(|certificate| {
        let validity = certificate.sequence(|body| {
            // An optional version, the serial number, the signature algorithm and the issuer.
            if body.peek_tag()?.is_context_specific() {
                body.tlv_bytes()?;
            }
            for _ in 0..3 {
                body.tlv_bytes()?;
            }
            let validity = body.sequence(|validity| Ok((time(validity)?, time(validity)?)))?;
            body.read_slice(body.remaining_len())?;
            Ok(validity)
        })?;
        certificate.read_slice(certificate.remaining_len())?;
        Ok(validity)
    })
}

fn time<'bytes>(reader: &mut impl Reader<'bytes>) -> der::Result<UnixTime> {
    let since_epoch = match reader.peek_tag()? {
        Tag::UtcTime => reader.decode::<UtcTime>()?.to_unix_duration(),
        _ => reader.decode::<GeneralizedTime>()?.to_unix_duration(),
    };
    Ok(UnixTime::since_unix_epoch(since_epoch))
}

#[cfg(test)]
mod tests;
