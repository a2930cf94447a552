//! Verifies an archive: every tar, entry by entry, against its report, and every report against the
//! manifest. It repairs nothing.
//!
//! The `tar` crate reads the tars, so that a mistake in our own encoder does not go unnoticed. The
//! component's own check judges the ranges, because there is only one rule.

pub(crate) mod tar_check;
mod text;

use crate::archive::layout::{MANIFEST_NAME, report_name, tar_name};
use crate::archive::manifest::{Manifest, ManifestObject, Totals};
use crate::archive::{Archive, TarReader};
use crate::workers;
use prefix_tar::engine::range_body::RangeCheck;
use prefix_tar::limits::RANGE_BYTES_MAX;
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::prefix::{Prefix, RANGES_PER_PREFIX, RangeName};
use prefix_tar::protocol::report::Report;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufReader, Read};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// The most problems that are listed for one tar; the rest are only counted.
const DAMAGES_PER_TAR_MAX: usize = 8;

/// One read from a tar, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// Something that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.file, self.what)
    }
}

/// What was read, and what is wrong with it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// Prefixes whose tar was read.
    pub prefixes: usize,
    /// Valid ranges.
    pub ranges: u64,
    /// Their hashes.
    pub hashes: u64,
    /// The tars' length in bytes.
    pub tar_bytes: u64,
    /// Everything that is wrong, in order.
    pub damages: Vec<Damage>,
}

/// Verifies an archive until `shutdown`. It blocks, so its thread must not be one of `runtime`'s workers.
/// `on_prefixes` gets the number of prefixes before the first is read; `on_prefix` is called after each.
pub fn verify(
    archive: &dyn Archive,
    runtime: &Handle,
    shutdown: &CancellationToken,
    on_prefixes: impl FnOnce(usize),
    on_prefix: impl Fn() + Sync,
) -> Verdict {
    let mut verdict = Verdict::default();
    let manifest = read_manifest(archive, runtime).map_err(|damage| verdict.damages.push(damage));
    let prefixes = prefixes_in(archive, runtime, manifest.as_ref().ok());
    on_prefixes(prefixes.len());
    let results = workers::for_each(&prefixes, shutdown, |prefix| {
        let result = verify_prefix(archive, runtime, prefix);
        on_prefix();
        result
    });
    let mut reported = BTreeMap::new();
    let mut totals = Totals::default();
    for (prefix, result) in results {
        verdict.prefixes += 1;
        verdict.ranges += result.ranges;
        verdict.hashes += result.hashes;
        verdict.tar_bytes += result.tar_bytes;
        verdict.damages.extend(result.damages);
        if let Some(report) = result.report {
            totals += Totals::of_report(&report);
            reported.insert(prefix, ManifestObject::of_report(&report));
        }
    }
    if let Ok(manifest) = manifest {
        check_manifest(&manifest, &reported, totals, &mut verdict.damages);
    }
    verdict
}

fn read_manifest(archive: &dyn Archive, runtime: &Handle) -> Result<Manifest, Damage> {
    let problem = match runtime.block_on(archive.manifest()) {
        Ok(Some(manifest)) => return Ok(manifest),
        Ok(None) => "is missing: the archive is incomplete, or this is not an archive".to_owned(),
        Err(error) => error.problem(),
    };
    Err(Damage {
        file: MANIFEST_NAME.to_owned(),
        what: problem,
    })
}

/// The prefixes that the manifest names, and those that have a tar without being named.
fn prefixes_in(
    archive: &dyn Archive,
    runtime: &Handle,
    manifest: Option<&Manifest>,
) -> Vec<Prefix> {
    Prefix::all()
        .filter(|prefix| {
            let is_named = manifest.is_some_and(|manifest| {
                manifest
                    .objects
                    .iter()
                    .any(|object| object.prefix == *prefix)
            });
            is_named || runtime.block_on(archive.has_tar(*prefix)).unwrap_or(false)
        })
        .collect()
}

fn check_manifest(
    manifest: &Manifest,
    reported: &BTreeMap<Prefix, ManifestObject>,
    totals: Totals,
    damages: &mut Vec<Damage>,
) {
    let mut damage = |what: String| {
        damages.push(Damage {
            file: MANIFEST_NAME.to_owned(),
            what,
        });
    };
    let named: BTreeMap<Prefix, &ManifestObject> = manifest
        .objects
        .iter()
        .map(|object| (object.prefix, object))
        .collect();
    if named.len() != manifest.objects.len() {
        damage("names a prefix twice".to_owned());
    }
    for (prefix, object) in &named {
        if reported
            .get(prefix)
            .is_some_and(|reported| reported != *object)
        {
            damage(format!("contradicts the report of {prefix}"));
        }
    }
    for prefix in reported.keys().filter(|prefix| !named.contains_key(prefix)) {
        damage(format!("does not name {prefix}, which is in the archive"));
    }
    if named.len() == reported.len() && totals != manifest.totals {
        damage("has totals that are not the sums over the reports".to_owned());
    }
}

/// What was found in one prefix.
#[derive(Default)]
struct PrefixResult {
    report: Option<Report>,
    ranges: u64,
    hashes: u64,
    tar_bytes: u64,
    damages: Vec<Damage>,
}

fn verify_prefix(archive: &dyn Archive, runtime: &Handle, prefix: Prefix) -> PrefixResult {
    let mut result = PrefixResult::default();
    let problem = match runtime.block_on(archive.report(prefix)) {
        Ok(Some(report)) if report.prefix == prefix => {
            result.report = Some(report);
            None
        }
        Ok(Some(_)) => Some("describes another prefix".to_owned()),
        Ok(None) => Some("is missing".to_owned()),
        Err(error) => Some(error.problem()),
    };
    result.damages.extend(problem.map(|what| Damage {
        file: report_name(prefix),
        what,
    }));
    let file = tar_name(prefix);
    let mut damages = Vec::new();
    match runtime.block_on(archive.open_tar(prefix)) {
        Ok(Some(tar)) => {
            let read = read_tar(tar, prefix, result.report.as_ref(), &mut damages);
            result.ranges = read.ranges;
            result.hashes = read.hashes;
            result.tar_bytes = read.tar_bytes;
            if let Some(report) = &result.report {
                compare(&read, report, &mut damages);
            }
        }
        Ok(None) => damages.push("is missing".to_owned()),
        Err(error) => damages.push(error.problem()),
    }
    if let Some(more) = damages.len().checked_sub(DAMAGES_PER_TAR_MAX + 1) {
        damages.truncate(DAMAGES_PER_TAR_MAX);
        damages.push(format!("and {} more", more + 1));
    }
    result
        .damages
        .extend(damages.into_iter().map(|what| Damage {
            file: file.clone(),
            what,
        }));
    result
}

/// What was read from one tar.
#[derive(Default)]
struct TarRead {
    ranges: u64,
    hashes: u64,
    data_bytes: u64,
    tar_bytes: u64,
    crc32c: Option<Crc32c>,
}

/// A reader that computes the checksum of what passes through it.
struct Checksummed<Source> {
    source: Source,
    crc32c: u32,
    bytes: u64,
}

impl<Source: Read> Read for Checksummed<Source> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &into[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

fn read_tar(
    file: TarReader,
    prefix: Prefix,
    report: Option<&Report>,
    damages: &mut Vec<String>,
) -> TarRead {
    let mut read = TarRead::default();
    let mut archive = tar::Archive::new(Checksummed {
        source: BufReader::with_capacity(READ_BYTES, file),
        crc32c: 0,
        bytes: 0,
    });
    if let Err(error) = read_entries(&mut archive, prefix, report, &mut read, damages) {
        damages.push(format!("is damaged: {error}"));
    }
    let mut rest = archive.into_inner();
    match read_zeros(&mut rest) {
        Ok(true) => {}
        Ok(false) => damages.push("has data after its end marker".to_owned()),
        Err(error) => damages.push(format!("cannot be read to its end: {error}")),
    }
    read.tar_bytes = rest.bytes;
    read.crc32c = Some(Crc32c(rest.crc32c));
    read
}

fn read_entries(
    archive: &mut tar::Archive<Checksummed<BufReader<TarReader>>>,
    prefix: Prefix,
    report: Option<&Report>,
    read: &mut TarRead,
    damages: &mut Vec<String>,
) -> io::Result<()> {
    let mut expected = prefix.ranges();
    let mut body = Vec::with_capacity(RANGE_BYTES_MAX);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let Some(range) = expected.next() else {
            damages.push(format!("has more than {RANGES_PER_PREFIX} entries"));
            return Ok(());
        };
        if let Some(fault) = header_fault(entry.header(), &entry.path_bytes(), range) {
            damages.push(fault);
            return Ok(());
        }
        body.clear();
        entry.read_to_end(&mut body)?;
        let size = body.len() as u64;
        let reported = report.and_then(|report| report.range_bytes.get(usize::from(range.index())));
        if reported.is_some_and(|reported| u64::from(*reported) != size) {
            damages.push(format!("range {range} has another size than in its report"));
        }
        let mut check = RangeCheck::new();
        match check.push(&body).and_then(|()| check.finish()) {
            Ok(hashes) => {
                read.ranges += 1;
                read.hashes += hashes;
                read.data_bytes += size;
            }
            Err(error) => damages.push(format!("range {range} is not valid: {error}")),
        }
    }
    if let Some(missing) = expected.next() {
        damages.push(format!("ends before range {missing}"));
    }
    Ok(())
}

fn header_fault(header: &tar::Header, path: &[u8], range: RangeName) -> Option<String> {
    let name = range.file_name();
    if path != name.as_bytes() {
        let found = String::from_utf8_lossy(path).into_owned();
        return Some(format!("has entry {found:?} where {name} should be"));
    }
    let is_plain = header.entry_type() == tar::EntryType::Regular
        && header.mode().ok() == Some(0o644)
        && header.uid().ok() == Some(0)
        && header.gid().ok() == Some(0);
    if !is_plain {
        return Some(format!(
            "has an entry {name} that is not a regular file of mode 0644 and owner 0"
        ));
    }
    match header.size() {
        Ok(size) if size <= RANGE_BYTES_MAX as u64 => None,
        _ => Some(format!(
            "has an entry {name} that is larger than {RANGE_BYTES_MAX} bytes"
        )),
    }
}

/// Reads to the end and returns whether all of it was zeros.
fn read_zeros(source: &mut impl Read) -> io::Result<bool> {
    let mut buffer = vec![0; READ_BYTES];
    let mut all_zeros = true;
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(all_zeros),
            read => all_zeros &= buffer[..read].iter().all(|byte| *byte == 0),
        }
    }
}

fn compare(read: &TarRead, report: &Report, damages: &mut Vec<String>) {
    if read.tar_bytes != report.content_length {
        damages.push(format!(
            "has {} bytes, but {} in its report",
            read.tar_bytes, report.content_length
        ));
    }
    if let Some(crc32c) = read.crc32c
        && crc32c != report.crc32c
    {
        damages.push(format!(
            "has CRC32C {crc32c}, but {} in its report",
            report.crc32c
        ));
    }
    let is_summed = read.hashes == report.hashes
        && read.data_bytes == report.data_bytes
        && read.ranges == u64::from(report.ranges);
    if damages.is_empty() && !is_summed {
        damages.push("has other counts of ranges, hashes or bytes than its report".to_owned());
    }
}
