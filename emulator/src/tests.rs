use super::*;
use crate::permissions::Role;
use crate::test_signer::{KEY, SignRequest};
use http_body_util::StreamBody;

const BODY: &[u8] = b"123456789";

fn emulator(roles: &[Role]) -> (tempfile::TempDir, Arc<Emulator>) {
    emulator_at(roles, Pace::default())
}

fn emulator_at(roles: &[Role], pace: Pace) -> (tempfile::TempDir, Arc<Emulator>) {
    let folder = tempfile::tempdir().expect("a folder");
    let buckets = Buckets::One {
        name: "archive".to_owned(),
        folder: folder.path().to_owned(),
    };
    let verifier = Verifier::trusting(&KEY).expect("a verifier");
    let settings = Settings {
        permissions: Permissions::of_roles(roles),
        pace,
        ..Settings::default()
    };
    let emulator = Emulator::with_settings(buckets, verifier, settings);
    (folder, emulator)
}

async fn respond(
    emulator: &Emulator,
    method: Method,
    headers: &[(&str, &str)],
    body: &'static [u8],
) -> (u16, HeaderMap, Bytes) {
    let request = SignRequest {
        method: &method,
        headers,
        ..SignRequest::put("AB.tar")
    };
    respond_to(emulator, &request, body).await
}

async fn respond_to(
    emulator: &Emulator,
    to_sign: &SignRequest<'_>,
    body: &'static [u8],
) -> (u16, HeaderMap, Bytes) {
    let signed = to_sign.sign();
    let mut request = Request::new(Full::new(Bytes::from_static(body)));
    *request.method_mut() = to_sign.method.clone();
    *request.uri_mut() = signed.uri();
    *request.headers_mut() = signed.headers;
    request
        .headers_mut()
        .insert(http::header::CONTENT_LENGTH, body.len().into());
    let (parts, body) = emulator.respond(request).await.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    (parts.status.as_u16(), parts.headers, body)
}

fn code(body: &Bytes) -> String {
    let text = String::from_utf8_lossy(body).into_owned();
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"));
    code.map_or(String::new(), |(code, _)| code.to_owned())
}

#[tokio::test]
async fn an_uploaded_object_can_be_read_and_deleted() {
    let (_folder, emulator) = emulator(&[Role::ObjectUser]);
    let create_only = [("x-goog-if-generation-match", "0")];
    let (status, put, _) = respond(&emulator, Method::PUT, &create_only, BODY).await;
    assert_eq!(
        (status, &put["x-goog-hash"]),
        (200, &"crc32c=4waSgw==".parse().expect("a value"))
    );
    assert_eq!(
        respond(&emulator, Method::PUT, &create_only, BODY).await.0,
        412
    );

    let (status, get, body) = respond(&emulator, Method::GET, &[], b"").await;
    assert_eq!((status, &body[..]), (200, BODY));
    assert_eq!(get["x-goog-generation"], put["x-goog-generation"]);
    assert_eq!(get["content-type"], "application/x-tar");

    assert_eq!(respond(&emulator, Method::DELETE, &[], b"").await.0, 204);
    let (status, _, body) = respond(&emulator, Method::GET, &[], b"").await;
    assert_eq!(status, 404);
    assert!(String::from_utf8_lossy(&body).contains("<Code>NoSuchKey</Code>"));
    emulator.uploads_ended().await;
}

#[tokio::test]
async fn an_upload_with_a_wrong_checksum_leaves_no_object() {
    let (folder, emulator) = emulator(&[Role::ObjectUser]);
    let wrong = [("x-goog-hash", "crc32c=AAAAAA==")];
    let (status, _, body) = respond(&emulator, Method::PUT, &wrong, BODY).await;
    assert_eq!(status, 400);
    assert!(String::from_utf8_lossy(&body).contains("<Code>BadDigest</Code>"));
    assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 0);
}

#[tokio::test]
async fn an_account_without_delete_permission_cannot_replace_or_delete_an_object() {
    let (_folder, emulator) = emulator(&[Role::ObjectCreator]);
    for (method, status) in [
        (Method::PUT, 200),
        (Method::PUT, 403),
        (Method::GET, 403),
        (Method::DELETE, 403),
    ] {
        let answered = respond(&emulator, method.clone(), &[], BODY).await.0;
        assert_eq!(answered, status, "{method}");
    }
}

#[tokio::test]
async fn an_upload_is_stored_only_if_it_has_every_checksum_that_the_client_declared() {
    const MD5: &str = "JfnnlDI7RTiF9RgfG2JNCw==";
    const OTHER_MD5: &str = "XrY7u+Ae7tCTyyK7j1rNww==";
    let (folder, emulator) = emulator(&[Role::ObjectUser]);
    let (both, wrong_md5, wrong_crc) = (
        &format!("crc32c=4waSgw==,md5={MD5}")[..],
        &format!("crc32c=4waSgw==,md5={OTHER_MD5}")[..],
        &format!("crc32c=AAAAAA==,md5={MD5}")[..],
    );
    for (headers, refusal) in [
        ([("content-md5", OTHER_MD5)], "BadDigest"),
        ([("x-goog-hash", wrong_md5)], "BadDigest"),
        ([("x-goog-hash", wrong_crc)], "BadDigest"),
        ([("content-md5", "not base64")], "InvalidDigest"),
        ([("x-goog-hash", "crc32c=4waS")], "InvalidDigest"),
        ([("x-goog-hash", "md5=4waSgw==")], "InvalidDigest"),
    ] {
        let (status, _, body) = respond(&emulator, Method::PUT, &headers, BODY).await;
        assert_eq!((status, &code(&body)[..]), (400, refusal), "{headers:?}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 0);
    }
    let right = [("content-md5", MD5), ("x-goog-hash", both)];
    let (status, headers, _) = respond(&emulator, Method::PUT, &right, BODY).await;
    assert_eq!(
        (status, &headers["x-goog-hash"]),
        (200, &"crc32c=4waSgw==".parse().expect("a value"))
    );
}

#[tokio::test]
async fn a_read_keeps_its_preconditions_and_its_generation() {
    let (_folder, emulator) = emulator(&[Role::ObjectUser]);
    let (_, put, _) = respond(&emulator, Method::PUT, &[], BODY).await;
    let generation = put["x-goog-generation"].to_str().expect("text");
    let etag = put["etag"].to_str().expect("text");
    const MATCH: &str = "x-goog-if-generation-match";
    for method in [Method::GET, Method::HEAD] {
        for (header, status) in [
            ((MATCH, generation), 200),
            ((MATCH, "1"), 412),
            ((MATCH, "0"), 412),
            (("if-none-match", etag), 304),
            (("if-match", "\"1\""), 412),
            (("x-goog-if-metageneration-match", "1"), 400),
        ] {
            let (answered, headers, body) =
                respond(&emulator, method.clone(), &[header], b"").await;
            assert_eq!(answered, status, "{method} {header:?}");
            assert_eq!(
                answered == 304,
                body.is_empty() && headers.get("etag").is_some_and(|tag| tag == etag),
                "{header:?}"
            );
        }
        for (generation, status) in [(generation, 200), ("1", 404), ("x", 400)] {
            let request = SignRequest {
                method: &method,
                parameters: &[("generation", generation)],
                ..SignRequest::put("AB.tar")
            };
            let (answered, _, _) = respond_to(&emulator, &request, b"").await;
            assert_eq!(answered, status, "{method} {generation}");
        }
    }
}

#[tokio::test]
async fn a_write_keeps_its_preconditions_and_refuses_what_it_would_ignore() {
    let (_folder, emulator) = emulator(&[Role::ObjectUser]);
    let (_, put, _) = respond(&emulator, Method::PUT, &[], BODY).await;
    let generation = put["x-goog-generation"].to_str().expect("text");
    for method in [Method::PUT, Method::DELETE] {
        for (header, status) in [
            (("x-goog-if-generation-match", "1"), 412),
            (("x-goog-if-generation-match", "+1"), 400),
            (("x-goog-if-generation-not-match", "1"), 400),
            (("x-goog-if-metageneration-match", "1"), 400),
            (("if-none-match", "*"), 400),
            (
                ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
                400,
            ),
        ] {
            let (answered, _, _) = respond(&emulator, method.clone(), &[header], b"").await;
            assert_eq!(answered, status, "{method} {header:?}");
        }
    }
    for (method, parameter, status) in [
        (Method::PUT, generation, 400),
        (Method::DELETE, "1", 404),
        (Method::DELETE, generation, 204),
        (Method::DELETE, generation, 404),
    ] {
        let request = SignRequest {
            method: &method,
            parameters: &[("generation", parameter)],
            ..SignRequest::put("AB.tar")
        };
        let (answered, _, _) = respond_to(&emulator, &request, b"").await;
        assert_eq!(answered, status, "{method} {parameter}");
    }
}

#[tokio::test]
async fn query_parameters_are_sorted_by_name_in_a_request_that_is_served() {
    let (_folder, emulator) = emulator(&[Role::ObjectUser]);
    let request = SignRequest {
        parameters: &[("a", "1"), ("a-b", "2")],
        ..SignRequest::put("AB.tar")
    };
    assert_eq!(respond_to(&emulator, &request, BODY).await.0, 200);
}

#[tokio::test]
async fn a_refused_request_is_answered_without_its_body_and_closes_the_connection() {
    let (_folder, emulator) = emulator(&[Role::ObjectViewer]);
    let mut request = Request::new(StreamBody::new(futures::stream::pending::<
        Result<http_body::Frame<Bytes>, io::Error>,
    >()));
    *request.method_mut() = Method::PUT;
    let response = emulator.respond(request).await;
    assert_eq!(response.status(), 403);
    assert_eq!(response.headers()[CONNECTION], "close");
    // A request without a body keeps it.
    let (status, headers, _) = respond(&emulator, Method::GET, &[], b"").await;
    assert_eq!((status, headers.get(CONNECTION)), (404, None));
}

#[tokio::test]
async fn an_upload_that_stalls_is_given_up_and_leaves_nothing() {
    let pace = Pace {
        idle_max: std::time::Duration::from_millis(50),
        ..Pace::default()
    };
    let (folder, emulator) = emulator_at(&[Role::ObjectUser], pace);
    let signed = SignRequest::put("AB.tar").sign();
    let mut request = Request::new(Stalled);
    *request.method_mut() = Method::PUT;
    *request.uri_mut() = signed.uri();
    *request.headers_mut() = signed.headers;
    let length = HeaderValue::from_static("10");
    request
        .headers_mut()
        .insert(http::header::CONTENT_LENGTH, length);
    let started = tokio::time::Instant::now();
    let response = emulator.respond(request).await;
    assert_eq!(response.status(), 408);
    assert_eq!(response.headers()[CONNECTION], "close");
    assert!(started.elapsed() >= pace.idle_max);
    assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 0);
    emulator.uploads_ended().await;
}

/// A body of ten bytes that never come.
struct Stalled;

impl Body for Stalled {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
        std::task::Poll::Pending
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(10)
    }
}

#[test]
fn a_bucket_is_a_folder_below_the_root_and_never_the_root_itself() {
    let root = tempfile::tempdir().expect("a folder");
    for folder in ["bucket", "ab", "-bucket", "bucket-", "a..b", "Bucket"] {
        std::fs::create_dir(root.path().join(folder)).expect("a folder");
    }
    let buckets = Buckets::In(root.path().to_owned());
    let emulator = Emulator::new(buckets, Verifier::trusting(&KEY).expect("a verifier"));
    assert!(emulator.objects("bucket").is_ok());
    for name in [
        "",
        ".",
        "..",
        "ab",
        "-bucket",
        "bucket-",
        "a..b",
        "Bucket",
        "none",
        "bucket/",
        "../bucket",
    ] {
        let refused = emulator.objects(name).map(drop);
        assert_eq!(refused, Err(StoreError::NoSuchBucket), "{name:?}");
    }
}

#[tokio::test]
async fn a_discarded_object_is_checked_and_described_like_any_other_but_cannot_be_read() {
    const LENGTH: usize = objects::KEPT_BYTES_MAX as usize + 1;
    static BODY: [u8; LENGTH] = [0; LENGTH];
    let folder = tempfile::tempdir().expect("a folder");
    let buckets = Buckets::One {
        name: "archive".to_owned(),
        folder: folder.path().to_owned(),
    };
    let settings = Settings {
        retention: Retention::SmallObjects,
        ..Settings::default()
    };
    let verifier = Verifier::trusting(&KEY).expect("a verifier");
    let emulator = Emulator::with_settings(buckets, verifier, settings);
    for wrong in [
        ("x-goog-hash", "crc32c=AAAAAA=="),
        ("content-md5", "XrY7u+Ae7tCTyyK7j1rNww=="),
    ] {
        let (status, _, body) = respond(&emulator, Method::PUT, &[wrong], &BODY).await;
        assert_eq!((status, &code(&body)[..]), (400, "BadDigest"), "{wrong:?}");
    }
    let crc32c = checksum::Crc32c::default().append(&BODY);
    let right = format!("crc32c={crc32c}");
    let create = [
        ("x-goog-hash", &right[..]),
        ("x-goog-if-generation-match", "0"),
    ];
    let (status, put, _) = respond(&emulator, Method::PUT, &create, &BODY).await;
    assert_eq!(status, 200);
    let (status, _, body) = respond(&emulator, Method::PUT, &create, &BODY).await;
    assert_eq!((status, &code(&body)[..]), (412, "PreconditionFailed"));

    let (status, head, _) = respond(&emulator, Method::HEAD, &[], b"").await;
    assert_eq!(status, 200);
    assert_eq!(head["content-length"], LENGTH.to_string().as_str());
    for name in ["x-goog-generation", "x-goog-hash", "etag"] {
        assert_eq!(head[name], put[name], "{name}");
    }
    let generation = put["x-goog-generation"].to_str().expect("text");
    let other = [("x-goog-if-generation-match", "1")];
    assert_eq!(respond(&emulator, Method::HEAD, &other, b"").await.0, 412);
    for headers in [&[][..], &[("range", "bytes=0-9")]] {
        let (status, _, body) = respond(&emulator, Method::GET, headers, b"").await;
        assert_eq!((status, &code(&body)[..]), (409, "ContentDiscarded"));
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(
            text.contains("the content of AB.tar was discarded"),
            "{text}"
        );
    }
    let replace = [("x-goog-if-generation-match", generation)];
    assert_eq!(
        respond(
            &emulator,
            Method::PUT,
            &replace,
            BODY.get(..9).expect("a part")
        )
        .await
        .0,
        200
    );
    assert_eq!(respond(&emulator, Method::GET, &[], b"").await.0, 200);
}
