//! `check`: tells how often a password occurs.

use super::args::{location, mode};
use super::private_file::warn_about_credentials;
use super::{End, data_output, is_usage_error, print, print_json, print_status};
use crate::archive;
use crate::archive::location::ArchiveLocation;
use crate::archive::ranges::RangeArchive;
use crate::check::hash::PasswordHash;
use crate::check::input::{HashReader, InputFault, InputKind};
use crate::check::record::CheckRecord;
use crate::check::terminal::HiddenInput;
use crate::check::{Answer, CheckError, Source};
use crate::filter_file::read::FilterFile;
use crate::gcs::options::ObjectOptions;
use crate::humanize;
use crate::progress::output::{Urgency, stderr};
use crate::range_client::RangeClient;
use crate::run::shutdown::Shutdown;
use anyhow::Context as _;
use clap::Args;
use futures::{StreamExt as _, stream};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::source::SourceUrl;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Look-ups at the same time with `--batch`: they hide the latency of a network.
const LOOK_UPS_MAX: usize = 8;

/// Hashes that wait for a look-up, and results that wait for the reader of stdout.
const QUEUE_MAX: usize = 64;

const EXAMPLES: &str = "\
Examples:
  orchestrator check ./archive                       asks for a password, and does not show it
  pass show mail | head -n 1 | orchestrator check gs://my-bucket/pwned
  orchestrator check https://api.pwnedpasswords.com --batch < passwords.txt
  orchestrator check https://api.pwnedpasswords.com --mode ntlm
  orchestrator check passwords.fuse16 --hash         asks for a hash

A password is hashed here, without the line end. SHA-1 takes the bytes that it has; NTLM takes text,
so a password has to be UTF-8. A range API only learns the first five characters of the hash.
With --batch, each line of the input gives a line: its number and the count, or `unknown`.

Exit codes: 0 not found, 1 found, 2 wrong usage, 3 it could not be told.";

/// Tell how often a password occurs: in an archive, a range API or a filter
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Check {
    /// An archive, as a folder or gs://bucket/path; the http(s):// URL of a range API; or a filter that `export` made
    #[arg(value_name = "SOURCE", value_parser = place)]
    source: Place,

    /// Check every line of stdin
    #[arg(long)]
    batch: bool,

    /// Which hashes to look up: of a range API, `sha1` unless set; archives and filters know their own
    #[arg(long, value_name = "MODE", value_parser = mode())]
    mode: Option<Mode>,

    /// Read hashes in hex instead of passwords: 40 characters of SHA-1, or 32 of NTLM
    #[arg(long)]
    hash: bool,

    /// Print a JSON object per password
    #[arg(long)]
    json: bool,

    /// Endpoint for gs://  [default: $STORAGE_EMULATOR_HOST, or Google's]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    /// PEM file with certificates to trust besides the platform's: of CAs, or a server's own
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// Where to look passwords up, as it is typed.
#[derive(Clone, Debug)]
enum Place {
    Api(SourceUrl),
    /// An archive or, if it is a file, a filter.
    Stored(ArchiveLocation),
}

fn place(text: &str) -> anyhow::Result<Place> {
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(Place::Api(text.parse()?));
    }
    Ok(Place::Stored(location(text)?))
}

/// What was read from one line, and what a source says about it.
type Outcome = Result<Answer, CheckError>;

impl Check {
    pub(super) async fn run(self, shutdown: Shutdown) -> anyhow::Result<End> {
        // There is nothing to put in order but the terminal, and dropping the check does that.
        let end = tokio::select! {
            end = Box::pin(self.check()) => end,
            () = shutdown.graceful.cancelled() => return Ok(End::Stopped),
        };
        // With the exit code of other failures, a password would seem to be found.
        end.or_else(|error| {
            if is_usage_error(&error) {
                return Err(error);
            }
            print_status(&format!("error: {error:#}"));
            Ok(End::Unreadable)
        })
    }

    async fn check(&self) -> anyhow::Result<End> {
        let source = self.open().await?;
        let mode = source.mode();
        if let Some(asked) = self.mode.filter(|asked| *asked != mode) {
            let (held, asked) = (mode.hash_name(), asked.hash_name());
            anyhow::bail!("the source holds {held} hashes, not {asked} hashes");
        }
        let hidden = self.prompt(mode)?;
        let mut hashes = self.read_hashes(mode)?;
        if self.batch {
            let end = self.check_batch(&source, hashes).await;
            drop(hidden);
            return end;
        }
        let hash = hashes.recv().await.context("the input was not read")?;
        drop(hidden);
        let outcome = look_up(&source, hash).await;
        if self.json {
            print_json(&serde_json::to_string(&CheckRecord::new(None, &outcome))?);
        } else if let Ok(answer) = &outcome {
            print(&shown(*answer));
        }
        let mut ends = Ends::default();
        ends.add(&outcome);
        if let (Err(error), false) = (outcome, self.json) {
            print_status(&format!("error: {error}"));
        }
        Ok(self.conclude(ends))
    }

    async fn open(&self) -> anyhow::Result<Source> {
        let ca_file = self.ca_file.as_deref();
        let location = match &self.source {
            Place::Api(url) => {
                let mode = self.mode.unwrap_or_default();
                let api = RangeClient::new(url.clone(), mode, ca_file)?;
                return Ok(Source::Api(api));
            }
            Place::Stored(location) => location,
        };
        if let ArchiveLocation::Folder(path) = location
            && path.is_file()
        {
            let filter = FilterFile::open(path);
            let filter = filter.with_context(|| format!("cannot use {}", path.display()))?;
            return Ok(Source::Filter(Arc::new(filter)));
        }
        warn_about_credentials(location);
        let options = ObjectOptions {
            endpoint: self.endpoint.clone(),
            ..ObjectOptions::default()
        };
        let archive = archive::open(location, &options, ca_file)?;
        let ranges = RangeArchive::open(archive).await;
        let ranges = ranges.with_context(|| format!("cannot use {location}"))?;
        Ok(Source::Archive(Box::new(ranges)))
    }

    /// If stdin is a terminal, asks for the input there. A password is not shown while it is typed.
    fn prompt(&self, mode: Mode) -> anyhow::Result<Option<HiddenInput>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let hidden = if self.hash {
            None
        } else {
            let terminal = stdin.as_fd().try_clone_to_owned()?;
            Some(HiddenInput::begin(terminal).context("cannot hide what is typed")?)
        };
        let prompt = match (self.batch, self.hash, mode) {
            (false, false, _) => "Password: ",
            (false, true, Mode::Sha1) => "SHA-1 hash: ",
            (false, true, Mode::Ntlm) => "NTLM hash: ",
            (true, false, _) => "Passwords, one per line; Ctrl-D ends:\n",
            (true, true, Mode::Sha1) => "SHA-1 hashes, one per line; Ctrl-D ends:\n",
            (true, true, Mode::Ntlm) => "NTLM hashes, one per line; Ctrl-D ends:\n",
        };
        stderr().text(Urgency::Result, prompt);
        Ok(hidden)
    }

    /// Reads hashes from stdin, on a thread that nobody waits for: it cannot be interrupted.
    fn read_hashes(
        &self,
        mode: Mode,
    ) -> anyhow::Result<mpsc::Receiver<Result<PasswordHash, InputFault>>> {
        // The standard library's stdin has a buffer that cannot be cleared.
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let kind = match self.hash {
            true => InputKind::Hashes,
            false => InputKind::Passwords,
        };
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let is_batch = self.batch;
        let read = move || {
            let mut reader = HashReader::new(stdin, kind, mode);
            if !is_batch {
                // If nobody receives it, the command has been stopped.
                let _ = sender.blocking_send(reader.only_hash());
                return;
            }
            while let Some(hash) = reader.next_hash() {
                if sender.blocking_send(hash).is_err() {
                    return;
                }
            }
        };
        let reader = std::thread::Builder::new().name("input".to_owned());
        reader.spawn(read).context("cannot read the input")?;
        Ok(receiver)
    }

    /// Prints a line for each line of the input, in order.
    async fn check_batch(
        &self,
        source: &Source,
        hashes: mpsc::Receiver<Result<PasswordHash, InputFault>>,
    ) -> anyhow::Result<End> {
        let (results, mut queued) = mpsc::channel::<String>(QUEUE_MAX);
        let mut stdout = data_output::open()?;
        let written = tokio::task::spawn_blocking(move || {
            while let Some(line) = queued.blocking_recv() {
                stdout.write_all(line.as_bytes())?;
            }
            io::Result::Ok(())
        });
        let hashes = stream::unfold(hashes, async |mut hashes| {
            hashes.recv().await.map(|hash| (hash, hashes))
        });
        let outcomes = hashes.map(|hash| look_up(source, hash));
        let mut outcomes = pin!(outcomes.buffered(LOOK_UPS_MAX));
        let mut ends = Ends::default();
        let mut line = 0;
        while let Some(outcome) = outcomes.next().await {
            line += 1;
            ends.add(&outcome);
            if results
                .send(self.batch_line(line, &outcome)?)
                .await
                .is_err()
            {
                break;
            }
        }
        drop(results);
        match written.await? {
            // A reader that has closed its end has what it wants.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).context("cannot write to stdout")
            }
            _ => Ok(self.conclude(ends)),
        }
    }

    fn batch_line(&self, line: u64, outcome: &Outcome) -> anyhow::Result<String> {
        if self.json {
            let record = CheckRecord::new(Some(line), outcome);
            return Ok(serde_json::to_string(&record)? + "\n");
        }
        Ok(match outcome {
            Ok(answer) => format!("{line} {}\n", shown(*answer)),
            Err(error) => {
                print_status(&format!("line {line}: {error}"));
                format!("{line} unknown\n")
            }
        })
    }

    fn conclude(&self, ends: Ends) -> End {
        if let (Some(one_in), false) = (ends.found_of_others, self.json) {
            print_status(&format!(
                "a filter also finds 1 in {} passwords that do not occur",
                humanize::grouped(u64::from(one_in))
            ));
        }
        ends.end
    }
}

async fn look_up(source: &Source, hash: Result<PasswordHash, InputFault>) -> Outcome {
    source.look_up(&hash?).await
}

fn shown(answer: Answer) -> String {
    match answer {
        Answer::Count(count) => count.to_string(),
        Answer::Probably(true, _) => "probably found".to_owned(),
        Answer::Probably(false, _) => "not found".to_owned(),
    }
}

/// What all outcomes so far amount to.
#[derive(Clone, Copy, Debug)]
struct Ends {
    end: End,
    /// Of a filter that found something: one in how many passwords it finds wrongly.
    found_of_others: Option<u32>,
}

impl Default for Ends {
    fn default() -> Self {
        Self {
            end: End::Done,
            found_of_others: None,
        }
    }
}

impl Ends {
    /// A password that was found counts more than one that could not be looked up.
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Ok(answer) if answer.is_found() => {
                self.end = End::Found;
                if let Answer::Probably(_, kind) = answer {
                    self.found_of_others = Some(kind.one_in());
                }
            }
            Ok(_) => {}
            Err(_) if self.end == End::Found => {}
            Err(_) => self.end = End::Unreadable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_was_found_decides_the_exit_code_then_one_that_is_unknown() {
        let outcome = |what: char| match what {
            'f' => Ok(Answer::Count(1)),
            'u' => Err(CheckError::NotHeld),
            _ => Ok(Answer::Count(0)),
        };
        for (outcomes, code) in [
            ("", 0),
            ("nn", 0),
            ("nfn", 1),
            ("nun", 3),
            ("ufu", 1),
            ("fu", 1),
        ] {
            let mut ends = Ends::default();
            outcomes.chars().for_each(|what| ends.add(&outcome(what)));
            assert_eq!(ends.end.exit_code(), code, "{outcomes}");
        }
    }

    #[test]
    fn a_source_is_a_url_or_a_location() {
        assert!(matches!(
            place("https://api.pwnedpasswords.com"),
            Ok(Place::Api(_))
        ));
        assert!(matches!(
            place("gs://bucket/path"),
            Ok(Place::Stored(ArchiveLocation::Bucket(_)))
        ));
        assert!(matches!(
            place("./archive"),
            Ok(Place::Stored(ArchiveLocation::Folder(_)))
        ));
        for text in ["", "http://", "https://a.example/?x", "s3://bucket"] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
