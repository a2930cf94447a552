//! [`Job`]: one prefix to mirror, and the signed URL that its tar goes to.

use crate::limits;
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
    /// More upload headers than [`limits::UPLOAD_HEADERS_MAX`].
    #[error("the job has {0} upload headers; at most {max} are allowed", max = limits::UPLOAD_HEADERS_MAX)]
    UploadHeaders(usize),
    /// An upload header that the component sets itself.
    #[error("the job's upload headers include {0}, which the component sets itself")]
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

    /// The job's JSON with the secret URL, only for the request that invokes the component.
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
        json.to_string().into_bytes()
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
    }

    #[test]
    fn an_invalid_job_is_rejected_without_repeating_its_url() {
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
                with_headers(limits::UPLOAD_HEADERS_MAX),
                with_headers(limits::UPLOAD_HEADERS_MAX + 1),
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
