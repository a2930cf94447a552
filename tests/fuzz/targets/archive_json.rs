//! Checks that reports and manifests of any content never cause a panic, that the index of a valid
//! report lies in its tar, and that manifests survive a round trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prefix_tar::protocol::report::Report;
use prefix_tar_fuzz::manifest::Manifest;

fuzz_target!(|text: &[u8]| {
    if let Ok(report) = serde_json::from_slice::<Report>(text) {
        let is_valid = report.check().is_ok();
        for range in report.prefix.ranges() {
            let byte_range = report.byte_range(range);
            let is_inside = byte_range.is_some_and(|range| range.end <= report.content_length);
            assert!(is_inside || !is_valid);
        }
    }
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(text) {
        let text = serde_json::to_vec(&manifest).expect("JSON");
        let parsed: Manifest = serde_json::from_slice(&text).expect("a manifest");
        assert_eq!(parsed, manifest);
    }
});
