//! Reads an archive again, all of it, and names every damage: tars entry by entry, as streams, against their
//! reports; reports against the manifest. Nothing is repaired.
//!
//! Tars are read with the `tar` crate and ranges with the component's own check: the tar's form is judged by
//! somebody else than who wrote it, the ranges by the one rule that there is.

use crate::manifest::{MANIFEST_NAME, Manifest, ManifestObject, Totals, object_name, report_name};
use crate::workers;
use prefix_tar::job::{Crc32c, Report};
use prefix_tar::limits::{RANGE_BYTES_MAX, REPORT_BYTES_MAX};
use prefix_tar::prefix::{Prefix, RANGES_PER_PREFIX, RangeName};
use prefix_tar::range_body::RangeCheck;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// Damages that are named of one tar; the rest is counted.
const DAMAGES_PER_TAR_MAX: usize = 8;

/// A manifest of 256 objects has about 40 KB.
const MANIFEST_BYTES_MAX: u64 = 1024 * 1024;

/// What is read of a tar at once, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// Where an archive is read from.
pub trait ArchiveFiles: Sync {
    /// The bytes of a file as a stream; `None` where it is not there.
    ///
    /// # Errors
    /// It cannot be read.
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Read>>>;

    /// Whether a file is there.
    fn has(&self, name: &str) -> bool;
}

impl ArchiveFiles for Path {
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Read>>> {
        match File::open(self.join(name)) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.join(name).exists()
    }
}

impl ArchiveFiles for PathBuf {
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Read>>> {
        self.as_path().open(name)
    }

    fn has(&self, name: &str) -> bool {
        self.as_path().has(name)
    }
}

/// Something that is not as it should be.
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

/// What was read.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// Prefixes whose tar was read.
    pub prefixes: usize,
    /// Ranges that are whole and valid.
    pub ranges: u64,
    /// Their hashes.
    pub hashes: u64,
    /// The tars' bytes.
    pub tar_bytes: u64,
    /// Everything that is wrong, in order.
    pub damages: Vec<Damage>,
}

/// Reads an archive (a folder is a [`Path`]) until `stop`. Blocks. `on_prefixes` is told how many prefixes there are to be
/// read, `on_prefix` of every one that was.
pub fn verify(
    archive: &(impl ArchiveFiles + ?Sized),
    stop: &CancellationToken,
    on_prefixes: impl FnOnce(usize),
    on_prefix: impl Fn() + Sync,
) -> Verdict {
    let mut verdict = Verdict::default();
    let manifest = read_manifest(archive).map_err(|damage| verdict.damages.push(damage));
    let prefixes = prefixes_in(archive, manifest.as_ref().ok());
    on_prefixes(prefixes.len());
    let results = workers::for_each(&prefixes, stop, |prefix| {
        let result = verify_prefix(archive, prefix);
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

fn read_manifest(archive: &(impl ArchiveFiles + ?Sized)) -> Result<Manifest, Damage> {
    read_json(archive, MANIFEST_NAME, MANIFEST_BYTES_MAX).map_err(|what| Damage {
        file: MANIFEST_NAME.to_owned(),
        what: match what {
            JsonError::Absent => {
                "is missing: the archive is not complete, or this is none".to_owned()
            }
            JsonError::Other(what) => what,
        },
    })
}

enum JsonError {
    Absent,
    Other(String),
}

fn read_json<T: DeserializeOwned>(
    archive: &(impl ArchiveFiles + ?Sized),
    name: &str,
    bytes_max: u64,
) -> Result<T, JsonError> {
    let file = match archive.open(name) {
        Ok(Some(file)) => file,
        Ok(None) => return Err(JsonError::Absent),
        Err(error) => return Err(JsonError::Other(format!("cannot be read: {error}"))),
    };
    serde_json::from_reader(BufReader::new(file.take(bytes_max)))
        .map_err(|error| JsonError::Other(format!("is not valid: {error}")))
}

/// What the manifest names, and what lies there without being named.
fn prefixes_in(archive: &(impl ArchiveFiles + ?Sized), manifest: Option<&Manifest>) -> Vec<Prefix> {
    Prefix::all()
        .filter(|prefix| {
            let is_named = manifest.is_some_and(|manifest| {
                manifest
                    .objects
                    .iter()
                    .any(|object| object.prefix == *prefix)
            });
            is_named || archive.has(&object_name(*prefix))
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
            damage(format!("says of {prefix} something else than its report"));
        }
    }
    for prefix in reported.keys().filter(|prefix| !named.contains_key(prefix)) {
        damage(format!("does not name {prefix}, which is there"));
    }
    if named.len() == reported.len() && totals != manifest.totals {
        damage("has totals that are not the sums of the reports".to_owned());
    }
}

/// What was found of one prefix.
#[derive(Default)]
struct PrefixResult {
    report: Option<Report>,
    ranges: u64,
    hashes: u64,
    tar_bytes: u64,
    damages: Vec<Damage>,
}

fn verify_prefix(archive: &(impl ArchiveFiles + ?Sized), prefix: Prefix) -> PrefixResult {
    let mut result = PrefixResult::default();
    let report_file = report_name(prefix);
    match read_json::<Report>(archive, &report_file, REPORT_BYTES_MAX as u64) {
        Ok(report) if report.prefix == prefix => result.report = Some(report),
        Ok(_) => result.damages.push(Damage {
            file: report_file,
            what: "is about another prefix".to_owned(),
        }),
        Err(error) => result.damages.push(Damage {
            file: report_file,
            what: match error {
                JsonError::Absent => "is missing".to_owned(),
                JsonError::Other(what) => what,
            },
        }),
    }
    let file = object_name(prefix);
    let mut damages = Vec::new();
    match archive.open(&file) {
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
        Err(error) => damages.push(format!("cannot be read: {error}")),
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

/// What was read of one tar.
#[derive(Default)]
struct TarRead {
    ranges: u64,
    hashes: u64,
    data_bytes: u64,
    tar_bytes: u64,
    crc32c: Option<Crc32c>,
}

/// Reads through, and keeps the checksum of what came through.
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
    file: Box<dyn Read>,
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
        Ok(false) => damages.push("has something else than zeros after its end".to_owned()),
        Err(error) => damages.push(format!("cannot be read to its end: {error}")),
    }
    read.tar_bytes = rest.bytes;
    read.crc32c = Some(Crc32c(rest.crc32c));
    read
}

fn read_entries(
    archive: &mut tar::Archive<Checksummed<BufReader<Box<dyn Read>>>>,
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
            damages.push(format!(
                "range {range} has another size than its report says"
            ));
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
            "has an entry {name} that is no plain file of mode 0644 and owner 0"
        ));
    }
    match header.size() {
        Ok(size) if size <= RANGE_BYTES_MAX as u64 => None,
        _ => Some(format!(
            "has an entry {name} that is larger than a range may be"
        )),
    }
}

/// Reads to the end; answers whether all of it was zeros.
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
            "has {} bytes, but its report says {}",
            read.tar_bytes, report.content_length
        ));
    }
    if let Some(crc32c) = read.crc32c
        && crc32c != report.crc32c
    {
        damages.push(format!(
            "has CRC32C {crc32c}, but its report says {}",
            report.crc32c
        ));
    }
    let is_summed = read.hashes == report.hashes
        && read.data_bytes == report.data_bytes
        && read.ranges == u64::from(report.ranges);
    if damages.is_empty() && !is_summed {
        damages
            .push("has other numbers of ranges, hashes or bytes than its report says".to_owned());
    }
}
