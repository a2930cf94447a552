use super::*;
use bytes::Bytes;
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use std::net::IpAddr;
use std::pin::Pin;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// The longest that a test waits for anything.
const DEADLINE: Duration = Duration::from_secs(30);

/// A time that no test reaches.
const NEVER: Duration = Duration::from_secs(3600);

async fn listener() -> TcpListener {
    TcpListener::bind(("0.0.0.0", 0)).await.expect("a port")
}

/// Serves at once and without reading any body.
async fn answering(limits: ServerLimits) -> HttpServer {
    HttpServer::start_with(limits, listener().await, None, |_request| async {
        let mut response = Response::new(Full::new(Bytes::from_static(b"answered")));
        let close = http::HeaderValue::from_static("close");
        response.headers_mut().insert("connection", close);
        response
    })
    .expect("a server")
}

/// A connection to a server from an address of this machine.
async fn connect_from(address: [u8; 4], server: &HttpServer) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((address, 0).into()).expect("bound");
    let to = (IpAddr::from([127, 0, 0, 1]), server.address().port());
    socket.connect(to.into()).await.expect("connected")
}

async fn connect(server: &HttpServer) -> TcpStream {
    connect_from([127, 0, 0, 1], server).await
}

/// What arrives until the other side closes.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut bytes))
        .await
        .expect("closed in time")
        .expect("not reset");
    String::from_utf8_lossy(&bytes).into_owned()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const STALLED_PUT: &[u8] = b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 310000000\r\n\r\nx";

#[tokio::test]
async fn a_request_that_is_answered_before_its_body_is_answered_at_once() {
    let server = answering(ServerLimits {
        linger_max: NEVER,
        ..ServerLimits::default()
    })
    .await;
    let mut stream = connect(&server).await;
    stream.write_all(STALLED_PUT).await.expect("sent");
    // The end of the answer comes at once, too, although the server still listens.
    let answer = read_all(&mut stream).await;
    assert!(answer.ends_with("answered"), "{answer}");
    stream.write_all(b"more").await.expect("still read");
}

#[tokio::test]
async fn a_client_that_looks_at_the_answer_only_after_its_body_still_sees_it() {
    let server = answering(ServerLimits {
        linger_max: DEADLINE,
        ..ServerLimits::default()
    })
    .await;
    let mut stream = connect(&server).await;
    let head = b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 12000000\r\n\r\n";
    stream.write_all(head).await.expect("sent");
    let body = vec![0; 12_000_000];
    stream.write_all(&body).await.expect("the body is read");
    let answer = read_all(&mut stream).await;
    assert!(answer.ends_with("answered"), "{answer}");
}

#[tokio::test]
async fn a_client_that_sends_without_end_is_cut_off() {
    let server = answering(ServerLimits {
        linger_max: NEVER,
        ..ServerLimits::default()
    })
    .await;
    let mut stream = connect(&server).await;
    stream.write_all(STALLED_PUT).await.expect("sent");
    let body = vec![0; 1024 * 1024];
    let sent = timeout(DEADLINE, async {
        while stream.write_all(&body).await.is_ok() {}
    });
    sent.await.expect("the server stopped reading");
}

#[tokio::test]
async fn a_client_that_falls_silent_after_the_answer_is_left_in_time() {
    let server = answering(ServerLimits {
        linger_max: Duration::from_millis(50),
        ..ServerLimits::default()
    })
    .await;
    let mut stream = connect(&server).await;
    stream.write_all(STALLED_PUT).await.expect("sent");
    read_all(&mut stream).await;
    let body = vec![0; 64 * 1024];
    let left = timeout(DEADLINE, async {
        // A reset answers what is sent to a closed socket.
        while stream.write_all(&body[..1]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    left.await.expect("closed");
}

#[tokio::test]
async fn silent_and_stalled_connections_do_not_keep_out_a_request_of_the_same_peer() {
    let server = answering(ServerLimits {
        connections_per_peer: 4,
        head_timeout: NEVER,
        admission_timeout: DEADLINE,
        ..ServerLimits::default()
    })
    .await;
    let mut others = Vec::new();
    for index in 0..64 {
        let mut stream = connect(&server).await;
        let sent: &[u8] = match index % 3 {
            0 => b"",
            1 => b"PUT / HTTP/1.1\r\n",
            _ => STALLED_PUT,
        };
        stream.write_all(sent).await.expect("sent");
        others.push(stream);
    }
    let mut stream = connect(&server).await;
    stream.write_all(GET).await.expect("sent");
    let started = Instant::now();
    let answer = read_all(&mut stream).await;
    assert!(answer.ends_with("answered"), "{answer}");
    // 43 connections make room four at a time, after a tenth of a second each.
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_peer_that_holds_its_share_keeps_out_itself_and_nobody_else() {
    let (started, mut starts) = mpsc::channel(8);
    let finish = CancellationToken::new();
    let finished = finish.clone();
    let limits = ServerLimits {
        connections_per_peer: 2,
        admission_timeout: Duration::from_millis(50),
        ..ServerLimits::default()
    };
    let server = HttpServer::start_with(limits, listener().await, None, move |request| {
        let (started, finished) = (started.clone(), finished.clone());
        async move {
            if request.uri().path() == "/slow" {
                started.send(()).await.expect("the test waits");
                finished.cancelled().await;
            }
            let mut response = Response::new(Full::new(Bytes::from_static(b"answered")));
            let close = http::HeaderValue::from_static("close");
            response.headers_mut().insert("connection", close);
            response
        }
    })
    .expect("a server");
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&server).await;
        let request = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(request).await.expect("sent");
        starts.recv().await.expect("begun");
        slow.push(stream);
    }
    let mut third = connect(&server).await;
    let refused = read_all(&mut third).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(
        refused.ends_with("\r\n\r\ntoo many connections from this address now"),
        "{refused}"
    );
    let mut other = connect_from([127, 0, 0, 2], &server).await;
    other.write_all(GET).await.expect("sent");
    assert!(read_all(&mut other).await.ends_with("answered"));
    finish.cancel();
    for stream in &mut slow {
        assert!(read_all(stream).await.ends_with("answered"));
    }
    let mut after = connect(&server).await;
    after.write_all(GET).await.expect("sent");
    assert!(read_all(&mut after).await.ends_with("answered"));
}

/// Says on a channel that it was dropped.
struct Dropped(mpsc::Sender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.try_send(()).expect("room");
    }
}

#[tokio::test]
async fn a_peer_that_stops_reading_is_given_up() {
    let (dropped, mut drops) = mpsc::channel(1);
    let limits = ServerLimits {
        write_stall_max: Duration::from_millis(50),
        ..ServerLimits::default()
    };
    type Endless = Pin<Box<dyn Body<Data = Bytes, Error = Infallible> + Send>>;
    let server = HttpServer::start_with(limits, listener().await, None, move |_request| {
        let guard = Dropped(dropped.clone());
        let frames = std::iter::from_fn(move || {
            let _kept = &guard;
            Some(Ok(Frame::data(Bytes::from_static(&[0; 65536]))))
        });
        let body: Endless = Box::pin(StreamBody::new(futures::stream::iter(frames)));
        async { Response::new(body) }
    })
    .expect("a server");
    let mut stream = connect(&server).await;
    stream.write_all(GET).await.expect("sent");
    let given_up = timeout(DEADLINE, drops.recv()).await;
    given_up.expect("given up").expect("a signal");
}

/// Answers every request, and keeps HTTP/1.1 connections open.
async fn keeping_open(limits: ServerLimits, identity: Option<Arc<TlsIdentity>>) -> HttpServer {
    HttpServer::start_with(limits, listener().await, identity, |_request| async {
        Response::new(Full::new(Bytes::from(vec![b'x'; 1024 * 1024])))
    })
    .expect("a server")
}

/// Waits until a connection is closed, with or without a reset.
async fn is_closed(stream: &mut TcpStream) {
    let mut bytes = vec![0; 65536];
    let closed = timeout(DEADLINE, async {
        while let Ok(1..) = stream.read(&mut bytes).await {}
    });
    closed.await.expect("closed in time");
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame without a payload: settings, or their acknowledgement.
const fn empty_frame(kind: u8, flags: u8) -> [u8; 9] {
    [0, 0, 0, kind, flags, 0, 0, 0, 0]
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_in_time_whatever_it_speaks() {
    let limits = ServerLimits {
        head_timeout: Duration::from_millis(50),
        ..ServerLimits::default()
    };
    let server = keeping_open(limits, None).await;
    let mut http2 = PREFACE.to_vec();
    http2.extend(empty_frame(4, 0));
    let begun: [&[u8]; 5] = [
        b"",
        b"PRI",
        &PREFACE[..20],
        b"GET / HTTP/1.1\r\nx: ",
        &http2,
    ];
    for sent in begun {
        let mut stream = connect(&server).await;
        stream.write_all(sent).await.expect("sent");
        is_closed(&mut stream).await;
    }
}

#[tokio::test]
async fn an_http2_peer_that_takes_nothing_of_an_answer_is_left() {
    let limits = ServerLimits {
        write_stall_max: Duration::from_millis(50),
        head_timeout: Duration::from_millis(500),
        ..ServerLimits::default()
    };
    let server = keeping_open(limits, None).await;
    let mut stream = connect(&server).await;
    // Its window stays at 64 KiB, which is less than the answer. The connection itself is read on.
    let mut sent = PREFACE.to_vec();
    sent.extend(empty_frame(4, 0));
    sent.extend(empty_frame(4, 1));
    // GET / for http://x: indices of HPACK's static table, and a literal authority.
    let headers = [0x82, 0x86, 0x84, 0x41, 0x01, b'x'];
    sent.extend([0, 0, headers.len() as u8, 1, 5, 0, 0, 0, 1]);
    sent.extend(headers);
    stream.write_all(&sent).await.expect("sent");
    is_closed(&mut stream).await;
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_begin_is_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    std::fs::write(&certificate, pair.cert.pem()).expect("written");
    std::fs::write(&key, pair.signing_key.serialize_pem()).expect("written");
    let identity = TlsIdentity::read(certificate, key).expect("an identity");
    let limits = ServerLimits {
        handshake_timeout: Duration::from_millis(50),
        head_timeout: NEVER,
        ..ServerLimits::default()
    };
    let server = keeping_open(limits, Some(Arc::new(identity))).await;
    for sent in [&b""[..], &[22, 3, 1]] {
        let mut stream = connect(&server).await;
        stream.write_all(sent).await.expect("sent");
        is_closed(&mut stream).await;
    }
}
