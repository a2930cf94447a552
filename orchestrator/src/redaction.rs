//! Redacts secrets in text that is not ours: what libraries log, and what remote components say.

use std::borrow::Cow;
use std::ops::Range;

/// The texts that precede a secret: a V4 signature, a bearer token, the credentials of a proxy.
const SECRETS_FOLLOW: [&str; 4] = [
    "x-goog-signature=",
    "x-goog-signature%3d",
    "bearer ",
    "authorization: basic ",
];

/// How a private key in PEM begins, of whatever kind: PKCS#8, `RSA`, `EC`, `ENCRYPTED`.
const KEY_BEGINS: &str = "-----begin ";

/// What follows the kind.
const KEY_BEGUN: &str = "private key-----";

/// How a private key ends, before its kind.
const KEY_ENDS: &str = "-----end ";

/// The longest kind, in bytes.
const KIND_BYTES_MAX: usize = 32;

/// What replaces a secret.
const REDACTED: &str = "<redacted>";

/// The text with its secrets replaced.
pub(crate) fn redacted(text: &str) -> Cow<'_, str> {
    let mut found = secrets_in(&text.to_ascii_lowercase());
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    found.sort_unstable_by_key(|secret| secret.start);
    let mut shown = String::with_capacity(text.len());
    let mut done = 0;
    for secret in found {
        if secret.start < done {
            // It begins in the secret before it, and may end behind that.
            done = done.max(secret.end);
            continue;
        }
        shown.push_str(text.get(done..secret.start).unwrap_or_default());
        shown.push_str(REDACTED);
        done = secret.end;
    }
    shown.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(shown)
}

/// Where secrets are, in a text in lower case.
fn secrets_in(lower: &str) -> Vec<Range<usize>> {
    let values = SECRETS_FOLLOW.iter().flat_map(|before| {
        lower.match_indices(before).map(|(at, _)| {
            let start = at + before.len();
            let rest = lower.get(start..).unwrap_or_default();
            start..start + rest.find(ends_secret).unwrap_or(rest.len())
        })
    });
    let keys = lower
        .match_indices(KEY_BEGINS)
        .filter_map(|(at, _)| key_after(lower, at + KEY_BEGINS.len()));
    values.chain(keys).collect()
}

/// The private key whose kind is at `kind_at`, up to its end. If that is missing, all of the text is
/// the key's.
fn key_after(lower: &str, kind_at: usize) -> Option<Range<usize>> {
    let kind = lower.get(kind_at..)?.find(KEY_BEGUN)?;
    if kind > KIND_BYTES_MAX {
        return None;
    }
    let start = kind_at + kind + KEY_BEGUN.len();
    let rest = lower.get(start..)?;
    let end = rest.find(KEY_ENDS).and_then(|ends| {
        let after = ends + KEY_ENDS.len();
        Some(after + rest.get(after..)?.find(KEY_BEGUN)? + KEY_BEGUN.len())
    });
    Some(start..start + end.unwrap_or(rest.len()))
}

fn ends_secret(character: char) -> bool {
    character.is_whitespace() || "\"'&<>,;)}]".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secrets_are_redacted_wherever_they_are() {
        for (text, shown) in [
            ("nothing secret", "nothing secret"),
            (
                "GET /b/o?X-Goog-Date=1&X-Goog-Signature=5ec4e7&x=y HTTP/1.1",
                "GET /b/o?X-Goog-Date=1&X-Goog-Signature=<redacted>&x=y HTTP/1.1",
            ),
            (
                "\"authorization\": \"Bearer 5ec4e7\", \"a\": \"b\"",
                "\"authorization\": \"Bearer <redacted>\", \"a\": \"b\"",
            ),
            (
                "Proxy-Authorization: Basic 5ec4e7==\r\nbasic things",
                "Proxy-Authorization: Basic <redacted>\r\nbasic things",
            ),
            (
                "two: x-goog-signature=5ec4e7 and X-Goog-Signature%3D5ec4e7",
                "two: x-goog-signature=<redacted> and X-Goog-Signature%3D<redacted>",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\\n5ec4e7\"",
                "-----BEGIN PRIVATE KEY-----<redacted>",
            ),
            (
                "key: -----BEGIN RSA PRIVATE KEY-----\n5ec4e7\n5ec4e7==\n-----END RSA PRIVATE KEY-----\nafter",
                "key: -----BEGIN RSA PRIVATE KEY-----<redacted>\nafter",
            ),
            (
                r"-----BEGIN EC PRIVATE KEY-----\u{a}5ec4e7\u{a}-----END EC PRIVATE KEY-----\u{a}after",
                r"-----BEGIN EC PRIVATE KEY-----<redacted>\u{a}after",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\r\n5ec4e7\r\n-----END",
                "-----BEGIN PRIVATE KEY-----<redacted>",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nc0ffee\n-----END CERTIFICATE-----",
                "-----BEGIN CERTIFICATE-----\nc0ffee\n-----END CERTIFICATE-----",
            ),
        ] {
            assert_eq!(redacted(text), shown);
        }
    }

    proptest! {
        #[test]
        fn no_line_of_a_key_survives(
            before in ".*",
            kind in "(RSA |EC |ENCRYPTED )?",
            lines in prop::collection::vec("[0-9a-zA-Z+/]{40,64}", 1..5),
            end in "(\r?\n|\\\\n)",
            is_whole in any::<bool>(),
        ) {
            let mut text = format!("{before}-----BEGIN {kind}PRIVATE KEY-----{end}{}", lines.join(&end));
            if is_whole {
                text += &format!("{end}-----END {kind}PRIVATE KEY-----{end}after");
            }
            let shown = redacted(&text);
            for line in &lines {
                prop_assert!(!shown.contains(line.as_str()), "{shown}");
            }
            prop_assert_eq!(shown.ends_with("after"), is_whole);
        }

        #[test]
        fn no_signature_survives(before in ".*", secret in "[0-9a-f]{8,64}", after in "[ \"&].*") {
            prop_assume!(!before.contains(&secret) && !after.contains(&secret));
            let text = format!("{before}X-Goog-Signature={secret}{after}");
            prop_assert!(!redacted(&text).contains(&secret));
        }
    }
}
