//! The command line: what can be typed, and what is done with it. A file per command.
//! Everything that is not about typing and showing is left to the rest of the library.

mod demo;
mod generate;
mod log;
mod run;
mod serve;
mod store;
mod token;
mod verify;

use crate::destination::{DestinationName, DestinationNameError};
use crate::dispatch::Stop;
use clap::{CommandFactory as _, Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

/// Everything that was asked for is done.
const EXIT_DONE: u8 = 0;
/// Something failed, and was named.
const EXIT_FAILED: u8 = 1;
/// The command line is wrong. Also clap's own.
const EXIT_USAGE: u8 = 2;
/// Stopped by Ctrl-C or SIGTERM: 128 and SIGINT's number, as shells have it.
const EXIT_STOPPED: u8 = 130;

const EXAMPLES: &str = "\
Examples:
  orchestrator demo                          see it work, offline, on 4 prefixes
  orchestrator run --to ./archive            mirror everything into ./archive
  orchestrator run --to ./archive -p 2       the first two prefixes of it
  orchestrator verify ./archive              read it all again

Exit codes: 0 all done, 1 something failed, 2 wrong usage, 130 stopped by Ctrl-C.
PREFIX_TAR_LOG=debug shows a log on standard error.";

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
    Demo(demo::Demo),
    Generate(generate::Generate),
    Serve(serve::Serve),
    Store(store::Store),
    Token(token::Token),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Failed,
    Stopped,
}

impl End {
    const fn exit_code(self) -> u8 {
        match self {
            Self::Done => EXIT_DONE,
            Self::Failed => EXIT_FAILED,
            Self::Stopped => EXIT_STOPPED,
        }
    }
}

/// Does what `arguments` say and answers the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(message) => {
            // Help goes to standard output, mistakes to standard error; neither has anywhere else to go.
            let _ = message.print();
            return ExitCode::from(if message.use_stderr() {
                EXIT_USAGE
            } else {
                EXIT_DONE
            });
        }
    };
    log::start();
    let end = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(cli.command.run()));
    ExitCode::from(match end {
        Ok(end) => end.exit_code(),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            EXIT_FAILED
        }
    })
}

impl Command {
    async fn run(self) -> anyhow::Result<End> {
        let stop = stop_on_signals()?;
        match self {
            Self::Run(command) => command.run(stop).await,
            Self::Verify(command) => command.run(stop).await,
            Self::Demo(command) => command.run(stop).await,
            Self::Generate(command) => command.run(stop).await,
            Self::Serve(command) => command.run(stop).await,
            Self::Store(command) => command.run(stop).await,
            Self::Token(command) => command.run(),
        }
    }
}

/// The names and the one-line descriptions of the commands, for the README's table.
pub fn commands() -> Vec<(String, String)> {
    Cli::command()
        .get_subcommands()
        .map(|command| {
            let about = command.get_about().map(ToString::to_string);
            (command.get_name().to_owned(), about.unwrap_or_default())
        })
        .collect()
}

/// A destination as it is typed, now.
fn destination(text: &str) -> Result<DestinationName, DestinationNameError> {
    DestinationName::at(text, jiff::Timestamp::now())
}

/// The first Ctrl-C or SIGTERM stops gently, the second at once. The third does not ask: something is stuck then.
fn stop_on_signals() -> anyhow::Result<Stop> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = Stop::default();
    let told = stop.clone();
    tokio::spawn(async move {
        for token in [Some(&told.gently), Some(&told.now), None] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            match token {
                Some(token) => token.cancel(),
                None => leave(),
            }
        }
    });
    Ok(stop)
}

#[expect(
    clippy::exit,
    reason = "asked for three times, and whatever should have ended has not"
)]
fn leave() -> ! {
    std::process::exit(i32::from(EXIT_STOPPED))
}

/// A line of what was asked for, to standard output. A pipe that was closed is not an error.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line about what is going on, to standard error.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_is_what_it_was() {
        let mut command = Cli::command();
        insta::assert_snapshot!(command.render_help());
    }

    #[test]
    fn the_help_of_every_command_is_what_it_was() {
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
