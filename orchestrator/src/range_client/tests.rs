use super::*;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::Prefix;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const LINE: &str = "0018A45C4D1DEF81644B54AB7F969B88D65:10";

/// A client of a server that gives this answer to every request, and closes the connection.
async fn client_of(answer: String) -> RangeClient {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }));
    RangeClient::new(url.parse().expect("a source"), Mode::Sha1, None).expect("a client")
}

#[tokio::test]
async fn a_body_counts_only_if_it_is_whole_and_valid() {
    let range = Prefix::from_number(0xAB).range(0);
    let length = format!("content-length: {}\r\n", LINE.len());
    for (version, headers, body, fault) in [
        ("1.1", length.as_str(), LINE, None),
        (
            "1.1",
            "transfer-encoding: chunked\r\n",
            "26\r\n0018A45C4D1DEF81644B54AB7F969B88D65:10\r\n0\r\n\r\n",
            None,
        ),
        ("1.1", "", LINE, Some("neither a Content-Length nor chunks")),
        ("1.0", "", LINE, Some("neither a Content-Length nor chunks")),
        (
            "1.1",
            "content-length: 99\r\n",
            LINE,
            Some("cut its answer off"),
        ),
        (
            "1.1",
            "content-length: 9\r\n",
            "<!DOCTYPE",
            Some("invalid range: line 1"),
        ),
        (
            "1.1",
            "content-length: 999999\r\n",
            "",
            Some("more than 262144 bytes"),
        ),
        (
            "1.1",
            "content-encoding: gzip\r\ncontent-length: 1\r\n",
            "x",
            Some("an encoding that it was not asked for"),
        ),
    ] {
        let answer = format!("HTTP/{version} 200 OK\r\nconnection: close\r\n{headers}\r\n{body}");
        let answered = client_of(answer).await.whole_body(range).await;
        match (answered, fault) {
            (Ok(answered), None) => assert_eq!(answered, LINE.as_bytes()),
            (Err(error), Some(fault)) => {
                let message = error.to_string();
                assert!(message.contains(fault), "{message}: {headers:?}");
                assert!(
                    message.starts_with(&error.reason()) && !message.contains("AB000"),
                    "{message}"
                );
            }
            (answered, fault) => panic!("{headers:?} {body:?}: {answered:?}, not {fault:?}"),
        }
    }
    let answer = format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\n{length}content-md5: 1B2M2Y8AsgTpgAmY7PhCfg==\r\n\r\n{LINE}"
    );
    let error = client_of(answer).await.whole_body(range).await;
    let message = error.expect_err("another MD5").to_string();
    assert!(
        message.contains("does not match its Content-MD5 in 3 attempts"),
        "{message}"
    );
}

#[tokio::test]
async fn a_head_that_only_a_get_may_replace_is_told_from_a_source_that_fails() {
    let range = Prefix::from_number(0xAB).range(0);
    for (status, may_concern_head_only) in [
        (301, true),
        (403, true),
        (404, true),
        (405, true),
        (501, true),
        (502, false),
        (503, false),
    ] {
        let answer =
            format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        let error = client_of(answer)
            .await
            .head(range)
            .await
            .expect_err("no head");
        assert_eq!(
            error.may_concern_head_only(),
            may_concern_head_only,
            "{error}"
        );
    }
}
