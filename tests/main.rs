//! End-to-end tests: the real component and the shipped program, over real sockets.
//!
//! All tests are in one binary, so that linking happens once, except those that need something which
//! may not be installed: `external.rs`. `harness` provides what the tests need. `cases` holds the
//! tests, one file per topic:
//!
//! - `archive`: the archive matches the source byte for byte, whatever protocol or encoding the
//!   source uses.
//! - `base`: a run on a base fetches only what has changed, and its tars are those of a full run.
//! - `measurements`: the trace and the page of a run agree with its reports, and the run does not depend on them.
//! - `memory`: the component stays within its memory cap, and oversized ranges fail cleanly.
//! - `death`: an invocation that dies leaves nothing behind.
//! - `source_bodies`: whole bodies enter a tar in every form that HTTP allows, and no others do.
//! - `source_faults`: a faulty source is retried, or the failure names it.
//! - `bad_ranges`: a single range that the source or a cache has wrong does not cost the run.
//! - `dead_connections`: a connection that dies silently costs a run seconds, and no attempt.
//! - `outages`: a run rides out an outage of the source and the store.
//! - `clock`: a run into a bucket completes although the clock steps.
//! - `certificates`: a certificate that is not trusted is refused with the reason.
//! - `proxies`: requests go through the proxies of the environment.
//! - `store_faults`: a failed upload is retried, unless the store already has the object or denies
//!   access.
//! - `resume`: a killed run resumes where it stopped.
//! - `killed`: a run that is killed at any moment and started again ends as if it had not been killed.
//! - `soak`: runs survive random faults of both source and store.
//! - `limits`: the limits that a peer can reach over the network are exact.
//! - `secrets`: signed URLs, tokens and keys do not leak.
//! - `bucket`: a run to `gs://` uses signed URLs only.
//! - `credentials`: URLs can be signed without a key file.
//! - `permissions`: each of Google's roles allows exactly the commands that it should.
//! - `rehost`: an archive that is served is a source like the one that it was mirrored from.
//! - `remote`: a run can use components on other machines.
//! - `door`: the component rejects requests that are not valid jobs.
//! - `platform_limits`: one prefix fits the published limits of serverless platforms.
//! - `deploy`: the Kubernetes and container files are valid and consistent.
//! - `damage`: `verify` finds damaged archives.
//! - `unreadable`: `verify` does not call damaged what it could not read.
//! - `check`: `check` finds passwords in whatever holds ranges, and shows none.
//! - `status`: `status` tells whether a source has anything new, and says so when it cannot tell.
//! - `export`: `export` writes what the archive holds, and nothing of one that is damaged.
//! - `range_api`: `serve` over range files answers like the range API.
//! - `mirror`: `serve` over an archive answers like the public range API, in every protocol, and keeps secret what it
//!   was asked for.
//! - `ntlm`: NTLM hashes go the whole way, and never mix with SHA-1 hashes.
//! - `emulator`: `store` answers like GCS.
//! - `command_line`: commands report their results and errors clearly.
//! - `stopping`: neither a reader that stops reading nor an invocation that hangs keeps a command from
//!   ending.
//! - `untrusted_text`: text from elsewhere reaches terminals, logs and JSON escaped.

mod harness;

mod cases {
    mod archive;
    mod bad_ranges;
    mod base;
    mod bucket;
    mod certificates;
    mod check;
    mod clock;
    mod command_line;
    mod credentials;
    mod damage;
    mod dead_connections;
    mod death;
    mod deploy;
    mod door;
    mod emulator;
    mod export;
    mod killed;
    mod limits;
    mod measurements;
    mod memory;
    mod mirror;
    mod ntlm;
    mod outages;
    mod permissions;
    mod platform_limits;
    mod proxies;
    mod range_api;
    mod rehost;
    mod remote;
    mod resume;
    mod secrets;
    mod soak;
    mod source_bodies;
    mod source_faults;
    mod status;
    mod stopping;
    mod store_faults;
    mod unreadable;
    mod untrusted_text;
}
