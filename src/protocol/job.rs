//! [`Job`]: one prefix to mirror, the signed URL that its tar goes to, and those of an earlier tar to build on.

use crate::limits;
use crate::protocol::mode::Mode;
use crate::protocol::prefix::Prefix;
use crate::protocol::signed_url::SignedUrl;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The content type of a job.
pub const JOB_CONTENT_TYPE: &str = "application/json";

/// Where the tar goes: a signed URL for a PUT, and the headers that it was signed with.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upload {
    /// The signed URL.
    pub url: SignedUrl,
    /// The headers to send with the PUT.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// A file in the store: a signed URL for a GET, and the headers that it was signed with.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// The signed URL.
    pub url: SignedUrl,
    /// The headers to send with the GET.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// An earlier tar of the prefix. Ranges that have not changed since are taken from it.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// The tar's report: its index, and the ETags of its ranges.
    pub report: Download,
    /// The tar.
    pub tar: Download,
    /// Whether a tar is uploaded even if it is the same as the base's.
    #[serde(default)]
    pub always_upload: bool,
}

/// A job: mirror `prefix` into `upload`. The source is not part of a job, so that a caller cannot
/// make the component fetch from elsewhere.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The prefix to mirror.
    pub prefix: Prefix,
    /// Where the tar goes.
    pub upload: Upload,
    /// The length to declare for the tar, in bytes. Estimated from the first ranges if absent.
    #[serde(default)]
    pub content_length: Option<u64>,
    /// Range requests in flight; [`limits::WINDOW_DEFAULT`] if absent.
    #[serde(default)]
    pub window: Option<u16>,
    /// What to build on; every range is fetched if absent.
    #[serde(default)]
    pub base: Option<Base>,
    /// Which hashes to mirror; SHA-1 if absent.
    #[serde(default)]
    pub mode: Mode,
}

/// Why a text is not a valid job.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Not the JSON of a job. The text states only the position, never a value.
    #[error("the body is not a job: {0}")]
    Json(String),
    /// `window` is out of bounds.
    #[error("the job's window is {0}; it must be 1 to {max}", max = limits::WINDOW_MAX)]
    Window(u16),
    /// `content_length` is out of bounds or not a multiple of a record.
    #[error("the job's content_length is {0}; it must be a multiple of 10240, at most {max}", max = limits::CONTENT_LENGTH_MAX)]
    ContentLength(u64),
    /// More headers for a request than [`limits::SIGNED_HEADERS_MAX`].
    #[error("the job has {0} headers for one request; at most {max} are allowed", max = limits::SIGNED_HEADERS_MAX)]
    Headers(usize),
    /// A header that the component sets itself.
    #[error("the job's headers include {0}, which the component sets itself")]
    ReservedHeader(&'static str),
}

impl Job {
    /// Parses a job from the body of a request.
    ///
    /// # Errors
    /// The text is not the JSON of a job, has unknown fields, or a value is out of its bounds.
    pub fn from_wire(body: &[u8]) -> Result<Self, JobError> {
        let job: Self = serde_json::from_slice(body).map_err(|error| {
            // serde's data errors can quote a value, and the value may be a signed URL.
            JobError::Json(match error.classify() {
                serde_json::error::Category::Data => {
                    format!(
                        "a field is missing, unknown or invalid at column {}",
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
                || !length.is_multiple_of(crate::engine::tar::RECORD_BYTES))
        {
            return Err(JobError::ContentLength(length));
        }
        check_headers(&self.upload.headers)?;
        for download in self.base.iter().flat_map(Base::downloads) {
            check_headers(&download.headers)?;
        }
        Ok(())
    }

    /// Every signed URL of the job.
    pub fn signed_urls(&self) -> impl Iterator<Item = &SignedUrl> {
        let downloads = self.base.iter().flat_map(Base::downloads);
        std::iter::once(&self.upload.url).chain(downloads.map(|download| &download.url))
    }

    /// The job's JSON with its secret URLs, only for the request that invokes the component.
    pub fn expose_secret(&self) -> Vec<u8> {
        let mut json = serde_json::json!({
            "prefix": self.prefix,
            "upload": {
                "url": self.upload.url.expose_secret(),
                "headers": self.upload.headers,
            },
        });
        if let Some(length) = self.content_length {
            json["content_length"] = length.into();
        }
        if let Some(window) = self.window {
            json["window"] = window.into();
        }
        if let Some(base) = &self.base {
            json["base"] = serde_json::json!({
                "report": base.report.expose_secret(),
                "tar": base.tar.expose_secret(),
                "always_upload": base.always_upload,
            });
        }
        // A component of version 0.1.0 refuses a job with this field, and knows SHA-1 only.
        if !self.mode.is_default() {
            json["mode"] = self.mode.as_str().into();
        }
        json.to_string().into_bytes()
    }
}

impl Download {
    /// The JSON with the secret URL.
    fn expose_secret(&self) -> serde_json::Value {
        serde_json::json!({ "url": self.url.expose_secret(), "headers": self.headers })
    }
}

impl Base {
    const fn downloads(&self) -> [&Download; 2] {
        [&self.report, &self.tar]
    }
}

/// Checks the headers of one signed request.
fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), JobError> {
    if headers.len() > limits::SIGNED_HEADERS_MAX {
        return Err(JobError::Headers(headers.len()));
    }
    let is_named = |reserved: &str| {
        let mut names = headers.keys();
        names.any(|name| name.eq_ignore_ascii_case(reserved))
    };
    let reserved = ["content-length", "host", "range", "transfer-encoding"];
    match reserved.into_iter().find(|reserved| is_named(reserved)) {
        Some(reserved) => Err(JobError::ReservedHeader(reserved)),
        None => Ok(()),
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
    fn a_job_survives_a_round_trip() {
        let text = job_text(r#","content_length":157286400,"window":64"#);
        let job = Job::from_wire(text.as_bytes()).expect("a job");
        assert_eq!(job.prefix.to_string(), "AB");
        assert_eq!(job.window, Some(64));
        assert_eq!(Job::from_wire(&job.expose_secret()).ok(), Some(job));
        let job = Job::from_wire(with_base("").as_bytes()).expect("a job with a base");
        let paths: Vec<&str> = job.signed_urls().map(SignedUrl::path).collect();
        assert_eq!(paths, ["/bucket/AB.tar", "/old/AB.json", "/old/AB.tar"]);
        assert!(!format!("{job:?}").contains("5ec4e7"));
        assert_eq!(Job::from_wire(&job.expose_secret()).ok(), Some(job));
    }

    /// A job with a base, whose tar has `headers`.
    fn with_base(headers: &str) -> String {
        let old = "https://storage.googleapis.com/old/AB";
        job_text(&format!(
            r#","base":{{"report":{{"url":"{old}.json?X=5ec4e7"}},"tar":{{"url":"{old}.tar?X=5ec4e7","headers":{{{headers}}}}},"always_upload":true}}"#
        ))
    }

    #[test]
    fn a_job_without_a_mode_is_about_sha_1_and_does_not_state_it() {
        for (extra, mode) in [
            ("", Mode::Sha1),
            (r#","mode":"sha1""#, Mode::Sha1),
            (r#","mode":"ntlm""#, Mode::Ntlm),
        ] {
            let job = Job::from_wire(job_text(extra).as_bytes()).expect("a job");
            assert_eq!(job.mode, mode);
            let sent = String::from_utf8(job.expose_secret()).expect("text");
            assert_eq!(sent.contains("mode"), mode == Mode::Ntlm, "{sent}");
            assert_eq!(Job::from_wire(sent.as_bytes()).ok(), Some(job));
        }
    }

    #[test]
    fn an_invalid_job_is_rejected_without_repeating_its_url() {
        let faults = [
            job_text(r#","source":"http://elsewhere""#),
            job_text(r#","window":0"#),
            job_text(r#","window":129"#),
            job_text(r#","mode":"NTLM""#),
            job_text(r#","content_length":10241"#),
            job_text(r#","content_length":0"#),
            job_text(r#","content_length":99999999999999"#),
            job_text("").replace("AB\"", "ab\""),
            job_text("").replace("https:", "ftp:"),
            job_text("").replace("x-goog-if-generation-match", "Content-Length"),
            job_text("").replace(r#""prefix":"AB","#, ""),
            job_text("").replace(r#""headers""#, &format!(r#""{URL}""#)),
            job_text(r#","base":{}"#),
            with_base(r#""Range":"bytes=0-1""#),
            with_base("").replace("always_upload", "never_upload"),
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
    fn a_job_is_valid_at_its_bounds_and_invalid_past_them() {
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
                with_headers(limits::SIGNED_HEADERS_MAX),
                with_headers(limits::SIGNED_HEADERS_MAX + 1),
            ),
        ] {
            assert!(Job::from_wire(inside.as_bytes()).is_ok(), "{inside}");
            assert!(Job::from_wire(past.as_bytes()).is_err(), "{past}");
        }
    }

    proptest! {
        #[test]
        fn parsing_a_job_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Job::from_wire(&body);
        }
    }
}
