//! [`Liveness`]: how soon a connection counts as dead if its peer has vanished without closing it.
//!
//! A connection dies silently when a NAT forgets it, a machine is suspended or a cable is pulled:
//! packets vanish, and nothing reports it. HTTP/2 pings notice that, even if a proxy in between
//! still acknowledges the data. For HTTP/1.1, the kernel notices if nothing is acknowledged.

use hyper_util::client::legacy::Builder;
use hyper_util::client::legacy::connect::HttpConnector;
use std::time::Duration;

/// TCP keep-alive probes without an answer after which a connection is closed. Where the kernel
/// knows [`Liveness::unacknowledged_max`], that decides instead.
const KEEPALIVE_PROBES_MAX: u32 = 2;

/// When a connection counts as dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// How long a connection receives nothing until a ping or a keep-alive probe is sent. It is
    /// shorter than any NAT's timeout, so a quiet connection also stays open.
    pub probe_after: Duration,
    /// How long the answer to an HTTP/2 ping may take.
    pub answer_max: Duration,
    /// How long sent data may stay unacknowledged, or the peer's receive window closed. Linux only.
    pub unacknowledged_max: Duration,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            probe_after: Duration::from_secs(10),
            answer_max: Duration::from_secs(10),
            unacknowledged_max: Duration::from_secs(20),
        }
    }
}

impl Liveness {
    /// Sets the options of the connector's sockets.
    pub(crate) fn apply_to_sockets(&self, connector: &mut HttpConnector) {
        connector.set_keepalive(Some(self.probe_after));
        connector.set_keepalive_interval(Some(self.probe_after));
        connector.set_keepalive_retries(Some(KEEPALIVE_PROBES_MAX));
        #[cfg(target_os = "linux")]
        connector.set_tcp_user_timeout(Some(self.unacknowledged_max));
    }

    /// Sets the pings of the client's HTTP/2 connections. The client needs a timer.
    pub(crate) fn apply_to_http2(&self, client: &mut Builder) {
        client
            .http2_keep_alive_interval(self.probe_after)
            .http2_keep_alive_timeout(self.answer_max)
            .http2_keep_alive_while_idle(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use tower_service::Service as _;

    #[tokio::test]
    async fn the_kernel_probes_a_quiet_connection_and_closes_one_that_is_dead() {
        let liveness = Liveness {
            probe_after: Duration::from_secs(7),
            unacknowledged_max: Duration::from_millis(12_345),
            ..Liveness::default()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a socket");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let mut connector = HttpConnector::new();
        liveness.apply_to_sockets(&mut connector);
        let connected = connector.call(url.parse().expect("a URL")).await;
        let connected = connected.expect("a connection").into_inner();
        let socket = SockRef::from(&connected);
        assert!(socket.keepalive().expect("an option"));
        let seconds = Duration::from_secs(7);
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), seconds);
        assert_eq!(socket.tcp_keepalive_interval().expect("an option"), seconds);
        assert_eq!(socket.tcp_keepalive_retries().expect("an option"), 2);
        #[cfg(target_os = "linux")]
        assert_eq!(
            socket.tcp_user_timeout().expect("an option"),
            Some(liveness.unacknowledged_max)
        );
    }
}
