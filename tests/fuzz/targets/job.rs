//! No body makes the job parser panic; what it takes reads back the same, and what it refuses is not repeated.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prefix_tar::job::Job;

fuzz_target!(|body: &[u8]| {
    match Job::from_wire(body) {
        Ok(job) => {
            let again = Job::from_wire(&job.expose_to_the_wire()).expect("what was taken is taken");
            assert_eq!(again, job);
            let shown = format!("{:?}", job.upload.url);
            assert!(!shown.contains('?') || shown.ends_with("?<redacted>)"));
        }
        Err(error) => assert!(error.to_string().len() < 200),
    }
});
