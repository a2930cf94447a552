//! Checks that no report makes `check` or `byte_range` panic, and that the byte ranges of a checked
//! report are in order, do not overlap and lie inside its tar.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prefix_tar::engine::tar;
use prefix_tar::limits::RANGE_BYTES_MAX;
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::{Prefix, RANGES_PER_PREFIX};
use prefix_tar::protocol::report::{Report, Reuse, Seconds};

/// What a plausible report is made of, and how it then breaks its rules.
type Parts<'input> = (u8, Vec<u32>, u64, u64, u64, Option<&'input str>, u16, bool);

fuzz_target!(|input: (&[u8], Option<Parts>)| {
    let (json, parts) = input;
    if let Ok(report) = serde_json::from_slice(json) {
        verify(&report);
    }
    // 4,096 sizes are more than the fuzzer writes by itself.
    if let Some(parts) = parts {
        let report = report(parts);
        verify(&report);
        let json = serde_json::to_vec(&report).expect("JSON");
        assert_eq!(
            serde_json::from_slice::<Report>(&json).expect("a report"),
            report
        );
    }
});

/// One range in so many is looked up, since each call sums the sizes before it. The last one is, too.
const STEP: usize = 63;

fn verify(report: &Report) {
    let is_valid = report.check().is_ok();
    let mut end = 0;
    for range in report.prefix.ranges().step_by(STEP) {
        let bytes = report.byte_range(range);
        if is_valid {
            let bytes = bytes.expect("the report lists every range");
            assert!(end < bytes.start && bytes.start < bytes.end);
            assert!(bytes.end <= report.content_length);
            end = bytes.end;
        }
    }
}

/// A report whose sizes repeat. It is valid if the sizes are and the differences are zero.
fn report(parts: Parts) -> Report {
    let (prefix, sizes, hash_bytes, more_bytes, more_retries, etag, ranges_less, is_ntlm) = parts;
    let ranges = usize::from(RANGES_PER_PREFIX - ranges_less % 2);
    // Most of them are sizes that a range may have.
    let sizes = sizes
        .into_iter()
        .map(|size| size % (RANGE_BYTES_MAX as u32 + 64));
    let sizes: Vec<u32> = sizes.cycle().take(ranges).collect();
    let data_bytes: u64 = sizes.iter().map(|size| u64::from(*size)).sum();
    let entries_bytes = sizes.iter().map(|size| tar::entry_bytes(u64::from(*size)));
    Report {
        prefix: Prefix::from_number(prefix),
        source: String::new(),
        mode: if is_ntlm { Mode::Ntlm } else { Mode::Sha1 },
        run: None,
        ranges: u32::from(RANGES_PER_PREFIX),
        hashes: data_bytes / hash_bytes.clamp(1, 64),
        data_bytes,
        content_length: tar::tar_bytes(entries_bytes.sum()).wrapping_add(more_bytes),
        crc32c: Crc32c(0),
        requests: u64::from(RANGES_PER_PREFIX).wrapping_add(more_retries),
        retries: more_retries,
        seconds: Seconds::default(),
        linear_memory_peak: 0,
        generation: etag.map(str::to_owned),
        etag: etag.map(str::to_owned),
        range_etags: vec![etag.unwrap_or_default().to_owned(); sizes.len()],
        range_crc32c: vec![Crc32c(0); sizes.len()],
        range_bytes: sizes,
        cached_errors: Vec::new(),
        // Whatever the component takes from a base, it takes from what it has.
        reuse: more_retries.is_multiple_of(2).then(|| Reuse {
            ranges: u32::from(RANGES_PER_PREFIX),
            data_bytes: data_bytes.wrapping_add(more_bytes),
            uploaded: more_retries.is_multiple_of(4),
            fault: etag.map(str::to_owned),
        }),
        seen: etag.map(str::to_owned),
    }
}
