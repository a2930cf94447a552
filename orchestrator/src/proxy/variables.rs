//! [`Environment`]: what the variables of the environment say about proxies.

use super::credentials::Credentials;
use super::no_proxy::NoProxy;
use http::Uri;
use prefix_tar::protocol::authority::Authority;
use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

/// The port of a proxy whose variable names none: that of its scheme. curl would take 1080.
const PORT_DEFAULT: u16 = 80;

/// The variables for `https://` in the order of precedence.
const HTTPS_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// The variables for `http://`.
const HTTP_VARIABLES: [&str; 4] = ["http_proxy", CGI_VARIABLE, "all_proxy", "ALL_PROXY"];

/// Who calls a CGI program chooses its variables that begin with `HTTP_`: it would choose the proxy.
const CGI_VARIABLE: &str = "HTTP_PROXY";

/// What such a program has.
const IS_CGI_VARIABLE: &str = "REQUEST_METHOD";

/// The variables with the hosts that are reached without a proxy.
const EXEMPT_VARIABLES: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// Schemes of proxies that curl has. Only these are repeated in a message.
const OTHER_SCHEMES: [&str; 5] = ["https", "socks4", "socks4a", "socks5", "socks5h"];

/// A variable does not name a usable proxy. The message does not show its value, which may have a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} is not usable: {fault}")]
pub(crate) struct ProxyVariableError {
    variable: &'static str,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("it is not of the form http://HOST:PORT or http://USER:PASSWORD@HOST:PORT")]
    Form,
    #[error("its scheme is {0}, and only proxies over http are supported")]
    Scheme(&'static str),
    #[error("its user name or password has a control character")]
    Credentials,
}

/// A proxy over HTTP. Displayed without its credentials.
#[derive(Debug)]
pub(super) struct Proxy {
    variable: &'static str,
    authority: String,
    uri: Uri,
    credentials: Option<Credentials>,
}

impl fmt::Display for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "http://{}", self.authority)
    }
}

impl Proxy {
    /// Reads the value of a variable.
    fn parse(variable: &'static str, text: &str) -> Result<Self, Fault> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        if !scheme.eq_ignore_ascii_case("http") {
            let mut others = OTHER_SCHEMES.into_iter();
            let other = others.find(|other| other.eq_ignore_ascii_case(scheme));
            return Err(other.map_or(Fault::Form, Fault::Scheme));
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user_information, host_and_port) = match rest.rsplit_once('@') {
            Some((user_information, rest)) => (Some(user_information), rest),
            None => (None, rest),
        };
        // A password with a raw slash would make its beginning the host.
        if user_information.is_some_and(|text| text.contains(['/', '?', '#'])) {
            return Err(Fault::Form);
        }
        let authority = with_port(host_and_port).ok_or(Fault::Form)?;
        let uri = format!("http://{authority}/").parse();
        let credentials = user_information
            .map(|text| Credentials::of_user_information(text).ok_or(Fault::Credentials));
        Ok(Self {
            variable,
            uri: uri.map_err(|_| Fault::Form)?,
            authority,
            credentials: credentials.transpose()?,
        })
    }

    /// The variable that names it.
    pub(super) const fn variable(&self) -> &'static str {
        self.variable
    }

    /// The URL to connect to.
    pub(super) const fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(super) const fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }
}

/// A host and its port, or the default one. `None` if the text is anything else.
fn with_port(text: &str) -> Option<String> {
    let authority: Authority = text.parse().ok()?;
    let port = match text.get(authority.host().len()..)? {
        "" => PORT_DEFAULT,
        port => port.strip_prefix(':')?.parse().ok()?,
    };
    (port > 0).then(|| format!("{}:{port}", authority.host()))
}

/// The proxies, and who is reached without them.
#[derive(Debug, Default)]
pub(super) struct Environment {
    http: Option<Arc<Proxy>>,
    https: Option<Arc<Proxy>>,
    exempt: NoProxy,
}

impl Environment {
    /// Reads the variables. An empty one counts as absent.
    ///
    /// # Errors
    /// One of those that decide does not name a usable proxy.
    pub(super) fn read(
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ProxyVariableError> {
        let is_cgi = variable(IS_CGI_VARIABLE).is_some();
        let first_of = |names: &[&'static str]| {
            let mut set = names
                .iter()
                .filter_map(|name| Some((*name, variable(name).filter(|text| !text.is_empty())?)));
            set.find(|(name, _)| !(is_cgi && *name == CGI_VARIABLE))
        };
        let proxy = |names: &[&'static str]| {
            let Some((variable, text)) = first_of(names) else {
                return Ok(None);
            };
            let parsed = match text.to_str() {
                Some(text) => Proxy::parse(variable, text),
                None => Err(Fault::Form),
            };
            let parsed = parsed.map_err(|fault| ProxyVariableError { variable, fault })?;
            Ok(Some(Arc::new(parsed)))
        };
        let exempt = first_of(&EXEMPT_VARIABLES).map(|(_, text)| text);
        Ok(Self {
            https: proxy(&HTTPS_VARIABLES)?,
            http: proxy(&HTTP_VARIABLES)?,
            exempt: NoProxy::parse(&exempt.unwrap_or_default().to_string_lossy()),
        })
    }

    /// The proxy for a scheme.
    pub(super) const fn proxy(&self, is_https: bool) -> Option<&Arc<Proxy>> {
        if is_https {
            self.https.as_ref()
        } else {
            self.http.as_ref()
        }
    }

    /// Whether a host is reached without a proxy.
    pub(super) fn exempts(&self, host: &str, port: u16) -> bool {
        self.exempt.matches(host, port)
    }
}

#[cfg(test)]
impl Environment {
    /// The environment of these variables, which is usable.
    pub(super) fn of(variables: &[(&str, &str)]) -> Self {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).into())
        };
        Self::read(variable).expect("usable")
    }
}

#[cfg(test)]
mod tests;
