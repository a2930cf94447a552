//! `page`: shows what a run measured of itself.

use super::args::location;
use super::private_file::warn_about_credentials;
use super::staged_file::StagedFile;
use super::{End, print_status};
use crate::archive;
use crate::archive::location::ArchiveLocation;
use crate::gcs::options::ObjectOptions;
use crate::page::charts::{Size, memory_svg};
use crate::page::{html, memory_png};
use crate::timeline::Timeline;
use anyhow::Context as _;
use clap::Args;
use std::io;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  orchestrator page ./archive                        writes page.html
  orchestrator page gs://my-bucket/pwned --out run.html
  orchestrator page ./archive --svg memory.svg       the picture of memory alone";

/// Make a page of what the latest run measured: memory, throughput, prefixes
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Page {
    /// The archive: a folder, or gs://bucket/path; {month} becomes the current UTC month
    #[arg(value_name = "DEST", value_parser = location)]
    archive: ArchiveLocation,

    /// Write the page to FILE  [default: page.html, unless --svg or --png is given]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Write the picture of memory alone to FILE, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Write the picture of memory alone to FILE, as PNG
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,

    /// Endpoint for gs://  [default: $STORAGE_EMULATOR_HOST, or Google's]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    /// PEM file with certificates to trust besides the platform's: of CAs, or a server's own
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl Page {
    pub(super) async fn run(self) -> anyhow::Result<End> {
        warn_about_credentials(&self.archive);
        let is_default = self.svg.is_none() && self.png.is_none();
        let out = match self.out {
            None if is_default => Some(PathBuf::from("page.html")),
            out => out,
        };
        let options = ObjectOptions {
            endpoint: self.endpoint,
            ..ObjectOptions::default()
        };
        let location = self.archive.to_string();
        let archive = archive::open(&self.archive, &options, self.ca_file.as_deref())?;
        let measurements = archive::measurements(&*archive).await?;
        let measurements = measurements.with_context(|| {
            format!(
                "{location} has no measurements.json: it is no archive, or its run was killed or is of version 0.1.0; `run` writes it at its end"
            )
        })?;
        if let Some(path) = out {
            let manifest = archive.manifest().await?;
            let page = html::render(&location, manifest.as_ref(), &measurements)?;
            StagedFile::create(&path)?.write(|out| out.write_all(page.as_bytes()))?;
            print_status(&format!("wrote {}", path.display()));
        }
        let timeline = Timeline::new(&measurements);
        if let Some(path) = self.svg {
            let picture = memory_svg(&timeline, Size::WIDE)?;
            StagedFile::create(&path)?.write(|out| out.write_all(picture.as_bytes()))?;
            print_status(&format!("wrote {}", path.display()));
        }
        if let Some(path) = self.png {
            StagedFile::create(&path)?
                .write(|out| memory_png(&timeline, Size::WIDE, out).map_err(io::Error::other))?;
            print_status(&format!("wrote {}", path.display()));
        }
        Ok(End::Done)
    }
}
