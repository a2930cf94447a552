//! Builds the canonical request, whose digest a V4 signature signs.

use crate::error::StoreError;
use http::{HeaderMap, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::collections::BTreeMap;

/// The characters that a canonical query escapes: all but RFC 3986's unreserved ones.
const QUERY_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The characters that a canonical path escapes. It keeps its slashes.
const PATH_ESCAPED: &AsciiSet = &QUERY_ESCAPED.remove(b'/');

/// The form in which the `host` header is signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HostForm {
    WithoutPort,
    AsSent,
}

/// The parts of a request that are signed.
pub(super) struct CanonicalRequest<'request> {
    pub(super) method: &'request Method,
    /// The path as sent, percent-encoded.
    pub(super) path: &'request str,
    /// The decoded query parameters, with the signature among them.
    pub(super) parameters: &'request BTreeMap<String, String>,
    /// The names of the signed headers, joined by semicolons.
    pub(super) signed_names: &'request str,
    pub(super) headers: &'request HeaderMap,
}

impl CanonicalRequest<'_> {
    /// The canonical request as text.
    pub(super) fn text(&self, host: HostForm) -> Result<String, StoreError> {
        let path = percent_decode_str(self.path)
            .decode_utf8()
            .map_err(|_| StoreError::InvalidArgument("the path is not UTF-8"))?;
        let path = utf8_percent_encode(&path, PATH_ESCAPED);
        let mut headers = String::new();
        for name in self.signed_names.split(';') {
            let value = self.header_value(name, host)?;
            headers.push_str(&format!("{name}:{value}\n"));
        }
        let payload = match self.headers.get("x-goog-content-sha256") {
            Some(value) => value
                .to_str()
                .map_err(|_| StoreError::MalformedSecurityHeader)?,
            None => "UNSIGNED-PAYLOAD",
        };
        Ok(format!(
            "{}\n{path}\n{}\n{headers}\n{}\n{payload}",
            self.method,
            self.query(),
            self.signed_names
        ))
    }

    /// The query without the signature, sorted by name and then by value. The joined `name=value`
    /// would sort differently: `a-b=1` before `a=1`.
    fn query(&self) -> String {
        let encode = |text| utf8_percent_encode(text, QUERY_ESCAPED).to_string();
        let mut pairs: Vec<(String, String)> = self
            .parameters
            .iter()
            .filter(|(name, _)| name.as_str() != "X-Goog-Signature")
            .map(|(name, value)| (encode(name), encode(value)))
            .collect();
        pairs.sort_unstable();
        let pairs: Vec<String> = pairs
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join("&")
    }

    /// A header's values, trimmed and joined by commas, with one space for each run of white space.
    fn header_value(&self, name: &str, host: HostForm) -> Result<String, StoreError> {
        let mut values = Vec::new();
        for value in self.headers.get_all(name) {
            let text = value
                .to_str()
                .map_err(|_| StoreError::MalformedSecurityHeader)?;
            values.push(text.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        let value = values.join(",");
        if name != "host" || host == HostForm::AsSent {
            return Ok(value);
        }
        let without_port = match value.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &value,
        };
        Ok(without_port.to_owned())
    }
}
