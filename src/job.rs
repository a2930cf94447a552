//! What goes over the wire: the [`Job`] that the component is sent, the [`Event`]s that it answers and the
//! [`Report`] that the last of them carries. Who sends them, and how, is left to the shell and to the hosts.

use crate::authority::Authority;
use crate::failure::Failure;
use crate::limits;
use crate::prefix::Prefix;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The content type of a job.
pub const JOB_CONTENT_TYPE: &str = "application/json";

/// The content type of the answer: a line of JSON per event.
pub const EVENTS_CONTENT_TYPE: &str = "application/x-ndjson";

/// A URL whose query carries a signature: whoever has it may write the object. It is a credential, so it has
/// no `Display`, no `Serialize` and no `Clone`, and its `Debug` shows scheme, authority and path.
#[derive(PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SignedUrl {
    text: String,
    uri: http::Uri,
    authority: Authority,
}

impl SignedUrl {
    /// Takes a signed URL in.
    ///
    /// # Errors
    /// It is not an absolute `http` or `https` URL, or carries user information. The message does not repeat it.
    pub fn new(text: String) -> Result<Self, SignedUrlError> {
        let uri: http::Uri = text.parse().map_err(|_| SignedUrlError)?;
        if !matches!(uri.scheme_str(), Some("https" | "http")) {
            return Err(SignedUrlError);
        }
        let authority = uri.authority().ok_or(SignedUrlError)?;
        let authority = authority.as_str().parse().map_err(|_| SignedUrlError)?;
        Ok(Self {
            text,
            uri,
            authority,
        })
    }

    /// Whether it is `https`.
    pub fn is_https(&self) -> bool {
        self.uri.scheme() == Some(&http::uri::Scheme::HTTPS)
    }

    /// The host and port that it names.
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The path, without the query that carries the signature.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The path and the secret query, for the request line and for nothing else.
    pub fn expose_path_and_query_to_the_wire(&self) -> &str {
        self.uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str)
    }

    /// The whole secret URL, for the job's JSON and for nothing else.
    pub fn expose_to_the_wire(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let (authority, path) = (self.authority(), self.path());
        write!(
            formatter,
            "SignedUrl({scheme}://{authority}{path}?<redacted>)"
        )
    }
}

impl TryFrom<String> for SignedUrl {
    type Error = SignedUrlError;

    fn try_from(text: String) -> Result<Self, SignedUrlError> {
        Self::new(text)
    }
}

/// A text is no signed URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signed URL is not an absolute http or https URL")]
pub struct SignedUrlError;

/// Where the tar goes: the signed URL of a PUT, and the headers that were signed with it.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upload {
    /// The signed URL.
    pub url: SignedUrl,
    /// Headers to send with the PUT, all of them and no others of their kind.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// One job: mirror `prefix` into `upload`. The source is not part of it, or whoever can call the component
/// could aim it.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The prefix to mirror.
    pub prefix: Prefix,
    /// Where its tar goes.
    pub upload: Upload,
    /// The length of the tar to declare, in bytes; estimated from the first ranges where it is missing.
    #[serde(default)]
    pub content_length: Option<u64>,
    /// Range requests in flight; [`limits::WINDOW_DEFAULT`] where it is missing.
    #[serde(default)]
    pub window: Option<u16>,
}

/// Why a text is no job.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Not the JSON of a job. The message of the JSON parser never repeats a value.
    #[error("the body is not a job: {0}")]
    Json(String),
    /// `window` is out of bounds.
    #[error("the job's window is {0}; it must be 1 to {max}", max = limits::WINDOW_MAX)]
    Window(u16),
    /// `content_length` is out of bounds or not in whole records.
    #[error("the job's content_length is {0}; it must be a multiple of 10240, at most {max}", max = limits::CONTENT_LENGTH_MAX)]
    ContentLength(u64),
    /// More upload headers than [`limits::UPLOAD_HEADERS_MAX`].
    #[error("the job has {0} upload headers; at most {max} are taken", max = limits::UPLOAD_HEADERS_MAX)]
    UploadHeaders(usize),
    /// An upload header that the component sets itself.
    #[error("the job's upload headers name {0}, which the component sets itself")]
    ReservedHeader(&'static str),
}

impl Job {
    /// Reads a job from the body of a request.
    ///
    /// # Errors
    /// The text is not the JSON of a job, has unknown fields, or a value is out of its bounds.
    pub fn from_wire(body: &[u8]) -> Result<Self, JobError> {
        let job: Self = serde_json::from_slice(body).map_err(|error| {
            // serde's data errors can quote a value; what is sent may be a signed URL.
            JobError::Json(match error.classify() {
                serde_json::error::Category::Data => {
                    format!(
                        "a field is missing, unknown or not valid at column {}",
                        error.column()
                    )
                }
                _ => format!("not JSON at column {}", error.column()),
            })
        })?;
        job.check()?;
        Ok(job)
    }

    fn check(&self) -> Result<(), JobError> {
        if let Some(window) = self.window
            && !(1..=limits::WINDOW_MAX).contains(&window)
        {
            return Err(JobError::Window(window));
        }
        if let Some(length) = self.content_length
            && (length > limits::CONTENT_LENGTH_MAX
                || length == 0
                || !length.is_multiple_of(crate::tar::RECORD_BYTES))
        {
            return Err(JobError::ContentLength(length));
        }
        let headers = &self.upload.headers;
        if headers.len() > limits::UPLOAD_HEADERS_MAX {
            return Err(JobError::UploadHeaders(headers.len()));
        }
        for reserved in ["content-length", "host", "transfer-encoding"] {
            if headers
                .keys()
                .any(|name| name.eq_ignore_ascii_case(reserved))
            {
                return Err(JobError::ReservedHeader(reserved));
            }
        }
        Ok(())
    }

    /// The job's JSON, signed URL and all, for the request that invokes the component.
    pub fn expose_to_the_wire(&self) -> Vec<u8> {
        let mut json = serde_json::json!({
            "prefix": self.prefix,
            "upload": {
                "url": self.upload.url.expose_to_the_wire(),
                "headers": self.upload.headers,
            },
        });
        if let Some(length) = self.content_length {
            json["content_length"] = length.into();
        }
        if let Some(window) = self.window {
            json["window"] = window.into();
        }
        json.to_string().into_bytes()
    }
}

/// A line of the answer. An answer that ends without `done` or `failed` has failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The invocation is under way.
    Progress {
        /// Ranges in the tar so far.
        ranges: u32,
        /// Their data, in bytes.
        bytes: u64,
        /// Linear memory, in bytes.
        linear_memory: u64,
    },
    /// The object is stored and its checksum was compared.
    Done {
        /// What was stored.
        report: Box<Report>,
    },
    /// The invocation failed, and left no object.
    Failed {
        /// Why.
        error: Failure,
        /// The report of what was sent, where all of it was and what is wrong is the store's answer: the store
        /// may have the object all the same. Its generation is the one that the answer named, if it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sent: Option<Box<Report>>,
    },
}

/// Seconds that the parts of an invocation took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seconds {
    /// From the start until the last range was there.
    pub fetch: f64,
    /// From the beginning of the PUT until the store's answer. It runs beside `fetch`.
    pub upload: f64,
    /// All.
    pub total: f64,
}

/// What one invocation stored. With the entries' order it is also an index of the tar: the entry of range
/// `n` begins where the entries before it end, and each takes a block, its data and their padding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The prefix.
    pub prefix: Prefix,
    /// The source's base URL.
    pub source: String,
    /// Ranges in the tar: 4,096.
    pub ranges: u32,
    /// Hashes: the lines of all ranges.
    pub hashes: u64,
    /// The ranges' data, in bytes.
    pub data_bytes: u64,
    /// The object's length, in bytes.
    pub content_length: u64,
    /// The object's CRC32C as the store gives it: base64 of the big-endian value.
    pub crc32c: Crc32c,
    /// Range requests that were sent.
    pub requests: u64,
    /// Those of them that repeated another.
    pub retries: u64,
    /// How long it took.
    pub seconds: Seconds,
    /// The most linear memory that the invocation had, in bytes.
    pub linear_memory_peak: u64,
    /// The object's generation, where the store gave one.
    pub generation: Option<String>,
    /// The object's ETag, where the store gave one.
    pub etag: Option<String>,
    /// Each range's size in bytes, in order.
    pub range_bytes: Vec<u32>,
    /// Each range's ETag at the source, in order; empty where there was none.
    pub range_etags: Vec<String>,
}

/// A CRC32C (Castagnoli), in text as GCS writes it: base64 of the big-endian value.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Crc32c(pub u32);

impl fmt::Display for Crc32c {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(self.0.to_be_bytes());
        formatter.write_str(&text)
    }
}

impl fmt::Debug for Crc32c {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Crc32c({self})")
    }
}

/// A text is no CRC32C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a CRC32C is the base64 of four bytes")]
pub struct Crc32cError;

impl std::str::FromStr for Crc32c {
    type Err = Crc32cError;

    fn from_str(text: &str) -> Result<Self, Crc32cError> {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()
            .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
            .map(|bytes| Self(u32::from_be_bytes(bytes)))
            .ok_or(Crc32cError)
    }
}

impl TryFrom<String> for Crc32c {
    type Error = Crc32cError;

    fn try_from(text: String) -> Result<Self, Crc32cError> {
        text.parse()
    }
}

impl From<Crc32c> for String {
    fn from(crc32c: Crc32c) -> Self {
        crc32c.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const URL: &str = "https://storage.googleapis.com/bucket/AB.tar?X-Goog-Signature=5ec4e7";

    fn job_text(extra: &str) -> String {
        format!(
            r#"{{"prefix":"AB","upload":{{"url":"{URL}","headers":{{"x-goog-if-generation-match":"0"}}}}{extra}}}"#
        )
    }

    #[test]
    fn a_job_reads_back_from_the_wire() {
        let text = job_text(r#","content_length":157286400,"window":64"#);
        let job = Job::from_wire(text.as_bytes()).expect("a job");
        assert_eq!(job.prefix.to_string(), "AB");
        assert_eq!(job.window, Some(64));
        assert_eq!(Job::from_wire(&job.expose_to_the_wire()).ok(), Some(job));
    }

    #[test]
    fn a_job_with_a_fault_is_refused_and_its_url_is_not_repeated() {
        let faults = [
            job_text(r#","source":"http://elsewhere""#),
            job_text(r#","window":0"#),
            job_text(r#","window":129"#),
            job_text(r#","content_length":10241"#),
            job_text(r#","content_length":0"#),
            job_text(r#","content_length":99999999999999"#),
            job_text("").replace("AB\"", "ab\""),
            job_text("").replace("https:", "ftp:"),
            job_text("").replace("x-goog-if-generation-match", "Content-Length"),
            job_text("").replace(r#""prefix":"AB","#, ""),
            job_text("").replace(r#""headers""#, &format!(r#""{URL}""#)),
            job_text("x"),
            "[]".to_owned(),
            String::new(),
        ];
        for fault in faults {
            let error = Job::from_wire(fault.as_bytes()).expect_err(&fault);
            assert!(!error.to_string().contains("5ec4e7"), "{error}");
        }
    }

    #[test]
    fn what_is_just_inside_the_bounds_is_a_job_and_what_is_one_past_them_is_none() {
        let with_headers = |count: usize| {
            let headers: Vec<String> = (0..count).map(|n| format!(r#""x-{n}":"y""#)).collect();
            let headers = headers.join(",");
            format!(r#"{{"prefix":"AB","upload":{{"url":"{URL}","headers":{{{headers}}}}}}}"#)
        };
        let longest = limits::CONTENT_LENGTH_MAX / 10_240 * 10_240;
        for (inside, past) in [
            (job_text(r#","window":1"#), job_text(r#","window":0"#)),
            (job_text(r#","window":128"#), job_text(r#","window":129"#)),
            (
                job_text(&format!(r#","content_length":{longest}"#)),
                job_text(&format!(r#","content_length":{}"#, longest + 10_240)),
            ),
            (
                with_headers(limits::UPLOAD_HEADERS_MAX),
                with_headers(limits::UPLOAD_HEADERS_MAX + 1),
            ),
        ] {
            assert!(Job::from_wire(inside.as_bytes()).is_ok(), "{inside}");
            assert!(Job::from_wire(past.as_bytes()).is_err(), "{past}");
        }
    }

    #[test]
    fn a_signed_url_shows_no_signature() {
        let url = SignedUrl::new(URL.to_owned()).expect("a URL");
        let shown = format!("{url:?}");
        assert_eq!(
            shown,
            "SignedUrl(https://storage.googleapis.com/bucket/AB.tar?<redacted>)"
        );
        assert!(url.is_https());
        assert_eq!(url.authority().as_str(), "storage.googleapis.com");
        assert!(
            url.expose_path_and_query_to_the_wire()
                .ends_with("Signature=5ec4e7")
        );
    }

    #[test]
    fn events_are_lines_of_the_contract() {
        let progress = Event::Progress {
            ranges: 512,
            bytes: 17_203_200,
            linear_memory: 2_818_048,
        };
        assert_eq!(
            serde_json::to_string(&progress).expect("JSON"),
            r#"{"event":"progress","ranges":512,"bytes":17203200,"linear_memory":2818048}"#
        );
    }

    proptest! {
        #[test]
        fn no_body_makes_the_job_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Job::from_wire(&body);
        }

        #[test]
        fn every_crc32c_reads_back(value in any::<u32>()) {
            prop_assert_eq!(Crc32c(value).to_string().parse(), Ok(Crc32c(value)));
        }
    }
}
