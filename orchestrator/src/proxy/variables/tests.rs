//! What each variable means, and that no message shows a password.

use super::*;
use proptest::prelude::*;

fn error_of(name: &'static str, value: &str) -> Option<String> {
    let variable = |asked: &str| (asked == name).then(|| value.into());
    Environment::read(variable)
        .err()
        .map(|error| error.to_string())
}

fn shown(proxy: Option<&Arc<Proxy>>) -> String {
    proxy.map_or_else(String::new, |proxy| format!("{} {proxy}", proxy.variable()))
}

#[test]
fn lower_case_comes_first_the_scheme_before_all_and_an_empty_variable_is_absent() {
    for (variables, https, http) in [
        (&[][..], "", ""),
        (
            &[
                ("HTTPS_PROXY", "a:1"),
                ("https_proxy", "b:2"),
                ("all_proxy", "c:3"),
            ],
            "https_proxy http://b:2",
            "all_proxy http://c:3",
        ),
        (
            &[("ALL_PROXY", "a:1"), ("HTTP_PROXY", "b:2")],
            "ALL_PROXY http://a:1",
            "HTTP_PROXY http://b:2",
        ),
        (
            &[("https_proxy", ""), ("HTTPS_PROXY", "a:1")],
            "HTTPS_PROXY http://a:1",
            "",
        ),
        // A client of a CGI program sets HTTP_PROXY with the header `Proxy`.
        (&[("HTTP_PROXY", "a:1"), ("REQUEST_METHOD", "GET")], "", ""),
        (
            &[("http_proxy", "a:1"), ("REQUEST_METHOD", "GET")],
            "",
            "http_proxy http://a:1",
        ),
    ] {
        let environment = Environment::of(variables);
        assert_eq!(shown(environment.proxy(true)), https, "{variables:?}");
        assert_eq!(shown(environment.proxy(false)), http, "{variables:?}");
    }
}

#[test]
fn a_proxy_is_a_host_with_or_without_scheme_port_and_credentials() {
    for (text, url, has_credentials) in [
        ("proxy.example", "http://proxy.example:80", false),
        ("proxy.example:3128", "http://proxy.example:3128", false),
        (
            "HTTP://proxy.example:3128/",
            "http://proxy.example:3128",
            false,
        ),
        ("http://[::1]:3128", "http://[::1]:3128", false),
        ("http://[::1]", "http://[::1]:80", false),
        ("http://u:p@proxy.example:1", "http://proxy.example:1", true),
        ("u:p@proxy.example", "http://proxy.example:80", true),
        ("u:p@ss@proxy.example", "http://proxy.example:80", true),
    ] {
        let environment = Environment::of(&[("HTTPS_PROXY", text)]);
        let proxy = environment.proxy(true).expect("a proxy");
        assert_eq!(proxy.to_string(), url, "{text}");
        assert_eq!(proxy.credentials().is_some(), has_credentials, "{text}");
        assert_eq!(proxy.uri().to_string(), format!("{url}/"));
    }
}

#[test]
fn what_is_no_proxy_is_refused_with_the_reason() {
    let form = "HTTPS_PROXY is not usable: it is not of the form http://HOST:PORT or http://USER:PASSWORD@HOST:PORT";
    for text in [
        "http://",
        ":3128",
        "http://proxy.example:",
        "http://proxy.example:0",
        "http://proxy.example:65536",
        "http://proxy.example:3128/path",
        "http://proxy example",
        "http://user:pa/ss@proxy.example:3128",
        "http://user:12/ss@proxy.example:3128",
        "ftp://proxy.example",
        "5ec4e7://proxy.example",
    ] {
        assert_eq!(
            error_of("HTTPS_PROXY", text).as_deref(),
            Some(form),
            "{text}"
        );
    }
    assert_eq!(
        error_of("all_proxy", "socks5://127.0.0.1:9050").as_deref(),
        Some(
            "all_proxy is not usable: its scheme is socks5, and only proxies over http are supported"
        )
    );
    assert_eq!(
        error_of("HTTP_PROXY", "http://user:a%0Ab@proxy.example").as_deref(),
        Some("HTTP_PROXY is not usable: its user name or password has a control character")
    );
    // Another variable decides.
    assert_eq!(error_of("FTP_PROXY", "socks5://127.0.0.1:9050"), None);
}

proptest! {
    #[test]
    fn no_message_and_no_debug_output_shows_a_password(
        scheme in "(|http://|https://|socks5://|x://)",
        password in "[g-z]{6}",
        odd in "[ -~]{0,4}",
        host in "(proxy.example|\\[::1\\]|)(:[0-9]{1,6})?",
    ) {
        let value = format!("{scheme}user:{odd}{password}@{host}");
        let variable = |name: &str| (name == "https_proxy").then(|| value.clone().into());
        let shown = match Environment::read(variable) {
            Ok(environment) => format!("{environment:?} {}", shown(environment.proxy(true))),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!shown.contains(&password), "{shown}");
    }
}
