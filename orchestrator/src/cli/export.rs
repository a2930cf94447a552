//! `export`: writes an archive in another form.

use super::args::{location, mode};
use super::private_file::warn_about_credentials;
use super::staged_file::StagedFile;
use super::staged_folder::StagedFolder;
use super::{End, data_output, print, print_status};
use crate::archive::location::ArchiveLocation;
use crate::archive::manifest::Manifest;
use crate::archive::{self, Archive, ReadError};
use crate::export::files::FilesSink;
use crate::export::filter::FilterSink;
use crate::export::text::TextSink;
use crate::export::top::{TOP_MAX, TopSink};
use crate::export::{self, ExportError, RangeSink};
use crate::filter_file::FilterKind;
use crate::gcs::options::ObjectOptions;
use crate::humanize;
use crate::progress::counter::Counter;
use crate::run::plan::PrefixSet;
use crate::run::shutdown::Shutdown;
use crate::verify::problems_of_manifest;
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::Prefix;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// What a failure means if no byte has been written.
const NOTHING_EXPORTED: &str = "nothing was exported";

/// What is written at once, in bytes: three ranges.
const WRITE_BYTES: usize = 256 * 1024;

const EXAMPLES: &str = "\
Examples:
  orchestrator export ./archive --out passwords.txt            one sorted list of HASH:COUNT
  orchestrator export gs://my-bucket/pwned --top 1000          the most frequent hashes, to stdout
  orchestrator export ./archive --format files --out ./ranges  00000.txt to FFFFF.txt
  orchestrator export ./archive --format fuse16 --out passwords.fuse16
  orchestrator check passwords.fuse16

Every tar is verified while it is read. A file or a folder appears under its name only if nothing is
damaged. For text to stdout, the archive is read twice: first to verify all of it, then to write it.

text ends each line with LF, like the official downloader on Linux. The filters fuse8 and fuse16
need 9 and 18 bits per hash, know no counts, and also find 1 in 256 or 1 in 65,536 passwords that do
not occur; building one needs about 300 MB of memory.

Exit codes: 0 done, 1 damaged or failed, 3 nothing damaged but something could not be read.";

/// Write an archive as one sorted list, its most frequent hashes, a file per range, or a filter
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Export {
    /// The archive: a folder, or gs://bucket/path; {month} becomes the current UTC month
    #[arg(value_name = "ARCHIVE", value_parser = location)]
    archive: ArchiveLocation,

    /// Write to FILE, or to a new folder for `--format files`  [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// What to write  [default: text]
    #[arg(long, value_name = "FORMAT", value_enum, requires_ifs = [("files", "out"), ("fuse8", "out"), ("fuse16", "out")])]
    format: Option<Format>,

    /// Only the N hashes with the highest counts, the highest first; equal counts in the order of their hashes
    #[arg(long, value_name = "N", conflicts_with = "format", value_parser = clap::value_parser!(u32).range(1..=i64::from(TOP_MAX)))]
    top: Option<u32>,

    /// Only these prefixes, single or as spans: 00-1F,AB  [default: all that the archive holds]
    #[arg(long, value_name = "LIST")]
    prefixes: Option<PrefixSet>,

    /// Which hashes the archive must hold  [default: those that its manifest states]
    #[arg(long, value_name = "MODE", value_parser = mode())]
    mode: Option<Mode>,

    /// Endpoint for gs://  [default: $STORAGE_EMULATOR_HOST, or Google's]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    /// PEM file with certificates to trust besides the platform's: of CAs, or a server's own
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One list of HASH:COUNT lines, sorted by hash
    Text,
    /// A file per range, as the source served it
    Files,
    /// A binary fuse filter with fingerprints of 8 bits
    Fuse8,
    /// A binary fuse filter with fingerprints of 16 bits
    Fuse16,
}

impl Export {
    pub(super) async fn run(self, shutdown: Shutdown) -> anyhow::Result<End> {
        warn_about_credentials(&self.archive);
        let options = ObjectOptions {
            endpoint: self.endpoint.clone(),
            ..ObjectOptions::default()
        };
        let archive = archive::open(&self.archive, &options, self.ca_file.as_deref())?;
        let manifest = match archive.manifest().await {
            Err(error @ ReadError::Unreadable { .. }) => {
                print_status(&format!("could not be read: {error}"));
                return Ok(End::Unreadable);
            }
            manifest => manifest?.with_context(|| {
                let archive = &self.archive;
                format!(
                    "{archive} has no manifest.json: it is no archive, or its run has not ended"
                )
            })?,
        };
        if let Some(asked) = self.mode.filter(|asked| *asked != manifest.mode) {
            let (held, asked) = (manifest.mode.hash_name(), asked.hash_name());
            let archive = &self.archive;
            anyhow::bail!("{archive} holds {held} hashes, not {asked} hashes");
        }
        let problems = problems_of_manifest(&*archive, &manifest).await;
        if !problems.is_empty() {
            return failed(ExportError::Problems(problems), NOTHING_EXPORTED);
        }
        let job = Job {
            prefixes: export::selected(&manifest, self.prefixes.as_ref())?.into(),
            archive,
            manifest: Arc::new(manifest),
            shutdown: shutdown.graceful.clone(),
            is_shown: io::stderr().is_terminal()
                && (self.out.is_some() || !io::stdout().is_terminal()),
        };
        match (&self.out, self.top, self.format.unwrap_or(Format::Text)) {
            (None, Some(top), _) => job.top_to_stdout(top).await,
            (None, None, _) => job.text_to_stdout().await,
            (Some(out), Some(top), _) => job.top_to_file(top, out).await,
            (Some(out), None, Format::Text) => job.text_to_file(out).await,
            (Some(out), None, Format::Files) => job.files(out).await,
            (Some(out), None, Format::Fuse8) => job.filter(FilterKind::Fuse8, out).await,
            (Some(out), None, Format::Fuse16) => job.filter(FilterKind::Fuse16, out).await,
        }
    }
}

/// An export whose form is not decided.
#[derive(Clone)]
struct Job {
    archive: Arc<dyn Archive>,
    manifest: Arc<Manifest>,
    prefixes: Arc<[Prefix]>,
    shutdown: CancellationToken,
    is_shown: bool,
}

/// The result of work on another thread.
type Exported<T> = Result<T, ExportError>;

impl Job {
    /// Does `work` on a thread that may block.
    async fn on_thread<T: Send + 'static>(
        &self,
        verb: &'static str,
        work: impl FnOnce(&export::Export<'_>, &Counter) -> Exported<T> + Send + 'static,
    ) -> anyhow::Result<Exported<T>> {
        let (job, runtime) = (self.clone(), Handle::current());
        let done = tokio::task::spawn_blocking(move || {
            let counter = Counter::new(verb, job.is_shown);
            counter.begin(job.prefixes.len());
            let export = export::Export {
                archive: &*job.archive,
                manifest: &job.manifest,
                prefixes: &job.prefixes,
                runtime: &runtime,
                shutdown: &job.shutdown,
            };
            work(&export, &counter)
        });
        Ok(done.await?)
    }

    /// Fills a sink on a thread that may block, and then ends it with `finish`.
    async fn fill<Sink: RangeSink + Send + 'static, T: Send + 'static>(
        &self,
        mut sink: Sink,
        finish: impl FnOnce(Sink) -> io::Result<T> + Send + 'static,
    ) -> anyhow::Result<Exported<T>> {
        self.on_thread("exporting", move |export, counter| {
            export.fill(&mut sink, || counter.count())?;
            Ok(finish(sink)?)
        })
        .await
    }

    async fn text_to_stdout(&self) -> anyhow::Result<End> {
        let verified = self.on_thread("verifying", |export, counter| {
            export.verify(|| counter.count())
        });
        if let Err(error) = verified.await? {
            return failed(error, NOTHING_EXPORTED);
        }
        let sink = TextSink::new(buffered(data_output::open()?), self.manifest.mode);
        let exported = self.fill(sink, TextSink::finish).await?;
        ended_on_stdout(exported, "what was written is not the whole archive")
    }

    async fn top_to_stdout(&self, top: u32) -> anyhow::Result<End> {
        let stdout = buffered(data_output::open()?);
        let exported = self.fill(TopSink::new(top, self.manifest.mode), move |sink| {
            sink.write(stdout)
        });
        ended_on_stdout(exported.await?, NOTHING_EXPORTED)
    }

    async fn text_to_file(&self, out: &Path) -> anyhow::Result<End> {
        let staged = StagedFile::create(out)?;
        let (file, written) = (staged.file()?, staged.file()?);
        let exported = self.fill(
            TextSink::new(buffered(file), self.manifest.mode),
            move |sink| synced(sink.finish()?, &written),
        );
        self.keep_file(exported.await?, staged, out)
    }

    async fn top_to_file(&self, top: u32, out: &Path) -> anyhow::Result<End> {
        let staged = StagedFile::create(out)?;
        let file = staged.file()?;
        let exported = self.fill(TopSink::new(top, self.manifest.mode), move |sink| {
            synced(sink.write(buffered(&file))?, &file)
        });
        self.keep_file(exported.await?, staged, out)
    }

    async fn filter(&self, kind: FilterKind, out: &Path) -> anyhow::Result<End> {
        let staged = StagedFile::create(out)?;
        let (file, written) = (staged.file()?, staged.file()?);
        let sink = FilterSink::new(kind, self.manifest.mode, file)?;
        let exported = self.fill(sink, move |sink| synced(sink.finish()?, &written));
        self.keep_file(exported.await?, staged, out)
    }

    async fn files(&self, out: &Path) -> anyhow::Result<End> {
        let staged = StagedFolder::create(out)?;
        let sink = FilesSink::new(staged.path().to_owned(), self.manifest.mode);
        let exported = self.fill(sink, |sink| Ok(sink.hashes())).await?;
        match exported {
            Ok(hashes) => {
                staged.keep()?;
                let shown = out.display();
                print(&format!("{} to {shown}", self.summary(hashes)));
                Ok(End::Done)
            }
            Err(error) => failed(error, NOTHING_EXPORTED),
        }
    }

    fn keep_file(
        &self,
        exported: Exported<u64>,
        staged: StagedFile,
        out: &Path,
    ) -> anyhow::Result<End> {
        let hashes = match exported {
            Ok(hashes) => hashes,
            Err(error) => return failed(error, NOTHING_EXPORTED),
        };
        let bytes = staged.file()?.metadata()?.len();
        staged.keep()?;
        let (summary, size) = (self.summary(hashes), humanize::data(bytes));
        print(&format!("{summary}, {size}, to {}", out.display()));
        Ok(End::Done)
    }

    fn summary(&self, hashes: u64) -> String {
        let prefixes = humanize::prefixes(self.prefixes.len());
        format!("exported {prefixes}, {} hashes", humanize::grouped(hashes))
    }
}

fn buffered<Out: Write>(out: Out) -> BufWriter<Out> {
    BufWriter::with_capacity(WRITE_BYTES, out)
}

/// Makes sure that a file survives a crash of the machine before it gets its name.
fn synced(hashes: u64, file: &File) -> io::Result<u64> {
    file.sync_all()?;
    Ok(hashes)
}

fn ended_on_stdout(exported: Exported<u64>, consequence: &str) -> anyhow::Result<End> {
    match exported {
        Ok(_) => Ok(End::Done),
        // A reader that has closed its end has what it wants.
        Err(ExportError::Sink(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(End::Done),
        Err(error) => failed(error, consequence),
    }
}

/// Says why an export is not complete, and what that means for its output.
fn failed(error: ExportError, consequence: &str) -> anyhow::Result<End> {
    match error {
        ExportError::Problems(problems) => {
            for damage in &problems.damages {
                print_status(&format!("damaged: {damage}"));
            }
            for unreadable in &problems.unreadable {
                print_status(&format!("could not be read: {unreadable}"));
            }
            print_status(consequence);
            Ok(if problems.damages.is_empty() {
                End::Unreadable
            } else {
                End::Failed
            })
        }
        ExportError::Stopped => {
            print_status("stopped before everything was exported");
            Ok(End::Stopped)
        }
        error => Err(error).context("cannot export the archive"),
    }
}
