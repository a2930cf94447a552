//! Parses requests of the range API: the range, the accepted encoding and the known ETags.

use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, IF_NONE_MATCH};
use http::{HeaderName, Method};
use prefix_tar::protocol::prefix::RangeName;

/// A valid request for a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// The requested range.
    pub range: RangeName,
    /// Whether the client accepts a gzip body.
    pub accepts_gzip: bool,
    /// The value of `If-None-Match`: ETags of the bodies that the client has.
    known: Option<String>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Neither GET nor HEAD.
    Method,
    /// The path is not below `/range/`.
    Path,
    /// The range is not five hex characters.
    Range,
}

impl RangeRequest {
    /// Parses a request.
    ///
    /// # Errors
    /// The request has another method or path, or its range is invalid.
    pub fn parse(method: &Method, path: &str, headers: &HeaderMap) -> Result<Self, Refusal> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(Refusal::Method);
        }
        let name = path.strip_prefix("/range/").ok_or(Refusal::Path)?;
        let range = name.to_ascii_uppercase().parse();
        let text = |name: HeaderName| {
            headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        Ok(Self {
            range: range.map_err(|_| Refusal::Range)?,
            accepts_gzip: text(ACCEPT_ENCODING).is_some_and(accepts_gzip),
            known: text(IF_NONE_MATCH).map(str::to_owned),
        })
    }

    /// Whether the client has the body with this ETag. The comparison is weak (RFC 9110, 13.1.2): it
    /// ignores the encoding.
    pub fn knows(&self, etag: &str) -> bool {
        self.known.as_deref().is_some_and(|list| {
            list.split(',').map(str::trim).any(|candidate| {
                candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == etag
            })
        })
    }
}

/// Whether an `Accept-Encoding` lists gzip with a weight above 0 (RFC 9110, 12.5.3).
fn accepts_gzip(value: &str) -> bool {
    value.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts
            .find_map(|part| part.strip_prefix("q="))
            .map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
        is_gzip && weight > 0.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<RangeRequest, Refusal> {
        let headers = headers.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        });
        RangeRequest::parse(method, path, &headers.collect())
    }

    #[test]
    fn a_range_is_accepted_in_either_case_and_everything_else_is_refused() {
        let request = parse(&Method::HEAD, "/range/ab7ff", &[]).expect("a request");
        assert_eq!(request.range.to_string(), "AB7FF");
        for (method, path, refusal) in [
            (Method::POST, "/range/AB7FF", Refusal::Method),
            (Method::GET, "/", Refusal::Path),
            (Method::GET, "/range", Refusal::Path),
            (Method::GET, "/range/", Refusal::Range),
            (Method::GET, "/range/AB7F", Refusal::Range),
            (Method::GET, "/range/AB7FFF", Refusal::Range),
            (Method::GET, "/range/AB7FG", Refusal::Range),
            (Method::GET, "/range/../x", Refusal::Range),
            (Method::GET, "/range/ab7f\u{130}", Refusal::Range),
        ] {
            assert_eq!(parse(&method, path, &[]), Err(refusal), "{method} {path}");
        }
    }

    #[test]
    fn gzip_is_recognised_by_name_and_weight() {
        for (value, accepted) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, br", false),
            ("gzip;q=x", false),
            ("identity", false),
            ("xgzip", false),
            ("", false),
        ] {
            let headers = [("accept-encoding", value)];
            let request = parse(&Method::GET, "/range/00000", &headers).expect("a request");
            assert_eq!(request.accepts_gzip, accepted, "{value}");
        }
    }

    #[test]
    fn etags_in_a_list_are_compared_weakly() {
        let knows = |list, etag| {
            let headers = [("if-none-match", list)];
            parse(&Method::GET, "/range/00000", &headers)
                .expect("a request")
                .knows(etag)
        };
        assert!(knows("\"a-1\"", "\"a-1\""));
        assert!(knows("\"b-2\", W/\"a-1\"", "\"a-1\""));
        assert!(knows("*", "\"a-1\""));
        assert!(!knows("\"a-2\"", "\"a-1\""));
    }

    proptest! {
        #[test]
        fn no_path_panics_and_only_ranges_are_accepted(path in "(/range/)?.{0,8}") {
            if let Ok(request) = parse(&Method::GET, &path, &[]) {
                let expected = format!("/range/{}", request.range);
                prop_assert!(path.eq_ignore_ascii_case(&expected));
            }
        }
    }
}
