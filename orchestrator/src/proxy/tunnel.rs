//! Opens a tunnel: CONNECT to a proxy, and its answer, within bounds of time and size (RFC 9110, 9.3.6).

use super::failure::Fault;
use super::variables::Proxy;
use http::StatusCode;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The head of a proxy's answer, in bytes. Proxies send a few hundred.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// How an answer begins, before the minor version.
const HTTP_1: &[u8] = b"HTTP/1.";

/// The end of a head.
const END: &[u8] = b"\r\n\r\n";

/// Who asks.
const AGENT: &str = concat!("prefix-tar/", env!("CARGO_PKG_VERSION"));

/// Has a proxy connect `stream` to `target`, a host and a port, in at most `time_max`.
pub(super) async fn open(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &Proxy,
    target: &str,
    time_max: Duration,
) -> Result<(), Fault> {
    let exchange = async {
        let head = request(proxy, target);
        stream.write_all(&head).await.map_err(Fault::Lost)?;
        read_answer(stream).await
    };
    let status = tokio::time::timeout(time_max, exchange)
        .await
        .unwrap_or(Err(Fault::Late(time_max)))?;
    match status.is_success() {
        true => Ok(()),
        false => Err(Fault::Refused(status)),
    }
}

fn request(proxy: &Proxy, target: &str) -> Vec<u8> {
    let mut head =
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {AGENT}\r\n")
            .into_bytes();
    if let Some(credentials) = proxy.credentials() {
        head.extend_from_slice(b"Proxy-Authorization: ");
        head.extend_from_slice(credentials.expose_secret().as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Reads the head of the answer. What follows a success is the tunnel's.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<StatusCode, Fault> {
    let mut head = [0; HEAD_BYTES_MAX];
    let mut filled = 0;
    loop {
        let free = head.get_mut(filled..).unwrap_or_default();
        let read = stream.read(free).await.map_err(Fault::Lost)?;
        // Where the end may begin: in what was read before.
        let from = filled.saturating_sub(END.len() - 1);
        filled += read;
        let received = head.get(..filled).unwrap_or_default();
        if received
            .iter()
            .zip(HTTP_1)
            .any(|(byte, expected)| byte != expected)
        {
            return Err(Fault::NotHttp);
        }
        let mut ends = received.get(from..).unwrap_or_default().windows(END.len());
        if let Some(end) = ends.position(|bytes| bytes == END) {
            let status = status_of(received).ok_or(Fault::NotHttp)?;
            let is_early = from + end + END.len() < filled;
            return match status.is_success() && is_early {
                true => Err(Fault::Early),
                false => Ok(status),
            };
        }
        match read {
            0 if filled == HEAD_BYTES_MAX => return Err(Fault::TooLong(HEAD_BYTES_MAX)),
            0 => return Err(Fault::Closed),
            _ => {}
        }
    }
}

/// The status in a head that begins with [`HTTP_1`].
fn status_of(head: &[u8]) -> Option<StatusCode> {
    let rest = head.get(HTTP_1.len()..)?;
    let [minor, b' ', status @ ..] = rest else {
        return None;
    };
    let (status, after) = status.split_first_chunk::<3>()?;
    let is_line = minor.is_ascii_digit() && matches!(after.first(), Some(b' ' | b'\r'));
    StatusCode::from_bytes(status).ok().filter(|_| is_line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::variables::Environment;
    use crate::proxy::{ProxyFailure, failure_in};
    use std::sync::Arc;

    const TARGET: &str = "source.example:443";

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(60);

    fn proxy(value: &str) -> Arc<Proxy> {
        let environment = Environment::of(&[("HTTPS_PROXY", value)]);
        Arc::clone(environment.proxy(true).expect("a proxy"))
    }

    /// The message of a failure; empty if there is a tunnel.
    fn message(value: &str, opened: Result<(), Fault>) -> String {
        let Err(fault) = opened else {
            return String::new();
        };
        let target = TARGET.to_owned();
        let proxy = proxy(value);
        let failure = ProxyFailure {
            proxy,
            target,
            fault,
        };
        let error = std::io::Error::other(failure);
        failure_in(&error).expect("a proxy's").to_string()
    }

    /// What becomes of an answer that arrives in these pieces, after which the proxy closes.
    async fn answered(value: &str, pieces: &[&str]) -> String {
        let (mut near, mut far) = tokio::io::duplex(64);
        let pieces: Vec<String> = pieces.iter().map(|piece| (*piece).to_owned()).collect();
        let answering = tokio::spawn(async move {
            let mut request = vec![0; 1024];
            let mut filled = 0;
            while !request[..filled].ends_with(END) {
                filled += far.read(&mut request[filled..]).await.expect("a request");
            }
            for piece in pieces {
                // The client may have had enough.
                let _ = far.write_all(piece.as_bytes()).await;
            }
        });
        let opened = open(&mut near, &proxy(value), TARGET, LONG).await;
        drop(near);
        answering.await.expect("answered");
        message(value, opened)
    }

    #[tokio::test]
    async fn a_success_opens_the_tunnel_however_it_is_cut() {
        for answer in [
            "HTTP/1.1 200 Connection established\r\n\r\n",
            "HTTP/1.0 200\r\nProxy-Agent: a\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ] {
            assert_eq!(answered("a:1", &[answer]).await, "");
            let bytes: Vec<String> = answer.chars().map(String::from).collect();
            let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
            assert_eq!(answered("a:1", &bytes).await, "");
        }
    }

    #[tokio::test]
    async fn every_other_answer_is_named_with_what_to_do() {
        let endless = "x: y\r\n".repeat(HEAD_BYTES_MAX);
        let proxy = "the proxy http://a:1 (HTTPS_PROXY)";
        for (value, pieces, expected) in [
            (
                "a:1",
                &["HTTP/1.1 407 Proxy Authentication Required\r\n\r\n<html>"][..],
                "answered 407 to CONNECT source.example:443; HTTPS_PROXY may be http://USER:PASSWORD@HOST:PORT",
            ),
            (
                "user:5ec4e7@a:1",
                &["HTTP/1.1 407 No\r\n\r\n"],
                "answered 407 to CONNECT source.example:443; it does not accept the credentials in HTTPS_PROXY",
            ),
            (
                "a:1",
                &["HTTP/1.0 403 Filtered\r\n\r\n"],
                "answered 403 to CONNECT source.example:443; it may not permit this host or port; NO_PROXY lists the hosts to reach without it",
            ),
            (
                "a:1",
                &["HTTP/1.1 502 Bad Gateway\r\n\r\n"],
                "answered 502 to CONNECT source.example:443; it may not reach this host",
            ),
            (
                "a:1",
                &["HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n"],
                "answered 302 to CONNECT source.example:443; does HTTPS_PROXY name an HTTP proxy?",
            ),
            (
                "a:1",
                &[],
                "closed the connection without an answer to CONNECT source.example:443",
            ),
            (
                "a:1",
                &["HTTP/1.1 200 OK\r\n"],
                "closed the connection without an answer to CONNECT source.example:443",
            ),
            (
                "a:1",
                &["HTTP/1.1 200 OK\r\n", &endless],
                "answered CONNECT source.example:443 with more than 8192 bytes",
            ),
            (
                "a:1",
                &["HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x"],
                "sent data for CONNECT source.example:443 before the server was asked for any",
            ),
            (
                "a:1",
                &["SSH-2.0-OpenSSH_9.2\r\n"],
                "did not answer CONNECT source.example:443 in HTTP/1; does HTTPS_PROXY name an HTTP proxy?",
            ),
            (
                "a:1",
                &["HTTP/1.1 2000 OK\r\n\r\n"],
                "did not answer CONNECT source.example:443 in HTTP/1; does HTTPS_PROXY name an HTTP proxy?",
            ),
        ] {
            let shown = answered(value, pieces).await;
            assert_eq!(shown, format!("{proxy} {expected}"), "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn a_proxy_that_says_nothing_or_too_little_is_not_waited_for() {
        let time_max = Duration::from_millis(20);
        let late = "the proxy http://a:1 (HTTPS_PROXY) did not answer CONNECT source.example:443 within 0.02 s";
        for said in ["", "HTTP/1.1 200 OK\r\n"] {
            let (mut near, mut far) = tokio::io::duplex(1024);
            far.write_all(said.as_bytes()).await.expect("said");
            let opened = open(&mut near, &proxy("a:1"), TARGET, time_max).await;
            assert_eq!(message("a:1", opened), late);
        }
    }

    #[tokio::test]
    async fn only_a_refusal_is_permanent() {
        for (fault, is_transient) in [
            (Fault::Refused(StatusCode::FORBIDDEN), false),
            (
                Fault::Refused(StatusCode::PROXY_AUTHENTICATION_REQUIRED),
                false,
            ),
            (Fault::NotHttp, false),
            (Fault::Refused(StatusCode::BAD_GATEWAY), true),
            (Fault::Refused(StatusCode::TOO_MANY_REQUESTS), true),
            (Fault::Late(LONG), true),
            (Fault::Closed, true),
        ] {
            let (proxy, target) = (proxy("a:1"), TARGET.to_owned());
            let failure = ProxyFailure {
                proxy,
                target,
                fault,
            };
            assert_eq!(failure.is_transient(), is_transient, "{failure}");
        }
    }

    #[test]
    fn the_request_names_the_server_and_carries_the_credentials() {
        let head = request(&proxy("user:5ec4e7@a:1"), "[::1]:443");
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\nUser-Agent: prefix-tar/{version}\r\n\
             Proxy-Authorization: Basic dXNlcjo1ZWM0ZTc=\r\n\r\n"
        );
        assert_eq!(String::from_utf8(head).expect("text"), expected);
    }
}
