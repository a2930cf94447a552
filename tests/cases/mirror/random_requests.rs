//! Whatever is asked, the answer is never a server's error.

use super::Mirrored;
use crate::harness::http_client;
use crate::harness::mirror_program::MirrorProgram;
use bytes::Bytes;
use futures::{TryStreamExt as _, stream};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const REQUESTS: u64 = 100_000;

/// Requests at once.
const CONCURRENT: usize = 32;

fn one_of(random: &mut ChaCha8Rng, choices: &[&'static str]) -> &'static str {
    choices.choose(random).expect("choices")
}

fn path(random: &mut ChaCha8Rng) -> String {
    let name: String = match random.random_range(0..4) {
        0 => format!("AB{:03X}", random.random_range(0..4096)),
        1 => format!("ab{:03x}", random.random_range(0..4096)),
        2 => format!("{:05X}", random.random_range(0..0x10_0000)),
        _ => {
            let length = random.random_range(0..8);
            let characters = b"0123456789abcdefABCDEFgG/.%+-_~!$&'()*,;=:@";
            (0..length)
                .map(|_| char::from(*characters.choose(random).expect("characters")))
                .collect()
        }
    };
    let before = one_of(
        random,
        &[
            "/range/", "/range/", "/range/", "/range", "/", "//range/", "/metrics", "/healthz",
            "/readyz", "/RANGE/",
        ],
    );
    let query = one_of(
        random,
        &[
            "",
            "",
            "",
            "?",
            "?mode=sha1",
            "?mode=ntlm",
            "?mode=",
            "?mode=sha1&mode=sha1",
            "?%00",
        ],
    );
    format!("{before}{name}{query}")
}

fn request(random: &mut ChaCha8Rng, url: &str) -> Option<Request<Full<Bytes>>> {
    let method = one_of(
        random,
        &[
            "GET", "GET", "GET", "GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH",
            "TRACE", "BREW",
        ],
    );
    let method: Method = method.parse().expect("a method");
    let mut request = Request::builder()
        .method(&method)
        .uri(format!("{url}{}", path(random)));
    for (name, values) in [
        (
            "accept-encoding",
            &[
                "gzip",
                "br",
                "gzip;q=0.1, br;q=0.2",
                "*",
                ";;q=,",
                "br;q=9e99",
                "\t",
            ][..],
        ),
        (
            "if-none-match",
            &["*", "\"a\"", "W/\"a\", \"b\"", "a,,\"", ""],
        ),
        ("add-padding", &["true", "TRUE", "false", ""]),
        ("range", &["bytes=0-1", "bytes=-1", "x"]),
        ("expect", &["100-continue"]),
        ("if-modified-since", &["Thu, 01 Jan 2026 00:00:00 GMT", "x"]),
        ("accept", &["application/json", "\u{1}"]),
    ] {
        if random.random_bool(0.2) {
            request = request.header(name, one_of(random, values));
        }
    }
    let body = match method {
        Method::GET | Method::HEAD | Method::TRACE => Bytes::new(),
        _ => Bytes::from(vec![b'x'; random.random_range(0..100)]),
    };
    // Some of what was drawn cannot be sent.
    request.body(Full::new(body)).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_get_no_error_of_the_server() {
    let mirrored = Mirrored::new().await;
    // Less memory than the archive, so that ranges are read and evicted all the time.
    let mirror = MirrorProgram::of_folder(mirrored.archive.path(), &["--cache-bytes", "2M"]);
    let (client, url) = (&http_client(), mirror.url());
    let sent = stream::iter((0..REQUESTS).map(Ok::<_, String>))
        .map_ok(|seed| async move {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let Some(request) = request(&mut random, url) else {
                return Ok(0);
            };
            let shown = format!(
                "{} {} {:?}",
                request.method(),
                request.uri(),
                request.headers()
            );
            let response = client.request(request).await;
            let response = response.map_err(|error| format!("{shown}: {error:?}"))?;
            let status = response.status();
            let body = response.into_body().collect().await;
            body.map_err(|error| format!("{shown}: {error:?}"))?;
            match status.is_server_error() {
                true => Err(format!("{shown}: {status}")),
                false => Ok(1),
            }
        })
        .try_buffer_unordered(CONCURRENT)
        .try_fold(0, |sum, one| async move { Ok(sum + one) });
    let sent: u64 = sent.await.unwrap_or_else(|error| panic!("{error}"));
    assert!(sent > REQUESTS / 2, "only {sent} could be sent");
    let metrics = super::metrics(url).await;
    assert_eq!(
        super::value(&metrics, "prefix_tar_upstream_errors_total"),
        0
    );
    assert_eq!(mirror.stopped().await, "stopping\n");
}
