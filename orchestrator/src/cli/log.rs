//! Logs to stderr. Secrets are redacted, also in what libraries log.

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write};
use tracing_subscriber::fmt::MakeWriter;

/// The environment variable with the log filter in `tracing-subscriber`'s syntax: `debug`, `orchestrator=trace`.
const LOG_VARIABLE: &str = "PREFIX_TAR_LOG";

/// The texts that precede a secret: a V4 signature, a bearer token, a key.
const SECRETS_FOLLOW: [&str; 4] = [
    "x-goog-signature=",
    "x-goog-signature%3d",
    "bearer ",
    "private key-----",
];

/// What replaces a secret.
const REDACTED: &str = "<redacted>";

/// Starts the log.
pub(super) fn start() {
    let filter = tracing_subscriber::EnvFilter::try_from_env(LOG_VARIABLE)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    let is_coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Redacting)
        .with_ansi(is_coloured)
        .init();
}

/// Redacts stderr. Our own types cannot print their secrets, but libraries log whole URLs at `trace`.
struct Redacting;

impl MakeWriter<'_> for Redacting {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

impl Write for Redacting {
    /// The subscriber writes each event with one call.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        std::io::stderr().write_all(redacted(&text).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Replaces what follows [`SECRETS_FOLLOW`], up to the end of the URL, header or quotation.
fn redacted(text: &str) -> Cow<'_, str> {
    let lower = text.to_ascii_lowercase();
    let mut found: Vec<usize> = SECRETS_FOLLOW
        .iter()
        .flat_map(|before| lower.match_indices(before).map(|(at, _)| at + before.len()))
        .collect();
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    found.sort_unstable();
    let mut shown = String::with_capacity(text.len());
    let mut done = 0;
    for secret in found {
        if secret < done {
            continue;
        }
        let (Some(before), Some(rest)) = (text.get(done..secret), text.get(secret..)) else {
            continue;
        };
        shown.push_str(before);
        shown.push_str(REDACTED);
        let length = rest.find(ends_secret).unwrap_or(rest.len());
        done = secret + length;
    }
    shown.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(shown)
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
                "two: x-goog-signature=5ec4e7 and X-Goog-Signature%3D5ec4e7",
                "two: x-goog-signature=<redacted> and X-Goog-Signature%3D<redacted>",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\\n5ec4e7\"",
                "-----BEGIN PRIVATE KEY-----<redacted>\"",
            ),
        ] {
            assert_eq!(redacted(text), shown);
        }
    }

    proptest! {
        #[test]
        fn no_signature_survives(before in ".*", secret in "[0-9a-f]{8,64}", after in "[ \"&].*") {
            prop_assume!(!before.contains(&secret) && !after.contains(&secret));
            let text = format!("{before}X-Goog-Signature={secret}{after}");
            prop_assert!(!redacted(&text).contains(&secret));
        }
    }
}
