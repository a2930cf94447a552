//! Parses requests of the range API: the range, the accepted codings, padding and the known ETags.

use super::coding::AcceptedCodings;
use http::Method;
use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use prefix_tar::protocol::etag::opaque;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::RangeName;

/// The path of a range, before its name.
pub const RANGES: &str = "/range/";

/// The request header for a padded body.
pub const ADD_PADDING: HeaderName = HeaderName::from_static("add-padding");

/// The only parameter of a query.
const MODE: &str = "mode=";

/// A valid request for a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// The requested range.
    pub range: RangeName,
    /// Which hashes are asked for: SHA-1 unless the query says otherwise.
    pub mode: Mode,
    /// The content codings that the client accepts.
    pub codings: AcceptedCodings,
    /// Whether the body is to be padded.
    pub is_padded: bool,
    /// The values of `If-None-Match`: ETags of the bodies that the client has.
    known: Vec<HeaderValue>,
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
    /// The query asks for something else than a mode.
    Query,
}

impl RangeRequest {
    /// Parses a request.
    ///
    /// # Errors
    /// The request has another method, path or query, or its range is invalid.
    pub fn parse(
        method: &Method,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        let name = path.strip_prefix(RANGES).ok_or(Refusal::Path)?;
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(Refusal::Method);
        }
        let range = range(name).ok_or(Refusal::Range)?;
        let mode = mode(query).ok_or(Refusal::Query)?;
        let encodings = headers.get_all(ACCEPT_ENCODING).into_iter();
        Ok(Self {
            range,
            mode,
            codings: AcceptedCodings::parse(encodings.filter_map(|value| value.to_str().ok())),
            is_padded: headers
                .get(ADD_PADDING)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true")),
            known: headers
                .get_all(IF_NONE_MATCH)
                .into_iter()
                .cloned()
                .collect(),
        })
    }

    /// Whether the client has the body with this ETag. The comparison is weak (RFC 9110, 13.1.2): it
    /// ignores the coding.
    pub fn knows(&self, etag: &str) -> bool {
        self.known
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|list| list.split(',').map(str::trim))
            .any(|candidate| candidate == "*" || opaque(candidate) == opaque(etag))
    }
}

/// The mode that a query asks for.
fn mode(query: Option<&str>) -> Option<Mode> {
    match query {
        None | Some("") => Some(Mode::Sha1),
        Some(query) => query.strip_prefix(MODE)?.parse().ok(),
    }
}

/// The range with this name, in either case.
fn range(name: &str) -> Option<RangeName> {
    // Upper case allocates, so it is not for names of any length.
    const NAME_BYTES: usize = 5;
    (name.len() == NAME_BYTES)
        .then(|| name.to_ascii_uppercase().parse().ok())
        .flatten()
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
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        let headers = headers.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        });
        RangeRequest::parse(method, path, query, &headers.collect())
    }

    #[test]
    fn a_range_is_accepted_in_either_case_and_everything_else_is_refused() {
        for path in ["/range/ab7ff", "/range/AB7FF?mode=sha1", "/range/aB7fF?"] {
            let request = parse(&Method::HEAD, path, &[]).expect("a request");
            assert_eq!(request.range.to_string(), "AB7FF");
            assert_eq!(request.mode, Mode::Sha1);
        }
        let ntlm = parse(&Method::GET, "/range/AB7FF?mode=ntlm", &[]);
        assert_eq!(ntlm.expect("a request").mode, Mode::Ntlm);
        for (method, path, refusal) in [
            (Method::POST, "/range/AB7FF", Refusal::Method),
            (Method::OPTIONS, "/range/AB7FF", Refusal::Method),
            (Method::POST, "/elsewhere", Refusal::Path),
            (Method::GET, "/", Refusal::Path),
            (Method::GET, "/range", Refusal::Path),
            (Method::GET, "/range/", Refusal::Range),
            (Method::GET, "/range/AB7F", Refusal::Range),
            (Method::GET, "/range/AB7FFF", Refusal::Range),
            (Method::GET, "/range/AB7FG", Refusal::Range),
            (Method::GET, "/range/AB7FF/", Refusal::Range),
            (Method::GET, "/range/%41B7FF", Refusal::Range),
            (Method::GET, "/range/../x", Refusal::Range),
            (Method::GET, "/range/ab7f\u{130}", Refusal::Range),
            (Method::GET, "/range/AB7FF?mode=", Refusal::Query),
            (Method::GET, "/range/AB7FF?mode=NTLM", Refusal::Query),
            (
                Method::GET,
                "/range/AB7FF?mode=ntlm&mode=sha1",
                Refusal::Query,
            ),
            (Method::GET, "/range/AB7FF?mode=SHA1", Refusal::Query),
            (Method::GET, "/range/AB7FF?mode=sha1&x", Refusal::Query),
            (Method::GET, "/range/AB7FF?x", Refusal::Query),
        ] {
            assert_eq!(parse(&method, path, &[]), Err(refusal), "{method} {path}");
        }
    }

    #[test]
    fn padding_is_asked_for_by_the_word_true() {
        for (value, is_padded) in [
            ("true", true),
            ("True", true),
            ("false", false),
            ("1", false),
        ] {
            let headers = [("add-padding", value)];
            let request = parse(&Method::GET, "/range/00000", &headers).expect("a request");
            assert_eq!(request.is_padded, is_padded, "{value}");
        }
    }

    #[test]
    fn etags_in_a_list_are_compared_weakly() {
        let knows = |lists: &[&str], etag| {
            let headers: Vec<_> = lists.iter().map(|list| ("if-none-match", *list)).collect();
            parse(&Method::GET, "/range/00000", &headers)
                .expect("a request")
                .knows(etag)
        };
        assert!(knows(&["\"a-1\""], "\"a-1\""));
        assert!(knows(&["\"a-1\""], "W/\"a-1\""));
        assert!(knows(&["\"b-2\", W/\"a-1\""], "\"a-1\""));
        assert!(knows(&["*"], "\"a-1\""));
        assert!(!knows(&["\"a-2\""], "\"a-1\""));
        assert!(!knows(&[], "\"a-1\""));
    }

    proptest! {
        #[test]
        fn no_path_panics_and_only_ranges_are_accepted(path in "(/range/)?.{0,8}") {
            if let Ok(request) = parse(&Method::GET, &path, &[]) {
                let path = path.split('?').next().unwrap_or_default();
                let expected = format!("/range/{}", request.range);
                prop_assert!(path.eq_ignore_ascii_case(&expected));
            }
        }
    }
}
