//! Logs to stderr. Secrets are redacted, also in what libraries log, and no event can forge another
//! or send a terminal what it would not take for text.

use crate::progress::output::{self, Urgency};
use crate::redaction::redacted;
use prefix_tar::protocol::text::{escaped, is_unsafe};
use std::fmt;
use std::io::{IsTerminal as _, Write};
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::{FilterExt as _, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// The environment variable with the log filter in `tracing-subscriber`'s syntax: `debug`, `orchestrator=trace`.
const LOG_VARIABLE: &str = "PREFIX_TAR_LOG";

/// What is logged without that variable: our own warnings, and the errors of libraries.
const FILTER_DEFAULT: &str = "error,orchestrator=warn,emulator=warn";

/// The modules whose events never depend on which ranges are asked for, at any level.
const CHECKED_MODULES: [&str; 4] = [
    "orchestrator::cli",
    "orchestrator::http_server",
    "orchestrator::range_api",
    "orchestrator::tls",
];

/// What may be logged, whatever the filter asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// What the filter asks for.
    Everything,
    /// Only events of [`CHECKED_MODULES`]. Servers and clients of HTTP log the paths and headers of requests, and what
    /// reads an archive logs offsets: both tell which range a client of `serve` has asked for.
    CheckedModules,
}

impl Scope {
    fn targets(self) -> Targets {
        match self {
            Self::Everything => Targets::new().with_default(LevelFilter::TRACE),
            Self::CheckedModules => {
                let checked = CHECKED_MODULES.map(|module| (module, LevelFilter::TRACE));
                Targets::new().with_targets(checked)
            }
        }
    }
}

/// Starts the log.
pub(super) fn start(scope: Scope) {
    let filter = tracing_subscriber::EnvFilter::try_from_env(LOG_VARIABLE)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(FILTER_DEFAULT));
    let is_coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let layer = tracing_subscriber::fmt::layer()
        .fmt_fields(debug_fn(write_field).delimited(" "))
        .with_writer(Log { is_coloured })
        .with_ansi(is_coloured)
        .with_filter(filter.and(scope.targets()));
    tracing_subscriber::registry().with(layer).init();
}

/// Writes a field. Only fields hold text from elsewhere, so the colours around them stay.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = format!("{value:?}");
    let value = escaped(&value);
    match field.name() {
        "message" => write!(writer, "{value}"),
        name => write!(writer, "{name}={value}"),
    }
}

/// Writes events to stderr, redacted. Our own types cannot print their secrets, but libraries log
/// whole URLs at `trace`.
#[derive(Clone, Copy)]
struct Log {
    is_coloured: bool,
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

impl Write for Log {
    /// The subscriber writes each event with one call.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let line = one_line(&redacted(text), self.is_coloured) + "\n";
        output::stderr().text(Urgency::Log, &line);
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The text with everything escaped that is unsafe to show, but for colours if they are ours.
fn one_line(text: &str, is_coloured: bool) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_unsafe) {
        let (before, unsafe_on) = rest.split_at(at);
        shown.push_str(before);
        let colour = colour_bytes(unsafe_on).filter(|_| is_coloured);
        let bytes = colour.unwrap_or_else(|| unsafe_on.chars().next().map_or(0, char::len_utf8));
        let (first, after) = unsafe_on.split_at(bytes);
        match colour {
            Some(_) => shown.push_str(first),
            None => shown.push_str(&escaped(first)),
        }
        rest = after;
    }
    shown + rest
}

/// The length of the sequence that the text begins with, if it sets a colour: `ESC [ 1 ; 31 m`.
fn colour_bytes(text: &str) -> Option<usize> {
    const BEGINS: &str = "\u{1b}[";
    let parameters = text.strip_prefix(BEGINS)?;
    let end = parameters.find(|character: char| !character.is_ascii_digit() && character != ';')?;
    parameters
        .get(end..)?
        .starts_with('m')
        .then_some(BEGINS.len() + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_and_only_our_colours_survive() {
        let text = "\u{1b}[2m\u{1b}[31mERROR\u{1b}[0m a\nb\u{1b}[2Jc\u{9b}31md\u{1b}[3";
        let plain = one_line(text, false);
        assert!(!plain.contains(is_unsafe), "{plain:?}");
        assert_eq!(
            one_line(text, true),
            "\u{1b}[2m\u{1b}[31mERROR\u{1b}[0m a\\u{a}b\\u{1b}[2Jc\\u{9b}31md\\u{1b}[3"
        );
        assert_eq!(one_line("plain", true), "plain");
    }

    #[test]
    fn only_checked_modules_log_while_ranges_are_secret() {
        let logs = |scope: Scope, target: &str| {
            let targets = scope.targets();
            targets.would_enable(target, &tracing::Level::TRACE)
                || targets.would_enable(target, &tracing::Level::ERROR)
        };
        for target in [
            "hyper::proto::h1::role",
            "h2::codec",
            "orchestrator::gcs::client",
        ] {
            assert!(logs(Scope::Everything, target));
            assert!(!logs(Scope::CheckedModules, target), "{target}");
        }
        for target in [
            "orchestrator::range_api::cache",
            "orchestrator::http_server",
        ] {
            assert!(logs(Scope::CheckedModules, target), "{target}");
        }
    }

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_field_cannot_bring_its_own_colours_or_lines() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .with_writer(move || writer.clone())
            .with_ansi(true)
            .finish();
        let forged = "a\u{1b}[31mb\nERROR forged\u{202e}";
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::error_span!("outer", text = %forged).entered();
            tracing::error!(shown = %forged, debugged = ?forged, "message {forged}");
        });
        let logged = kept.0.lock().expect("not poisoned").clone();
        let logged = String::from_utf8(logged).expect("UTF-8");
        let event = logged.strip_suffix('\n').expect("a line");
        assert_eq!(event.matches(r"a\u{1b}[31mb").count(), 4, "{event:?}");
        // What is left are the colours of the format, which the writer lets through.
        let shown = one_line(event, true);
        assert_eq!(shown, event);
        assert!(shown.contains("\u{1b}["), "{shown:?}");
    }
}
