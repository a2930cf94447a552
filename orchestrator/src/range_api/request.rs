//! What a request of the range API asks for: one range, in which encoding, and unless it is known already.
//! Answering it is left to the API.

use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, IF_NONE_MATCH};
use http::{HeaderName, Method};
use prefix_tar::prefix::RangeName;

/// A request for a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// Which range.
    pub range: RangeName,
    /// Whether the body may be gzip.
    pub accepts_gzip: bool,
    /// ETags that the client has.
    known: Option<String>,
}

/// Why a request is none for a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Neither GET nor HEAD.
    Method,
    /// Another path than `/range/...`.
    Path,
    /// Not five hex characters.
    Range,
}

impl RangeRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// It is none for a range.
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

    /// Whether the client has what has this ETag. Weak comparison (RFC 9110, 13.1.2): whether the body is the same,
    /// however it is encoded.
    pub fn knows(&self, etag: &str) -> bool {
        self.known.as_deref().is_some_and(|list| {
            list.split(',').map(str::trim).any(|candidate| {
                candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == etag
            })
        })
    }
}

/// Whether an `Accept-Encoding` names gzip with another weight than 0 (RFC 9110, 12.5.3).
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
    fn a_range_is_asked_for_in_either_case_and_nothing_else_is_one() {
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
    fn gzip_is_accepted_by_name_and_weight() {
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
    fn an_etag_is_known_weakly_and_in_a_list() {
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
        fn no_path_makes_it_panic_and_only_a_range_is_taken(path in "(/range/)?.{0,8}") {
            if let Ok(request) = parse(&Method::GET, &path, &[]) {
                let taken = format!("/range/{}", request.range);
                prop_assert!(path.eq_ignore_ascii_case(&taken));
            }
        }
    }
}
