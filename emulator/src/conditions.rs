//! Reads a request's preconditions. One that the emulator does not know is refused: a client that
//! relies on it would otherwise overwrite what it wanted to keep.

use crate::error::StoreError;
use crate::headers::{generation, single};
use crate::objects::{GenerationMatch, ObjectMetadata};
use http::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE,
};
use std::time::SystemTime;

const GENERATION_MATCH: &str = "x-goog-if-generation-match";

/// How the names of Google's preconditions begin.
const PRECONDITION_PREFIX: &str = "x-goog-if-";

/// HTTP's own preconditions.
const OF_HTTP: [HeaderName; 4] = [
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
];

/// What a GET or a HEAD is to be answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The object.
    Send,
    /// 304: the client has this object.
    NotModified,
}

/// The precondition of a PUT or a DELETE.
pub(crate) fn of_write(headers: &HeaderMap) -> Result<GenerationMatch, StoreError> {
    if OF_HTTP.iter().any(|name| headers.contains_key(name)) {
        return Err(StoreError::InvalidArgument(
            "If-Match, If-None-Match, If-Modified-Since and If-Unmodified-Since are not supported \
             here; use x-goog-if-generation-match.",
        ));
    }
    generation_match(headers)
}

/// The precondition in `x-goog-if-generation-match`.
fn generation_match(headers: &HeaderMap) -> Result<GenerationMatch, StoreError> {
    let is_unknown = |name: &str| name.starts_with(PRECONDITION_PREFIX) && name != GENERATION_MATCH;
    if headers.keys().any(|name| is_unknown(name.as_str())) {
        return Err(StoreError::InvalidArgument(
            "x-goog-if-generation-match is the only x-goog-if- precondition that is supported.",
        ));
    }
    match single(headers, GENERATION_MATCH)?.map(generation) {
        None => Ok(GenerationMatch::Any),
        Some(Some(0)) => Ok(GenerationMatch::Absent),
        Some(Some(generation)) => Ok(GenerationMatch::Is(generation)),
        Some(None) => Err(StoreError::InvalidArgument(
            "x-goog-if-generation-match must be a generation.",
        )),
    }
}

/// Evaluates the preconditions of a GET or a HEAD on the object that is there, in the order of
/// RFC 9110, 13.2.2.
pub(crate) fn evaluate(
    headers: &HeaderMap,
    object: &ObjectMetadata,
    modified: SystemTime,
) -> Result<Verdict, StoreError> {
    if !generation_match(headers)?.holds(Some(object.generation)) {
        return Err(StoreError::PreconditionFailed);
    }
    let etag = object.etag();
    // A date that is not one is ignored, as RFC 9110 has it.
    let date = |name| -> Result<_, StoreError> {
        Ok(single(headers, name)?.and_then(|date| httpdate::parse_http_date(date).ok()))
    };
    let is_unmodified_since = |since: SystemTime| seconds(modified) <= seconds(since);
    let holds = if headers.contains_key(IF_MATCH) {
        names_etag(headers, &IF_MATCH, |tag| tag == etag)?
    } else {
        date(IF_UNMODIFIED_SINCE.as_str())?.is_none_or(is_unmodified_since)
    };
    if !holds {
        return Err(StoreError::PreconditionFailed);
    }
    let is_known = if headers.contains_key(IF_NONE_MATCH) {
        names_etag(headers, &IF_NONE_MATCH, |tag| {
            tag.strip_prefix("W/").unwrap_or(tag) == etag
        })?
    } else {
        date(IF_MODIFIED_SINCE.as_str())?.is_some_and(is_unmodified_since)
    };
    Ok(match is_known {
        true => Verdict::NotModified,
        false => Verdict::Send,
    })
}

/// Whether `If-Range` allows the byte range that the client asks for: it has a part of this object
/// and not of an earlier one.
pub(crate) fn allows_range(
    headers: &HeaderMap,
    object: &ObjectMetadata,
    modified: SystemTime,
) -> Result<bool, StoreError> {
    let Some(validator) = single(headers, IF_RANGE.as_str())? else {
        return Ok(true);
    };
    Ok(match httpdate::parse_http_date(validator) {
        Ok(date) => seconds(date) == seconds(modified),
        Err(_) => validator == object.etag(),
    })
}

/// Whether a list of ETags is `*` or has one that matches.
fn names_etag(
    headers: &HeaderMap,
    name: &HeaderName,
    matches: impl Fn(&str) -> bool,
) -> Result<bool, StoreError> {
    for value in headers.get_all(name) {
        let list = value
            .to_str()
            .map_err(|_| StoreError::InvalidArgument("A precondition is not ASCII."))?;
        if list
            .split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || matches(tag))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whole seconds since 1970, as HTTP dates have them.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Crc32c;
    use std::time::{Duration, UNIX_EPOCH};

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a name");
            map.append(name, value.parse().expect("a value"));
        }
        map
    }

    /// An object from Sun, 06 Nov 1994 08:49:37 GMT, with ETag "2d" (45).
    const OBJECT: ObjectMetadata = ObjectMetadata {
        generation: 45,
        content_length: 10,
        crc32c: Crc32c(0),
    };
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    fn modified() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(784_111_777_500)
    }

    #[test]
    fn a_write_takes_one_precondition_and_refuses_what_it_would_ignore() {
        let of = |headers: &[(&str, &str)]| of_write(&map(headers));
        assert_eq!(of(&[]), Ok(GenerationMatch::Any));
        assert_eq!(of(&[(GENERATION_MATCH, "0")]), Ok(GenerationMatch::Absent));
        assert_eq!(of(&[(GENERATION_MATCH, "7")]), Ok(GenerationMatch::Is(7)));
        for refused in [
            (GENERATION_MATCH, "+7"),
            (GENERATION_MATCH, "-1"),
            (GENERATION_MATCH, ""),
            (GENERATION_MATCH, "99999999999999999999"),
            ("x-goog-if-generation-not-match", "7"),
            ("x-goog-if-metageneration-match", "1"),
            ("x-goog-if-anything", "1"),
            ("if-match", "\"2d\""),
            ("if-none-match", "*"),
            ("if-modified-since", THEN),
            ("if-unmodified-since", THEN),
        ] {
            let verdict = of(&[refused]);
            assert!(
                matches!(verdict, Err(StoreError::InvalidArgument(_))),
                "{refused:?}"
            );
        }
        let twice = of(&[(GENERATION_MATCH, "7"), (GENERATION_MATCH, "8")]);
        assert_eq!(twice, Err(StoreError::ExcessHeaderValues));
        let mut not_ascii = HeaderMap::new();
        let value = http::HeaderValue::from_bytes(b"\xff").expect("a value");
        not_ascii.insert(GENERATION_MATCH, value);
        assert!(of_write(&not_ascii).is_err());
    }

    #[test]
    fn a_read_is_sent_not_modified_or_refused_as_its_preconditions_say() {
        const FAILED: Result<Verdict, StoreError> = Err(StoreError::PreconditionFailed);
        for (headers, expected) in [
            (vec![], Ok(Verdict::Send)),
            (vec![(GENERATION_MATCH, "45")], Ok(Verdict::Send)),
            (vec![(GENERATION_MATCH, "46")], FAILED),
            (vec![(GENERATION_MATCH, "0")], FAILED),
            (vec![("if-match", "\"1\", \"2d\"")], Ok(Verdict::Send)),
            (vec![("if-match", "*")], Ok(Verdict::Send)),
            (vec![("if-match", "\"1\"")], FAILED),
            (vec![("if-match", "W/\"2d\"")], FAILED),
            (
                vec![("if-none-match", "W/\"2d\"")],
                Ok(Verdict::NotModified),
            ),
            (vec![("if-none-match", "\"1\"")], Ok(Verdict::Send)),
            (
                vec![("if-none-match", "\"1\""), ("if-modified-since", THEN)],
                Ok(Verdict::Send),
            ),
            (vec![("if-modified-since", THEN)], Ok(Verdict::NotModified)),
            (vec![("if-modified-since", BEFORE)], Ok(Verdict::Send)),
            (vec![("if-modified-since", "yesterday")], Ok(Verdict::Send)),
            (vec![("if-unmodified-since", THEN)], Ok(Verdict::Send)),
            (vec![("if-unmodified-since", BEFORE)], FAILED),
        ] {
            let verdict = evaluate(&map(&headers), &OBJECT, modified());
            assert_eq!(verdict, expected, "{headers:?}");
        }
        let unknown = map(&[("x-goog-if-metageneration-match", "1")]);
        assert!(evaluate(&unknown, &OBJECT, modified()).is_err());
    }

    #[test]
    fn if_range_allows_a_part_of_the_same_object_only() {
        for (validator, allowed) in [
            ("\"2d\"", true),
            ("W/\"2d\"", false),
            ("\"2e\"", false),
            (THEN, true),
            (BEFORE, false),
        ] {
            let headers = map(&[("if-range", validator)]);
            let verdict = allows_range(&headers, &OBJECT, modified());
            assert_eq!(verdict, Ok(allowed), "{validator}");
        }
        assert_eq!(allows_range(&map(&[]), &OBJECT, modified()), Ok(true));
    }
}
