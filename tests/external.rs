//! End-to-end tests that need something which may not be installed. A test is ignored, and counted as such, if what it
//! needs is missing; with `--ignored` it fails and says what to install.
//!
//! `harness` provides what the tests need. `external` holds the tests, one file per topic:
//!
//! - `hosts`: the same component file behaves alike on every host. Spin and wasmtime may be missing.
//! - `nginx`: a source that is an independent server.
//! - `tinyproxy`: a proxy that is an independent server.
//! - `openssl`: a certificate that an independent program made.
//! - `clients`: clients from npm and PyPI, which ask a rehosted archive.
//! - `disk`: a full disk, which only root can mount.

#[expect(dead_code, reason = "`end_to_end` needs the rest")]
mod harness;

mod external {
    pub(crate) mod clients;
    pub(crate) mod disk;
    pub(crate) mod hosts;
    pub(crate) mod nginx;
    pub(crate) mod openssl;
    pub(crate) mod tinyproxy;
}

use libtest_mimic::{Arguments, Trial};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// A test, and what is missing to run it.
struct Test {
    name: String,
    missing: Option<&'static str>,
    run: Box<dyn FnOnce() + Send>,
}

impl Test {
    /// A test that gets a runtime of its own. `start` makes its future on the thread that runs it.
    fn new<Running: Future<Output = ()>>(
        name: impl Into<String>,
        missing: Option<&'static str>,
        start: impl FnOnce() -> Running + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            missing,
            run: Box::new(|| {
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                runtime.block_on(start());
            }),
        }
    }

    fn into_trial(self) -> Trial {
        let Self { name, missing, run } = self;
        let trial = Trial::test(name, move || match missing {
            Some(missing) => Err(missing.into()),
            None => {
                run();
                Ok(())
            }
        });
        trial.with_ignored_flag(missing.is_some())
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // The slowest comes first, so that others run beside it.
    let mut tests = external::nginx::tests();
    tests.extend(external::hosts::tests());
    tests.extend(external::clients::tests());
    tests.extend(external::tinyproxy::tests());
    tests.extend(external::openssl::tests());
    tests.extend(external::disk::tests());
    let mut trials = Vec::new();
    let mut ignored = BTreeMap::<&str, u32>::new();
    for test in tests {
        let missing = test.missing;
        let trial = test.into_trial();
        if let Some(missing) = missing
            && arguments.is_ignored(&trial)
            && !arguments.is_filtered_out(&trial)
        {
            *ignored.entry(missing).or_default() += 1;
        }
        trials.push(trial);
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        report(&ignored);
    }
    conclusion.exit_code()
}

/// Prints why tests were ignored.
#[expect(clippy::print_stderr, reason = "stdout is for the results")]
fn report(ignored: &BTreeMap<&str, u32>) {
    for (missing, count) in ignored {
        eprintln!("{count} ignored: {missing}");
    }
}
