//! `store` answers like GCS, over a real socket, to requests that the orchestrator signs.

use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::{output, texts};
use crate::harness::store_program::StoreProgram;
use crate::harness::{DEADLINE, fetch, files_of};
use bytes::Bytes;
use emulator::key::ServiceAccountKey;
use emulator::permissions::{Permissions, Role};
use emulator::signature::Verifier;
use emulator::{Buckets, Emulator};
use http::{Method, Request, Response};
use http_body_util::Full;
use orchestrator::destination::folder::serve;
use orchestrator::http_server::HttpServer;
use orchestrator::sign::UrlSigner;
use prefix_tar::protocol::signed_url::SignedUrl;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;
use tokio::net::TcpListener;

struct Store {
    server: HttpServer,
    signer: UrlSigner,
    key: ServiceAccountKey,
    folder: tempfile::TempDir,
}

impl Store {
    async fn start() -> Self {
        Self::permitting(Permissions::ALL).await
    }

    async fn permitting(permissions: Permissions) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("bucket")).expect("a bucket");
        let key = ServiceAccountKey::generate().expect("a key");
        let buckets = Buckets::In(folder.path().to_owned());
        let verifier = Verifier::trusting(&key).expect("a verifier");
        let store = Emulator::with_permissions(buckets, verifier, permissions);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let server = serve(listener, store).expect("a server");
        let endpoint = format!("http://{}", server.address());
        Self {
            signer: UrlSigner::new(&key, endpoint, "bucket".to_owned()).expect("a signer"),
            key,
            server,
            folder,
        }
    }

    async fn sign(&self, method: &Method, object: &str, headers: &[(&str, &str)]) -> SignedUrl {
        let headers: BTreeMap<String, String> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        self.signer
            .sign(method.clone(), object, &headers, Duration::from_secs(60))
            .await
            .expect("signed")
    }

    /// Signs and sends. `unsigned` headers are sent without being signed.
    async fn ask(
        &self,
        method: Method,
        object: &str,
        body: &'static str,
        signed: &[(&str, &str)],
        unsigned: &[(&str, &str)],
    ) -> Response<Bytes> {
        let url = self.sign(&method, object, signed).await;
        let mut request = Request::builder().method(method).uri(url.expose_secret());
        for (name, value) in signed.iter().chain(unsigned) {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::from_static(body.as_bytes()));
        fetch(request.body(body).expect("a request")).await
    }

    async fn put(
        &self,
        object: &str,
        body: &'static str,
        signed: &[(&str, &str)],
    ) -> Response<Bytes> {
        self.ask(Method::PUT, object, body, signed, &[]).await
    }

    fn files(&self) -> Vec<String> {
        crate::harness::files_of(&self.folder.path().join("bucket"))
            .into_keys()
            .collect()
    }

    /// Sends raw bytes and reads the answer to its end. If `is_cut`, the client ends its side of
    /// the connection after the bytes.
    fn send_raw(&self, request: &str, is_cut: bool) -> String {
        let mut stream = TcpStream::connect(self.server.address()).expect("connected");
        stream.write_all(request.as_bytes()).expect("sent");
        if is_cut {
            stream
                .shutdown(std::net::Shutdown::Write)
                .expect("half closed");
        }
        let mut answer = String::new();
        // A connection that is reset has no more to say.
        let _ = stream.read_to_string(&mut answer);
        answer
    }
}

fn code(response: &Response<Bytes>) -> (u16, String) {
    let text = String::from_utf8_lossy(response.body()).into_owned();
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .map_or("", |(code, _)| code);
    (response.status().as_u16(), code.to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_put_looked_at_read_in_parts_and_deleted() {
    let store = Store::start().await;
    let name = "a path/Ä+%.tar";
    let put = store
        .put(name, "123456789", &[("content-type", "application/x-tar")])
        .await;
    assert_eq!(put.status(), 200);
    assert_eq!(put.headers()["x-goog-hash"], "crc32c=4waSgw==");
    let generation = put.headers()["x-goog-generation"].clone();

    let head = store.ask(Method::HEAD, name, "", &[], &[]).await;
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers()["content-length"], "9");
    assert_eq!(head.headers()["x-goog-generation"], generation);
    assert_eq!(head.headers()["x-goog-hash"], put.headers()["x-goog-hash"]);
    assert_eq!(head.headers()["etag"], put.headers()["etag"]);

    let get = store.ask(Method::GET, name, "", &[], &[]).await;
    assert_eq!(get.body(), "123456789");
    let part = store
        .ask(Method::GET, name, "", &[], &[("range", "bytes=2-4")])
        .await;
    assert_eq!(part.status(), 206);
    assert_eq!(part.body(), "345");
    assert_eq!(part.headers()["content-range"], "bytes 2-4/9");
    let beyond = store
        .ask(Method::GET, name, "", &[], &[("range", "bytes=9-")])
        .await;
    assert_eq!(code(&beyond), refused(416, "InvalidRange"));

    let deleted = store.ask(Method::DELETE, name, "", &[], &[]).await;
    assert_eq!(deleted.status(), 204);
    let gone = store.ask(Method::GET, name, "", &[], &[]).await;
    assert_eq!(code(&gone), refused(404, "NoSuchKey"));
}

/// Valid object names with characters that are special in a URL, a shell or an XML document.
const ODD_NAMES: [&str; 12] = [
    "a b.tar",
    "a+b.tar",
    "100%.tar",
    "100%25.tar",
    "\u{e4}/\u{65e5}\u{672c}.tar",
    "a?b=c&d.tar",
    "a#b.tar",
    "a;b,c.tar",
    "a'b\"c<d>.tar",
    "~a!b(c)*.tar",
    "a|b^`{}[].tar",
    "a:b@c$d.tar",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_good_for_its_method_its_object_and_its_headers_whatever_the_object_is_called()
 {
    let store = Store::start().await;
    let extra = [
        ("x-goog-meta-note", "  two   spaces, \"quotes\" "),
        ("x-goog-storage-class", "NEARLINE"),
        ("cache-control", "public, max-age=3600"),
        ("content-type", "application/x-tar"),
    ];
    for name in ODD_NAMES {
        let put = store.put(name, "123456789", &extra).await;
        assert_eq!(put.status(), 200, "PUT of {name}: {:?}", put.body());
        let meta = [("x-goog-meta-asked", "by whom")];
        let head = store.ask(Method::HEAD, name, "", &meta, &[]).await;
        assert_eq!(head.status(), 200, "HEAD of {name}");
        assert_eq!(head.headers()["content-length"], "9", "{name}");
        let get = store.ask(Method::GET, name, "", &meta, &[]).await;
        assert_eq!(
            (get.status().as_u16(), &get.body()[..]),
            (200, &b"123456789"[..]),
            "GET of {name}"
        );

        // A URL for one method is none for another, and a URL for one object is none for its neighbour.
        let url = store.sign(&Method::GET, name, &[]).await;
        let put = Request::put(url.expose_secret()).body(Full::from("x"));
        let put = fetch(put.expect("a request")).await;
        assert_eq!(code(&put), refused(403, "SignatureDoesNotMatch"), "{name}");
        let neighbour = url.expose_secret().replacen(".tar?", ".tas?", 1);
        let get = Request::get(neighbour).body(Full::default());
        let get = fetch(get.expect("a request")).await;
        assert_eq!(code(&get), refused(403, "SignatureDoesNotMatch"), "{name}");
        let later = url.expose_secret().replacen("Expires=60", "Expires=61", 1);
        let get = Request::get(later).body(Full::default());
        let get = fetch(get.expect("a request")).await;
        assert_eq!(code(&get), refused(403, "SignatureDoesNotMatch"), "{name}");

        let deleted = store.ask(Method::DELETE, name, "", &[], &[]).await;
        assert_eq!(deleted.status(), 204, "DELETE of {name}");
        let gone = store.ask(Method::GET, name, "", &[], &[]).await;
        assert_eq!(code(&gone), refused(404, "NoSuchKey"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_checksums_are_kept() {
    let store = Store::start().await;
    let create = [("x-goog-if-generation-match", "0")];
    let first = store.put("x", "1", &create).await;
    assert_eq!(first.status(), 200);
    let again = store.put("x", "2", &create).await;
    assert_eq!(code(&again), refused(412, "PreconditionFailed"));
    let generation = first.headers()["x-goog-generation"].to_str().expect("text");
    let over = store
        .put("x", "2", &[("x-goog-if-generation-match", generation)])
        .await;
    assert_eq!(over.status(), 200);

    let wrong = store
        .put("y", "1", &[("x-goog-hash", "crc32c=AAAAAA==")])
        .await;
    assert_eq!(code(&wrong), refused(400, "BadDigest"));
    let md5 = ("content-md5", "xMpCOKC5I4INzFCab3WEmw==");
    assert_eq!(store.put("x", "1", &[md5]).await.status(), 200);
    let wrong = store.put("y", "2", &[md5]).await;
    assert_eq!(code(&wrong), refused(400, "BadDigest"));
    let malformed = store.put("y", "1", &[("content-md5", "1")]).await;
    assert_eq!(code(&malformed), refused(400, "InvalidDigest"));
    let ignored = store.put("x", "2", &[("if-none-match", "*")]).await;
    assert_eq!(code(&ignored), refused(400, "InvalidArgument"));
    let long = store
        .put("y", "1234", &[("x-goog-content-length-range", "0,3")])
        .await;
    assert_eq!(code(&long), refused(400, "EntityTooLarge"));
    assert_eq!(store.files(), ["x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_create_objects_replaces_none_and_keeps_to_its_own_conditions() {
    let store = Store::permitting(Permissions::of_roles(&[Role::ObjectCreator])).await;
    let another = [("x-goog-if-generation-match", "5")];
    let put = store.put("x", "1", &another).await;
    assert_eq!(code(&put), refused(412, "PreconditionFailed"));
    assert_eq!(store.put("x", "1", &[]).await.status(), 200);
    for signed in [&[][..], &another, &[("x-goog-if-generation-match", "0")]] {
        let put = store.put("x", "2", signed).await;
        assert_eq!(code(&put), refused(403, "AccessDenied"));
    }
    for method in [Method::GET, Method::DELETE] {
        let answer = store.ask(method, "x", "", &[], &[]).await;
        assert_eq!(code(&answer), refused(403, "AccessDenied"));
    }
    assert_eq!(store.files(), ["x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_is_refused() {
    let store = Store::start().await;
    let unsigned = format!("http://{}/bucket/x", store.server.address());
    let request = Request::put(unsigned)
        .body(Full::default())
        .expect("a request");
    assert_eq!(code(&fetch(request).await), refused(403, "AccessDenied"));
    let extra = store
        .ask(
            Method::PUT,
            "x",
            "1",
            &[],
            &[("content-type", "text/plain")],
        )
        .await;
    assert_eq!(code(&extra), refused(400, "MalformedSecurityHeader"));
    for name in ["../x", "a/../x", ".prefix-tar-upload-x"] {
        let refusal = store.put(name, "1", &[]).await;
        assert_eq!(refusal.status().as_u16() / 100, 4, "{name}");
    }
    assert_eq!(store.files(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_length_or_short_of_it_leaves_nothing() {
    let store = Store::start().await;
    let url = store.sign(&Method::PUT, "x", &[]).await;
    let target = url.expose_path_and_query();
    let head = format!("PUT {target} HTTP/1.1\r\nhost: {}\r\n", url.authority());
    let chunked = format!(
        "{head}transfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    );
    let chunked = store.send_raw(&chunked, false);
    assert!(chunked.starts_with("HTTP/1.1 411"), "{chunked}");
    assert!(chunked.contains("MissingContentLength"), "{chunked}");
    store.send_raw(&format!("{head}content-length: 100\r\n\r\nonly this"), true);
    assert_eq!(store.files(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_nobody_signed_and_that_stall_delay_nobody() {
    /// More than one peer's share of 256 connections, and few enough for 1,024 files.
    const STALLED: usize = 300;
    let store = Store::start().await;
    let head = format!(
        "PUT /bucket/x HTTP/1.1\r\nhost: {}\r\ncontent-length: 310000000\r\n\r\nx",
        store.server.address()
    );
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut stream = TcpStream::connect(store.server.address()).expect("connected");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream.write_all(head.as_bytes()).expect("sent");
        stalled.push(stream);
    }
    let put = tokio::time::timeout(Duration::from_secs(10), store.put("signed", "1", &[])).await;
    assert_eq!(put.expect("in time").status(), 200);
    for stream in &mut stalled {
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("answered and closed");
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(store.files(), ["signed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_a_pipe_or_a_folder_is_no_object_for_any_method() {
    let store = Store::start().await;
    let outside = tempfile::tempdir().expect("a folder");
    let target = outside.path().join("target");
    std::fs::write(&target, "kept").expect("written");
    let bucket = store.folder.path().join("bucket");
    std::os::unix::fs::symlink(&target, bucket.join("link")).expect("a link");
    std::os::unix::fs::symlink(outside.path().join("new"), bucket.join("dangling"))
        .expect("a link");
    std::fs::create_dir(bucket.join("folder")).expect("a folder");
    let made = std::process::Command::new("mkfifo")
        .arg(bucket.join("pipe"))
        .status();
    assert!(made.expect("mkfifo").success());
    for (name, kind) in [
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
        ("folder", "a folder"),
        ("pipe", "a named pipe"),
    ] {
        for method in [Method::PUT, Method::GET, Method::DELETE] {
            let asked = store.ask(method.clone(), name, "1", &[], &[]);
            let answer = tokio::time::timeout(DEADLINE, asked)
                .await
                .expect("answered");
            assert_eq!(code(&answer), refused(409, "NotAFile"), "{method} {name}");
            let text = String::from_utf8_lossy(answer.body()).into_owned();
            assert!(
                text.contains(&format!("{name} is {kind}, not a file")),
                "{text}"
            );
        }
        let head = store.ask(Method::HEAD, name, "", &[], &[]).await;
        assert_eq!(head.status(), 409, "HEAD {name}");
    }
    assert_eq!(std::fs::read(&target).expect("read"), b"kept");
    assert_eq!(std::fs::read_dir(outside.path()).expect("read").count(), 1);
    assert!(bucket.join("link").is_symlink() && bucket.join("dangling").is_symlink());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_of_all_buckets_is_no_bucket() {
    let store = Store::start().await;
    let file = store.folder.path().join("bucket/x");
    std::fs::write(&file, "1").expect("written");
    let endpoint = format!("http://{}", store.server.address());
    for bucket in ["", ".", ".."] {
        let signer = UrlSigner::new(&store.key, endpoint.clone(), bucket.to_owned());
        let headers = BTreeMap::new();
        let signed = signer.expect("a signer");
        for (method, object) in [(Method::GET, "bucket/x"), (Method::PUT, "y")] {
            let url = signed
                .sign(method.clone(), object, &headers, Duration::from_secs(60))
                .await
                .expect("signed");
            let request = Request::builder()
                .method(method.clone())
                .uri(url.expose_secret());
            let answer = fetch(request.body(Full::default()).expect("a request")).await;
            let refusal = code(&answer);
            assert_eq!(
                refusal,
                refused(404, "NoSuchBucket"),
                "{method} in {bucket:?}"
            );
        }
    }
    assert_eq!(
        std::fs::read_dir(store.folder.path())
            .expect("read")
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_into_a_store_that_discards_tars_is_complete_and_resumed() {
    let source = FaultySource::start(|range| body_of(range, 5), |_, _| None).await;
    let store = StoreProgram::start_with(&["--discard"]);
    let run = async |prefixes: &str| {
        let source = source.url().to_string();
        let mut run = store.command(&["run", "--source", &source, "--to"], "archive");
        run.args(["-p", prefixes]);
        let run = output(run).await;
        assert_eq!(run.status.code(), Some(0), "{}", texts(&run));
        texts(&run)
    };
    run("2").await;
    let names = || -> Vec<String> { files_of(&store.archive("archive")).into_keys().collect() };
    assert_eq!(
        names(),
        [
            "00.json",
            "01.json",
            "manifest.json",
            "measurements.json",
            "run.json"
        ],
        "no tar is kept"
    );

    let printed = run("3").await;
    assert!(
        printed.contains("skipped 2 prefixes stored by an earlier run"),
        "{printed}"
    );
    assert!(printed.contains("stored 1 prefix"), "{printed}");

    // A tar without its report is read back, which is impossible here, so it is mirrored again.
    std::fs::remove_file(store.archive("archive").join("01.json")).expect("removed");
    let printed = run("3").await;
    assert!(printed.contains("skipped 2 prefixes"), "{printed}");
    assert!(printed.contains("stored 1 prefix"), "{printed}");

    let verify = output(store.command(&["verify"], "archive")).await;
    let printed = texts(&verify);
    assert_eq!(verify.status.code(), Some(3), "{printed}");
    assert!(printed.contains("ContentDiscarded"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_copied_by_generation_and_only_if_the_conditions_hold() {
    let store = Store::start().await;
    let put = store.ask(Method::PUT, "a b.tar", "content", &[], &[]).await;
    let generation = put.headers()["x-goog-generation"]
        .to_str()
        .expect("text")
        .to_owned();
    let source = ("x-goog-copy-source", "/bucket/a%20b.tar");
    let copy = async |object: &str, headers: &[(&str, &str)]| {
        let copied = store.ask(Method::PUT, object, "", headers, &[]).await;
        copied.status().as_u16()
    };
    let absent = ("x-goog-if-generation-match", "0");
    let of_generation = ("x-goog-copy-source-generation", generation.as_str());
    assert_eq!(copy("c.tar", &[source, of_generation, absent]).await, 200);
    let got = store.ask(Method::GET, "c.tar", "", &[], &[]).await;
    assert_eq!(got.body(), "content");
    assert_eq!(got.headers()["x-goog-hash"], put.headers()["x-goog-hash"]);
    assert_ne!(got.headers()["x-goog-generation"], generation.as_str());
    for (headers, status) in [
        (&[source, absent][..], 412),
        (&[source, ("x-goog-copy-source-generation", "1")], 404),
        (&[source, ("x-goog-copy-source-generation", "x")], 400),
        (&[("x-goog-copy-source", "/bucket/missing.tar")], 404),
        (&[("x-goog-copy-source", "/other/a%20b.tar")], 404),
        (&[("x-goog-copy-source", "/bucket/../a%20b.tar")], 400),
    ] {
        assert_eq!(copy("c.tar", headers).await, status, "{headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_copies_has_to_be_able_to_read() {
    let store = Store::permitting(Permissions::of_roles(&[Role::ObjectCreator])).await;
    let put = store.ask(Method::PUT, "a.tar", "content", &[], &[]).await;
    assert_eq!(put.status(), 200);
    let source = [("x-goog-copy-source", "/bucket/a.tar")];
    let copied = store.ask(Method::PUT, "c.tar", "", &source, &[]).await;
    assert_eq!(copied.status(), 403);
}
