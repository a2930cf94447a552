//! Parses the command line.

use anyhow::{Context as _, bail, ensure};
use std::path::PathBuf;

/// How the programs are called.
pub const USAGE: &str = "\
Usage: article --source URL --put URL... --prefix AB | --prefixes LIST [--workers 64] [--encoding gzip] [--ca-file FILE]
       floor   --source URL              --prefix AB | --prefixes LIST [--workers 64] [--encoding gzip] [--ca-file FILE]

--put     where the tar goes: a plain URL, in which {prefix} stands for the prefix, or a signed one. With several signed
          URLs, the option is repeated, once for each prefix in order.
--prefixes  prefixes one after another, single or as spans: 00-1F,AB";

/// What a program is to do.
#[derive(Debug)]
pub struct Options {
    /// The base URL of a range API, without a slash at its end.
    pub source: String,
    /// Where the tars go.
    pub put: Vec<String>,
    /// The prefixes.
    pub prefixes: Vec<u8>,
    /// Range requests in flight.
    pub workers: usize,
    /// Whether ranges are requested with gzip.
    pub gzip: bool,
    /// Certificates to trust besides those of the platform.
    pub ca_file: Option<PathBuf>,
}

impl Options {
    /// Parses arguments.
    ///
    /// # Errors
    /// One is unknown, invalid or missing.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self {
            source: String::new(),
            put: Vec::new(),
            prefixes: Vec::new(),
            workers: 64,
            gzip: false,
            ca_file: None,
        };
        while let Some(name) = arguments.next() {
            let value = arguments.next();
            let value = value.with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--source" => value.trim_end_matches('/').clone_into(&mut options.source),
                "--put" => options.put.push(value),
                "--prefix" | "--prefixes" => options.prefixes = prefixes(&value)?,
                "--workers" => options.workers = value.parse().context("--workers")?,
                "--encoding" => options.gzip = value == "gzip",
                "--ca-file" => options.ca_file = Some(value.into()),
                _ => bail!("unknown option {name}"),
            }
        }
        ensure!(!options.source.is_empty(), "--source is missing");
        ensure!(!options.prefixes.is_empty(), "--prefix is missing");
        ensure!(options.workers > 0, "--workers is at least 1");
        Ok(options)
    }

    /// The URL that the tar of the prefix at `index` goes to.
    ///
    /// # Errors
    /// There is none.
    pub fn put_url(&self, index: usize) -> anyhow::Result<String> {
        let prefix = format!("{:02X}", self.prefixes[index]);
        match self.put.as_slice() {
            [one] if one.contains("{prefix}") => Ok(one.replace("{prefix}", &prefix)),
            several => several
                .get(index)
                .cloned()
                .with_context(|| format!("no --put for prefix {prefix}")),
        }
    }
}

fn prefixes(list: &str) -> anyhow::Result<Vec<u8>> {
    let mut prefixes = Vec::new();
    for span in list.split(',') {
        let (first, last) = span.split_once('-').unwrap_or((span, span));
        prefixes.extend(prefix(first)?..=prefix(last)?);
    }
    Ok(prefixes)
}

fn prefix(text: &str) -> anyhow::Result<u8> {
    ensure!(text.len() == 2, "`{text}` is not a prefix");
    u8::from_str_radix(text, 16).with_context(|| format!("`{text}` is not a prefix"))
}
