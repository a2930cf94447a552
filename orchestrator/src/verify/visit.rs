//! Reads one prefix by the rules of `verify`, for a command that uses its ranges.

use super::tar_check::{RangeVisitor, visit_tar};
use super::{Problems, Reader, object_of};
use crate::archive::Archive;
use crate::archive::layout::tar_name;
use crate::archive::manifest::Manifest;
use prefix_tar::protocol::prefix::Prefix;
use tokio::runtime::Handle;

/// Reads a prefix, compares it with its report and the manifest, and passes every valid range to
/// `visitor` on the way. Returns what is wrong with it. Only if that is nothing, and the visitor has
/// seen all of the ranges, are they what was mirrored.
///
/// It blocks, so its thread must not be one of `runtime`'s workers.
pub fn visit_prefix<'visitor>(
    archive: &dyn Archive,
    runtime: &Handle,
    prefix: Prefix,
    manifest: &Manifest,
    visitor: Option<&'visitor mut RangeVisitor<'visitor>>,
) -> Problems {
    let reader = Reader {
        archive,
        runtime,
        mode: Some(manifest.mode),
    };
    let mut problems = Problems::default();
    let report = reader.report(prefix, Some(manifest), &mut problems);
    let Some(report) = report.filter(|_| problems.is_empty()) else {
        return problems;
    };
    let file = tar_name(prefix);
    let tar = match runtime.block_on(archive.open_tar(prefix)) {
        Ok(Some(tar)) => tar,
        Ok(None) => {
            problems.damage(&file, "is missing");
            return problems;
        }
        Err(error) => {
            problems.error(&file, &error);
            return problems;
        }
    };
    let mut found = visit_tar(tar, prefix, manifest.mode, Some(&report), visitor);
    if found.is_read_to_end
        && let Some(object) = object_of(manifest, prefix)
    {
        found.compare_object(object.content_length, object.crc32c, "the manifest");
    }
    for damage in found.damages.into_lines() {
        problems.damage(&file, &damage);
    }
    if let Some(error) = found.unreadable {
        problems.unreadable(&file, &error.to_string());
    }
    problems
}
