//! The command line, with a file per command.

mod archive_places;
mod args;
mod byte_size;
mod check;
mod completions;
mod data_output;
mod demo;
mod export;
mod generate;
mod heap_table;
mod log;
mod man;
mod page;
mod private_file;
mod run;
mod schema;
mod serve;
mod signals;
mod staged_file;
mod staged_folder;
mod status;
mod store;
mod summary;
mod token;
mod verify;

use crate::progress::output::{self, Urgency};
use crate::proxy::{self, ProxyVariableError};
use crate::run::shutdown::Shutdown;
use clap::{CommandFactory as _, Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

/// Everything succeeded.
const EXIT_DONE: u8 = 0;
/// Something failed; a message names it.
const EXIT_FAILED: u8 = 1;
/// `check` found a password.
const EXIT_FOUND: u8 = 1;
/// `status` found something new.
const EXIT_NEW: u8 = 1;
/// The command line or the environment is wrong. clap uses the same code.
const EXIT_USAGE: u8 = 2;
/// Nothing is damaged, found or new, but not everything could be read, looked up or compared.
const EXIT_UNREADABLE: u8 = 3;
/// Stopped by Ctrl-C or SIGTERM: 128 plus the number of SIGINT, as shells report it.
const EXIT_STOPPED: u8 = 130;

/// How long a graceful shutdown of a command without `--grace` may take.
const GRACE: Duration = Duration::from_secs(3);

/// How long the program's end waits for work that nobody waits for any more, such as a file that is
/// being closed.
const REST_MAX: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  orchestrator demo                          see it work, offline
  orchestrator run --to ./archive            mirror everything into ./archive
  orchestrator run --to ./archive -p 2       mirror the first two prefixes
  orchestrator verify ./archive              read it back and check every byte
  orchestrator status ./archive              how old is it, and is there anything new?
  orchestrator check ./archive               how often does a password occur?
  orchestrator export ./archive --top 1000   the most frequent hashes

Exit codes: 0 success, 1 failure, a password that was found (check) or something new (status), 2
wrong usage, 3 nothing damaged, found or new but not everything readable (verify, export, check,
status), 130 stopped by Ctrl-C or SIGTERM.
HTTPS_PROXY, HTTP_PROXY and NO_PROXY are honored, as by curl.
Set PREFIX_TAR_LOG=debug for debug logs on stderr.";

/// Mirrors the Pwned Passwords range API into 256 tars, one WebAssembly invocation per prefix.
#[derive(Debug, Parser)]
#[command(name = "orchestrator", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Run>),
    Verify(verify::Verify),
    Status(status::Status),
    Check(check::Check),
    Export(export::Export),
    Page(page::Page),
    Demo(demo::Demo),
    Generate(generate::Generate),
    Serve(serve::Serve),
    Store(store::Store),
    Token(token::Token),
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(man::Man),
    #[command(hide = true)]
    Schema(schema::Schema),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Failed,
    Found,
    New,
    Unreadable,
    Stopped,
}

impl End {
    const fn exit_code(self) -> u8 {
        match self {
            Self::Done => EXIT_DONE,
            Self::Failed => EXIT_FAILED,
            Self::Found => EXIT_FOUND,
            Self::New => EXIT_NEW,
            Self::Unreadable => EXIT_UNREADABLE,
            Self::Stopped => EXIT_STOPPED,
        }
    }
}

/// Parses `arguments`, runs the command, and returns the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(message) => {
            // Help goes to stdout and usage errors to stderr. If neither is open, nobody is there to read it.
            let _ = message.print();
            return ExitCode::from(if message.use_stderr() {
                EXIT_USAGE
            } else {
                EXIT_DONE
            });
        }
    };
    log::start(cli.command.log_scope());
    if !matches!(cli.command, Command::Demo(_)) {
        proxy::use_environment();
    }
    let mut shutdown = Shutdown::default();
    let end = signals::listen(cli.command.grace()).and_then(|listening| {
        shutdown = listening;
        cli.command.run_to_its_end(&shutdown)
    });
    let exit_code = match end {
        Ok(end) => end.exit_code(),
        Err(error) => {
            print_status(&format!("error: {error:#}"));
            if is_usage_error(&error) {
                EXIT_USAGE
            } else {
                EXIT_FAILED
            }
        }
    };
    output::drain(&|| shutdown.graceful.is_cancelled());
    ExitCode::from(exit_code)
}

/// Whether the user has to change the environment, and nothing has been done.
fn is_usage_error(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<ProxyVariableError>())
}

impl Command {
    /// What may be logged.
    const fn log_scope(&self) -> log::Scope {
        match self {
            Self::Serve(_) => log::Scope::CheckedModules,
            _ => log::Scope::Everything,
        }
    }

    /// How long a graceful shutdown may take.
    const fn grace(&self) -> Duration {
        match self {
            Self::Run(command) => command.grace(),
            Self::Demo(command) => command.grace(),
            _ => GRACE,
        }
    }

    fn run_to_its_end(self, shutdown: &Shutdown) -> anyhow::Result<End> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let end = runtime.block_on(self.run(shutdown.clone()));
        if shutdown.immediate.is_cancelled() {
            // Work in other threads may still use the runtime. It ends with the program, now.
            std::mem::forget(runtime);
        } else {
            runtime.shutdown_timeout(REST_MAX);
        }
        end
    }

    async fn run(self, shutdown: Shutdown) -> anyhow::Result<End> {
        match self {
            Self::Run(command) => command.run(shutdown).await,
            Self::Verify(command) => unless_stopped(command.run(shutdown.clone()), &shutdown).await,
            Self::Status(command) => command.run(shutdown).await,
            Self::Check(command) => command.run(shutdown).await,
            Self::Export(command) => unless_stopped(command.run(shutdown.clone()), &shutdown).await,
            Self::Page(command) => unless_stopped(command.run(), &shutdown).await,
            Self::Demo(command) => command.run(shutdown).await,
            Self::Generate(command) => {
                unless_stopped(command.run(shutdown.clone()), &shutdown).await
            }
            Self::Serve(command) => command.run(shutdown).await,
            Self::Store(command) => command.run(shutdown).await,
            Self::Token(command) => command.run(),
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(),
            Self::Schema(command) => command.run(),
        }
    }
}

/// Waits for a command that has nothing to put in order, at most until an immediate shutdown.
async fn unless_stopped(
    command: impl Future<Output = anyhow::Result<End>>,
    shutdown: &Shutdown,
) -> anyhow::Result<End> {
    tokio::select! {
        end = command => end,
        () = shutdown.immediate.cancelled() => Ok(End::Stopped),
    }
}

/// The names and one-line descriptions of the visible commands, for the README's table.
pub fn commands() -> Vec<(String, String)> {
    Cli::command()
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| {
            let about = command.get_about().map(ToString::to_string);
            (command.get_name().to_owned(), about.unwrap_or_default())
        })
        .collect()
}

/// Prints a line of the result to stdout.
fn print(line: &str) {
    // On a terminal, both streams are one text.
    output::stderr().settle();
    output::stdout().line(Urgency::Result, line);
}

/// Prints a result that is JSON to stdout, in one line.
fn print_json(record: &str) {
    output::stderr().settle();
    output::stdout().json(Urgency::Result, record);
}

/// Prints text of our own to stdout that has several lines.
fn print_text(text: &str) {
    output::stderr().settle();
    output::stdout().text(Urgency::Result, &format!("{text}\n"));
}

/// Prints a line about what is happening to stderr.
fn print_status(line: &str) {
    output::stdout().settle();
    output::stderr().line(Urgency::Result, line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_needs_one_source_of_ranges() {
        let parses = |arguments: &str| {
            let arguments = ["orchestrator", "serve"]
                .into_iter()
                .chain(arguments.split_whitespace());
            Cli::try_parse_from(arguments).is_ok()
        };
        assert!(parses("-d .") && parses("--synthetic 1"));
        assert!(parses("--synthetic 1 --hashes-per-range 9"));
        assert!(!parses("") && !parses("-d . --synthetic 1"));
        assert!(!parses("-d . --hashes-per-range 9"));
        assert!(parses("./archive") && parses("gs://pwned/a --poll 5 --cache-bytes 1G"));
        assert!(!parses("./archive -d .") && !parses("./archive --synthetic 1"));
        assert!(!parses("-d . --poll 5") && !parses("--synthetic 1 --path-prefix /a"));
        assert!(!parses("./archive --cache-bytes 1K") && !parses("./archive --hashes-per-range 9"));
        assert!(parses("-d . --tls-cert c --tls-key k") && !parses("./archive --tls-key k"));
    }

    #[test]
    fn the_help_has_not_changed() {
        let mut command = Cli::command();
        insta::assert_snapshot!(command.render_help());
    }

    #[test]
    fn the_help_of_every_command_has_not_changed() {
        let mut command = Cli::command();
        command.build();
        for command in command
            .get_subcommands_mut()
            .filter(|command| command.get_name() != "help")
        {
            let name = format!("help_of_{}", command.get_name());
            insta::assert_snapshot!(name, command.render_long_help());
        }
    }
}
