//! `schema`: prints the JSON schemas of what the program writes.

use super::{End, print_text};
use crate::archive::manifest::Manifest;
use crate::archive::measurements::Measurements;
use crate::archive::run_record::RunRecord;
use crate::check::record::CheckRecord;
use crate::run::event::EventRecord;
use crate::status::record::StatusRecord;
use clap::{Args, ValueEnum};
use prefix_tar::protocol::event::Event;
use prefix_tar::protocol::report::Report;
use schemars::schema_for;

/// Print the JSON schema of a format
#[derive(Debug, Args)]
pub(super) struct Schema {
    /// The format
    #[arg(value_name = "FORMAT", value_enum)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A line of `run --json`
    RunEvent,
    /// A line of the component's answer
    ComponentEvent,
    /// `AB.json` in an archive
    Report,
    /// `manifest.json` in an archive
    Manifest,
    /// `run.json` in an archive
    RunRecord,
    /// `measurements.json` in an archive
    Measurements,
    /// A line of `check --json`
    CheckRecord,
    /// What `status --json` prints
    StatusRecord,
}

impl Schema {
    pub(super) fn run(&self) -> anyhow::Result<End> {
        let schema = match self.format {
            Format::RunEvent => schema_for!(EventRecord<'_>),
            Format::ComponentEvent => schema_for!(Event),
            Format::Report => schema_for!(Report),
            Format::Manifest => schema_for!(Manifest),
            Format::RunRecord => schema_for!(RunRecord),
            Format::Measurements => schema_for!(Measurements),
            Format::CheckRecord => schema_for!(CheckRecord),
            Format::StatusRecord => schema_for!(StatusRecord),
        };
        print_text(&serde_json::to_string_pretty(&schema)?);
        Ok(End::Done)
    }
}
