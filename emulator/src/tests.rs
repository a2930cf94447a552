use super::*;
use crate::permissions::Role;
use crate::test_signer::{KEY, SignRequest};

const BODY: &[u8] = b"123456789";

fn emulator(roles: &[Role]) -> (tempfile::TempDir, Arc<Emulator>) {
    let folder = tempfile::tempdir().expect("a folder");
    let buckets = Buckets::One {
        name: "archive".to_owned(),
        folder: folder.path().to_owned(),
    };
    let verifier = Verifier::trusting(&KEY).expect("a verifier");
    let permissions = Permissions::of_roles(roles);
    let emulator = Emulator::with_permissions(buckets, verifier, permissions);
    (folder, emulator)
}

async fn respond(
    emulator: &Emulator,
    method: Method,
    headers: &[(&str, &str)],
    body: &'static [u8],
) -> (u16, HeaderMap, Bytes) {
    let signed = SignRequest {
        method: &method,
        headers,
        ..SignRequest::put("AB.tar")
    }
    .sign();
    let mut request = Request::new(Full::new(Bytes::from_static(body)));
    *request.method_mut() = method;
    *request.uri_mut() = signed.uri();
    *request.headers_mut() = signed.headers;
    request
        .headers_mut()
        .insert(http::header::CONTENT_LENGTH, body.len().into());
    let (parts, body) = emulator.respond(request).await.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    (parts.status.as_u16(), parts.headers, body)
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
