//! Writes the responses of a faulty source: whole ones in every form, and wrong ones.

use crate::harness::faults::{SourceFault, SourceForm};
use crate::harness::source::valid_body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compression, write::GzEncoder};
use md5::{Digest as _, Md5};
use prefix_tar::limits::RANGE_BYTES_MAX;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use std::io::Write as _;
use std::time::{Duration, SystemTime};

/// Some range, for bodies whose content does not matter.
fn any_range() -> RangeName {
    Prefix::from_number(0).range(0)
}

/// The head of a response, with additional header lines.
fn head(status: u16, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\ncontent-type: text/plain\r\n{headers}\r\n").into_bytes()
}

/// A response with a body and its `Content-Length`.
fn with_body(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let headers = format!("{headers}content-length: {}\r\n", body.len());
    let mut answer = head(status, &headers);
    answer.extend_from_slice(body);
    answer
}

/// The headers of a response without a fault.
const GOOD_HEADERS: &str = "etag: \"a\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";

/// A response without a fault.
pub(super) fn good(body: &[u8]) -> Vec<u8> {
    with_body(200, GOOD_HEADERS, body)
}

/// A response without a fault, and whether the connection closes after it.
pub(super) fn whole(form: SourceForm, body: &[u8]) -> (Vec<u8>, bool) {
    let encoded = |name: &str| format!("{GOOD_HEADERS}content-encoding: {name}\r\n");
    let digested = |headers: &str| format!("{headers}{}", content_md5(body));
    let answer = match form {
        SourceForm::Plain => good(body),
        SourceForm::Chunked => chunked(GOOD_HEADERS, body),
        SourceForm::Gzip(name) => with_body(200, &encoded(name), &gzip(body)),
        SourceForm::GzipChunked => chunked(&encoded("gzip"), &gzip(body)),
        SourceForm::GzipMembers => with_body(200, &encoded("gzip"), &gzip_members(body)),
        SourceForm::GzipMembersChunked => chunked(&encoded("gzip"), &gzip_members(body)),
        SourceForm::Md5 => with_body(200, &digested(GOOD_HEADERS), body),
        SourceForm::Md5Chunked => chunked(&digested(GOOD_HEADERS), body),
        SourceForm::Md5Gzip => with_body(200, &digested(&encoded("gzip")), &gzip(body)),
        SourceForm::GzipUnframed => return (unframed("1.1", &encoded("gzip"), &gzip(body)), true),
        SourceForm::GzipUnframedHttp10 => {
            return (unframed("1.0", &encoded("gzip"), &gzip(body)), true);
        }
        SourceForm::Md5Unframed => return (unframed("1.1", &digested(GOOD_HEADERS), body), true),
        SourceForm::Md5GzipMembersUnframed => {
            let headers = digested(&encoded("gzip"));
            return (unframed("1.0", &headers, &gzip_members(body)), true);
        }
    };
    (answer, false)
}

/// A response that ends with its connection.
fn unframed(version: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let headers = format!("content-type: text/plain\r\nconnection: close\r\n{headers}");
    let mut answer = format!("HTTP/{version} 200 X\r\n{headers}\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// The header line with the MD5 of a body.
fn content_md5(body: &[u8]) -> String {
    format!("content-md5: {}\r\n", STANDARD.encode(Md5::digest(body)))
}

/// The body without its last third, cut after a line.
fn after_line(body: &[u8]) -> &[u8] {
    let kept = &body[..body.len() - body.len() / 3];
    let line_end = kept.windows(2).rposition(|pair| pair == b"\r\n");
    &kept[..line_end.expect("a line end") + 2]
}

/// The body in gzip of three members. The first ends after a line, the second inside one.
fn gzip_members(body: &[u8]) -> Vec<u8> {
    let (first, rest) = body.split_at(after_line(body).len());
    let (second, third) = rest.split_at(rest.len() / 2);
    [first, second, third].map(gzip).concat()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("compressed data");
    encoder.finish().expect("a finished gzip stream")
}

/// 64 MiB in gzip that states a decoded size of 30,000 bytes.
fn gzip_bomb() -> Vec<u8> {
    let mut bomb = gzip(&vec![b'A'; 64 * 1024 * 1024]);
    let size_at = bomb.len() - 4;
    bomb[size_at..].copy_from_slice(&30_000_u32.to_le_bytes());
    bomb
}

/// The body with a fault in its lines.
fn wrong_lines(fault: SourceFault, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body).into_owned();
    let mut lines: Vec<&str> = text.split("\r\n").collect();
    match fault {
        SourceFault::Reordered => lines.swap(0, 1),
        SourceFault::Duplicated => lines.insert(1, lines[0]),
        SourceFault::LowerCase => return text.to_ascii_lowercase(),
        SourceFault::LfOnly => return lines.join("\n"),
        SourceFault::OtherMode => {
            for line in &mut lines {
                *line = &line[8..];
            }
        }
        _ => return format!("{text}\r\n{}:0", "F".repeat(35)),
    }
    lines.join("\r\n")
}

/// A chunk of a body.
fn chunk(data: &[u8]) -> Vec<u8> {
    let size = format!("{:x}\r\n", data.len());
    [size.as_bytes(), data, b"\r\n"].concat()
}

/// A response whose body is one chunk, correctly terminated.
fn chunked(headers: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = head(200, &format!("{headers}transfer-encoding: chunked\r\n"));
    answer.extend(chunk(body));
    answer.extend(chunk(b""));
    answer
}

/// A response with a damaged, cut or oversized gzip body.
fn wrong_gzip(fault: SourceFault, body: &[u8]) -> Vec<u8> {
    let header = "content-encoding: gzip\r\n";
    let mut encoded = gzip(body);
    let middle = encoded.len() / 2;
    match fault {
        SourceFault::GzipDamaged => {
            encoded[middle] ^= 0x55;
            with_body(200, header, &encoded)
        }
        SourceFault::GzipCut => chunked(header, &encoded[..middle]),
        _ => with_body(200, header, &gzip_bomb()),
    }
}

/// A response whose headers contradict each other or the body.
fn with_wrong_headers(fault: SourceFault, body: &[u8]) -> Vec<u8> {
    let part = after_line(body);
    let with = |header: &str, body| with_body(200, &format!("{GOOD_HEADERS}{header}"), body);
    match fault {
        SourceFault::ContentRange => {
            let (last, whole) = (part.len() - 1, body.len());
            with(&format!("content-range: bytes 0-{last}/{whole}\r\n"), part)
        }
        SourceFault::ContentLengths => with(&format!("content-length: {}\r\n", part.len()), body),
        SourceFault::Md5WrongGzip => {
            let headers = format!("content-encoding: gzip\r\n{}", content_md5(part));
            with(&headers, &gzip(body))
        }
        SourceFault::Md5Malformed => with("content-md5: none\r\n", body),
        _ => with(&content_md5(part), body),
    }
}

/// A response that ends with its connection, and that must be refused.
fn wrongly_unframed(fault: SourceFault, body: &[u8]) -> Vec<u8> {
    let encoded = format!("{GOOD_HEADERS}content-encoding: gzip\r\n");
    match fault {
        SourceFault::UnframedAfterLine => unframed("1.1", GOOD_HEADERS, after_line(body)),
        SourceFault::UnframedInsideCount => unframed("1.0", GOOD_HEADERS, &body[..body.len() - 1]),
        SourceFault::UnframedHttp10 => unframed("1.0", GOOD_HEADERS, body),
        SourceFault::UnframedGzipCut => {
            let whole = gzip(body);
            unframed("1.1", &encoded, &whole[..whole.len() / 2])
        }
        SourceFault::UnframedGzipMembers => unframed("1.1", &encoded, &gzip_members(body)),
        SourceFault::UnframedMd5 => {
            let headers = format!("{GOOD_HEADERS}{}", content_md5(body));
            unframed("1.1", &headers, after_line(body))
        }
        _ => unframed("1.1", GOOD_HEADERS, body),
    }
}

/// The head of a response in chunks, and a chunk to repeat without end.
pub(super) fn endless() -> (Vec<u8>, Vec<u8>) {
    let data = valid_body(any_range(), 64 * 1024);
    (head(200, "transfer-encoding: chunked\r\n"), chunk(&data))
}

/// A response with a fault, and whether the connection closes after it.
pub(super) fn wrong(fault: SourceFault, body: &[u8]) -> (Vec<u8>, bool) {
    let answer = match fault {
        SourceFault::Status(status) => with_body(status, "", b"<html>no</html>"),
        SourceFault::RetryAfter(status, seconds) => {
            with_body(status, &format!("retry-after: {seconds}\r\n"), b"")
        }
        SourceFault::RetryAfterDate(status, seconds) => {
            let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds));
            with_body(status, &format!("retry-after: {date}\r\n"), b"")
        }
        SourceFault::Redirect => with_body(
            302,
            "location: http://elsewhere.example/range/00000\r\n",
            b"",
        ),
        SourceFault::Html => with_body(
            200,
            "",
            b"<!DOCTYPE html><html><title>Sign in</title></html>",
        ),
        SourceFault::Reordered
        | SourceFault::Duplicated
        | SourceFault::LowerCase
        | SourceFault::LfOnly
        | SourceFault::OtherMode
        | SourceFault::Padding => with_body(200, "", wrong_lines(fault, body).as_bytes()),
        SourceFault::Oversized => {
            with_body(200, "", &valid_body(any_range(), RANGE_BYTES_MAX + 39))
        }
        SourceFault::GzipDamaged | SourceFault::GzipCut | SourceFault::GzipBomb => {
            wrong_gzip(fault, body)
        }
        SourceFault::Brotli => with_body(200, "content-encoding: br\r\n", body),
        SourceFault::Headers(count) => {
            let headers: String = (0..count).map(|n| format!("x-{n}: y\r\n")).collect();
            with_body(200, &headers, body)
        }
        SourceFault::HeaderBytes(bytes) => {
            with_body(200, &format!("etag: \"{}\"\r\n", "e".repeat(bytes)), body)
        }
        SourceFault::TruncatedChunked => chunked("", &body[..body.len() / 2]),
        SourceFault::ChunkedGarbage => {
            let mut answer = head(200, "transfer-encoding: chunked\r\n");
            answer.extend_from_slice(b"zz\r\nnot a chunk\r\n");
            return (answer, true);
        }
        SourceFault::NotHttp => return (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), true),
        SourceFault::ContentRange
        | SourceFault::ContentLengths
        | SourceFault::Md5Wrong
        | SourceFault::Md5WrongGzip
        | SourceFault::Md5Malformed => with_wrong_headers(fault, body),
        SourceFault::UnframedAfterLine
        | SourceFault::UnframedInsideCount
        | SourceFault::Unframed
        | SourceFault::UnframedHttp10
        | SourceFault::UnframedGzipCut
        | SourceFault::UnframedGzipMembers
        | SourceFault::UnframedMd5 => return (wrongly_unframed(fault, body), true),
        SourceFault::Closed
        | SourceFault::ResetAt(_)
        | SourceFault::Stall
        | SourceFault::Drip(_)
        | SourceFault::Endless
        | SourceFault::OtherRange(_)
        | SourceFault::Truncated => unreachable!("these faults are injected elsewhere"),
    };
    (answer, false)
}
