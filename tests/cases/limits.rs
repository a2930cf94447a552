//! The limits that a peer can reach over the network are exact: the largest allowed value is
//! accepted, one more is not. The other limits are tested in the modules that enforce them.

use crate::harness::faults::SourceFault;
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::source::Source;
use crate::harness::{default_fixture, generated, prefix};
use prefix_tar::limits::ETAG_BYTES_MAX;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn an_etag_is_reported_up_to_its_bound_and_left_out_past_it() {
    // The quotation marks count, too.
    let most = ETAG_BYTES_MAX - 2;
    let source = FaultySource::start(
        |range| body_of(range, 3),
        move |range, _| match range.index() {
            0x100 => Some(SourceFault::HeaderBytes(most)),
            0x200 => Some(SourceFault::HeaderBytes(most + 1)),
            _ => None,
        },
    )
    .await;
    let fixture = default_fixture(source.url()).await;
    let report = fixture
        .invoke(fixture.job(prefix("AB")).await)
        .await
        .expect("stored");
    assert_eq!(report.range_etags[0x100].len(), ETAG_BYTES_MAX);
    assert_eq!(report.range_etags[0x200], "");
    assert_eq!(report.range_etags[0x300], "\"a\"");
}

/// Sends a request's head by hand; returns the status of the answer, if there is one.
fn status_of(source: &Source, head: &str) -> Option<u16> {
    let url = source.url();
    let mut stream = TcpStream::connect(url.authority().as_str()).expect("connected");
    // A server may close before it has read everything.
    let _ = stream.write_all(head.as_bytes());
    let mut answer = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut answer).ok()?;
    std::str::from_utf8(&answer)
        .ok()?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn our_servers_take_64_headers_and_a_bounded_head_and_no_more() {
    let ranges = generated("AB", 3);
    let source = Source::of_folder(ranges.path()).await;
    let with = |headers: usize, bytes: usize| {
        let mut head = "GET /range/AB000 HTTP/1.1\r\nconnection: close\r\n".to_owned();
        for number in 1..headers {
            head += &format!("x-{number}: {}\r\n", "y".repeat(bytes / headers));
        }
        head + "\r\n"
    };
    let (few, many) = (with(64, 0), with(65, 0));
    // The bound is 128 KiB, and what one read brings at once.
    let (small, large) = (with(8, 100_000), with(8, 300_000));
    let statuses = tokio::task::spawn_blocking(move || {
        [few, many, small, large].map(|head| status_of(&source, &head))
    });
    let statuses = statuses.await.expect("asked");
    assert_eq!(statuses, [Some(200), Some(431), Some(200), Some(431)]);
}
