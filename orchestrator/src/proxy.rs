//! [`Proxies`]: which proxy of the environment a request goes through, if any.
//!
//! The variables mean what they mean to curl: `https://` goes through CONNECT, `http://` in absolute form, because
//! proxies permit CONNECT to few ports, and 80 is rarely one. Two kinds of requests never use a proxy, whatever the
//! environment says, unless they go to the source: those to this machine, where our own servers listen, and those over
//! plain HTTP, which carry a token or a signature that only this machine or the local network may see.
//!
//! Why so, and why not with hyper-util's matcher: `docs/decisions/0010-proxies.md`.

mod connector;
mod credentials;
mod failure;
mod no_proxy;
mod tunnel;
mod variables;

pub(crate) use connector::ProxyConnector;
pub(crate) use failure::{ProxyFailure, failure_in};
pub(crate) use variables::ProxyVariableError;

use crate::origin::Origin;
use http::header::PROXY_AUTHORIZATION;
use http::uri::Scheme;
use http::{Request, Uri};
use prefix_tar::protocol::authority::Authority;
use std::sync::{Arc, OnceLock};
use variables::{Environment, Proxy};

/// What to do if a proxy answers 407 in the place of a server.
pub(crate) const CREDENTIALS_HINT: &str =
    "a proxy wants credentials; HTTP_PROXY may be http://USER:PASSWORD@HOST:PORT";

/// The proxies of this process, once the command line has asked for them.
static OF_PROCESS: OnceLock<Result<Arc<Environment>, ProxyVariableError>> = OnceLock::new();

/// Makes the clients of this process use the proxies of its environment. Without this, they use none: the demo is
/// offline, and a test must not depend on who runs it.
pub(crate) fn use_environment() {
    OF_PROCESS.get_or_init(|| Environment::read(|name| std::env::var_os(name)).map(Arc::new));
}

/// The proxies of one client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    environment: Arc<Environment>,
    /// Where requests carry nothing secret.
    sources: Arc<[Origin]>,
}

/// How a request reaches its server.
#[derive(Clone, Debug)]
enum Route {
    Direct,
    /// As a request to the proxy.
    Forwarded(Arc<Proxy>),
    /// Through a connection that the proxy makes.
    Tunneled(Arc<Proxy>),
}

impl Proxies {
    /// The proxies of a client that asks `sources`, and other servers with a secret.
    ///
    /// # Errors
    /// A variable of the environment does not name a usable proxy.
    pub(crate) fn of_process(sources: &[Origin]) -> Result<Self, ProxyVariableError> {
        let environment = OF_PROCESS.get().cloned().transpose()?;
        Ok(Self::new(environment.unwrap_or_default(), sources))
    }

    fn new(environment: Arc<Environment>, sources: &[Origin]) -> Self {
        Self {
            environment,
            sources: sources.into(),
        }
    }

    /// Adds the credentials that the proxy wants of a request, if the request itself goes to a proxy.
    pub(crate) fn authorize<B>(&self, request: &mut Request<B>) {
        if let Route::Forwarded(proxy) = self.route(request.uri())
            && let Some(credentials) = proxy.credentials()
        {
            let value = credentials.expose_secret().clone();
            request.headers_mut().insert(PROXY_AUTHORIZATION, value);
        }
    }

    fn route(&self, uri: &Uri) -> Route {
        let is_https = uri.scheme() == Some(&Scheme::HTTPS);
        let proxy = self.environment.proxy(is_https);
        let Some(proxy) = proxy.filter(|_| self.may_be_proxied(uri, is_https)) else {
            return Route::Direct;
        };
        match is_https {
            true => Route::Tunneled(Arc::clone(proxy)),
            false => Route::Forwarded(Arc::clone(proxy)),
        }
    }

    fn may_be_proxied(&self, uri: &Uri, is_https: bool) -> bool {
        let Some(authority) = uri.authority() else {
            return false;
        };
        let is_of_source = self.sources.iter().any(|source| source.contains(uri));
        let is_open = || is_https && !is_loopback(authority.as_str());
        let port = authority.port_u16().unwrap_or(default_port(is_https));
        (is_of_source || is_open()) && !self.environment.exempts(authority.host(), port)
    }
}

/// The port of a URL that names none.
const fn default_port(is_https: bool) -> u16 {
    if is_https { 443 } else { 80 }
}

fn is_loopback(authority: &str) -> bool {
    let authority = authority.parse();
    authority.is_ok_and(|authority: Authority| authority.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client of the source `http://127.0.0.1:8080`.
    fn proxies(variables: &'static [(&str, &str)]) -> Proxies {
        let source = Origin::new(false, "127.0.0.1:8080");
        Proxies::new(Arc::new(Environment::of(variables)), &[source])
    }

    fn shown(proxies: &Proxies, url: &'static str) -> String {
        match proxies.route(&Uri::from_static(url)) {
            Route::Direct => "direct".to_owned(),
            Route::Forwarded(proxy) => format!("forwarded by {proxy}"),
            Route::Tunneled(proxy) => format!("tunneled by {proxy}"),
        }
    }

    #[test]
    fn a_request_takes_the_proxy_of_its_scheme() {
        let proxies = proxies(&[
            ("HTTP_PROXY", "plain.example:1"),
            ("https_proxy", "http://tls.example:2/"),
            ("NO_PROXY", "storage.googleapis.com, .corp.example"),
        ]);
        for (url, route) in [
            (
                "https://api.pwnedpasswords.com/range/AB7FF",
                "tunneled by http://tls.example:2",
            ),
            (
                "http://127.0.0.1:8080/range/AB7FF",
                "forwarded by http://plain.example:1",
            ),
            ("https://storage.googleapis.com/bucket/AB.tar", "direct"),
            ("https://mirror.corp.example:8443/", "direct"),
        ] {
            assert_eq!(shown(&proxies, url), route, "{url}");
        }
        assert_eq!(shown(&Proxies::default(), "https://a.example/"), "direct");
    }

    #[test]
    fn our_own_servers_and_secrets_in_plain_text_never_meet_a_proxy() {
        let proxies = proxies(&[("ALL_PROXY", "http://proxy.example:3128")]);
        for url in [
            "http://127.0.0.1:9000/bucket/AB.tar",
            "http://localhost:3000/",
            "https://localhost:9443/bucket/AB.tar",
            "https://[::1]:9443/",
            "http://metadata.google.internal/computeMetadata/v1/",
            "http://169.254.169.254/latest/api/token",
            "http://prefix-tar.default.svc.cluster.local/",
        ] {
            assert_eq!(shown(&proxies, url), "direct", "{url}");
        }
    }

    #[test]
    fn only_a_request_to_a_proxy_carries_its_credentials() {
        let proxies = proxies(&[("ALL_PROXY", "http://mirror:5ec4e7@proxy.example:3128")]);
        let value = |url: &'static str| {
            let mut request = Request::get(url).body(()).expect("a request");
            proxies.authorize(&mut request);
            request.headers_mut().remove(PROXY_AUTHORIZATION)
        };
        let sent = value("http://127.0.0.1:8080/range/AB7FF").expect("credentials");
        assert_eq!(sent, "Basic bWlycm9yOjVlYzRlNw==");
        assert!(sent.is_sensitive());
        // CONNECT carries them; the server behind the tunnel must not get them.
        assert_eq!(value("https://api.pwnedpasswords.com/range/AB7FF"), None);
        assert_eq!(value("http://127.0.0.1:9000/bucket/AB.tar"), None);
        let shown = format!("{proxies:?}");
        assert!(shown.contains("proxy.example:3128"), "{shown}");
        for secret in ["5ec4e7", "bWlycm9yOjVlYzRlNw"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
