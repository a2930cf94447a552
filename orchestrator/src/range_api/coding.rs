//! [`AcceptedCodings`]: which content codings a client accepts, and which one it gets.

/// A content coding that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// The body as it is.
    Identity,
    /// gzip.
    Gzip,
    /// Brotli.
    Brotli,
}

impl Coding {
    /// The name in `Content-Encoding`; `None` for identity, which is not named there.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Brotli => Some("br"),
        }
    }
}

/// A weight of 1 in thousandths, the finest that HTTP knows.
const WEIGHT_MAX: u16 = 1000;

/// What a client accepts (RFC 9110, 12.5.3), as weights in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptedCodings {
    /// `None` if the client does not name it: then it is acceptable, but anything else that is named is preferred.
    identity: Option<u16>,
    gzip: u16,
    brotli: u16,
}

impl AcceptedCodings {
    /// Parses the values of `Accept-Encoding`. What is malformed counts as not accepted. `*` selects nothing, since
    /// clients that send it cannot always decode everything.
    pub fn parse<'value>(values: impl Iterator<Item = &'value str>) -> Self {
        let mut accepted = Self::default();
        for coding in values.flat_map(|value| value.split(',')) {
            let mut parts = coding.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(weight).unwrap_or(WEIGHT_MAX);
            if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
                accepted.gzip = weight;
            } else if name.eq_ignore_ascii_case("br") {
                accepted.brotli = weight;
            } else if name.eq_ignore_ascii_case("identity") {
                accepted.identity = Some(weight);
            }
        }
        accepted
    }

    /// Whether the client accepts a gzip body.
    pub const fn has_gzip(self) -> bool {
        self.gzip > 0
    }

    /// The coding with the highest weight. Of equal ones, it is the one that makes the smallest body.
    pub fn best(self) -> Coding {
        let identity = self.identity.unwrap_or(0);
        [(self.brotli, Coding::Brotli), (self.gzip, Coding::Gzip)]
            .into_iter()
            .filter(|(weight, _)| *weight > 0 && *weight >= identity)
            .reduce(|best, other| if other.0 > best.0 { other } else { best })
            .map_or(Coding::Identity, |(_, coding)| coding)
    }
}

/// The weight in thousandths if this parameter is one; 0 if it is malformed.
fn weight(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim_end().eq_ignore_ascii_case("q") {
        return None;
    }
    let value: f32 = value.trim_start().parse().unwrap_or(0.0);
    // A number that is out of bounds saturates, and what is not a number becomes 0.
    Some(((value * f32::from(WEIGHT_MAX)) as u16).min(WEIGHT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn best(value: &str) -> Coding {
        AcceptedCodings::parse(std::iter::once(value)).best()
    }

    #[test]
    fn the_coding_with_the_highest_weight_is_chosen() {
        for (value, coding) in [
            ("", Coding::Identity),
            ("identity", Coding::Identity),
            ("gzip", Coding::Gzip),
            ("br", Coding::Brotli),
            ("gzip, deflate, br, zstd", Coding::Brotli),
            ("br;q=0.5, GZIP;q=0.8", Coding::Gzip),
            ("br;q=0.8, gzip;q=0.8", Coding::Brotli),
            ("gzip;q=0.001", Coding::Gzip),
            ("gzip;q=0", Coding::Identity),
            ("gzip; q=0.0, br", Coding::Brotli),
            ("gzip;Q = 0.2, br;q=0", Coding::Gzip),
            ("gzip;q=x", Coding::Identity),
            ("gzip;q=nan", Coding::Identity),
            ("gzip;q=-1", Coding::Identity),
            ("identity;q=0.9, gzip;q=0.5", Coding::Identity),
            ("identity;q=0.5, gzip;q=0.5", Coding::Gzip),
            ("identity;q=0, gzip;q=0", Coding::Identity),
            ("x-gzip", Coding::Gzip),
            ("xgzip, brotli", Coding::Identity),
            ("*", Coding::Identity),
            ("zstd, *;q=0", Coding::Identity),
        ] {
            assert_eq!(best(value), coding, "{value}");
        }
    }

    #[test]
    fn several_headers_are_one_list() {
        let values = ["gzip;q=0.5", "br;q=0.4"];
        assert_eq!(
            AcceptedCodings::parse(values.into_iter()).best(),
            Coding::Gzip
        );
    }

    proptest! {
        #[test]
        fn a_coding_that_is_not_named_is_never_chosen(value in "[a-z0-9=;,. *]{0,40}") {
            if let Some(name) = best(&value).name() {
                prop_assert!(value.contains(name));
            }
        }
    }
}
