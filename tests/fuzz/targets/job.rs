//! Checks that the job parser never panics, that accepted jobs survive a round trip, and that
//! errors do not quote the input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prefix_tar::protocol::job::Job;

fuzz_target!(|body: &[u8]| {
    match Job::from_wire(body) {
        Ok(job) => {
            let parsed = Job::from_wire(&job.expose_secret()).expect("a valid job");
            assert_eq!(parsed, job);
            let shown = format!("{:?}", job.upload.url);
            assert!(!shown.contains('?') || shown.ends_with("?<redacted>)"));
        }
        Err(error) => assert!(error.to_string().len() < 200),
    }
});
