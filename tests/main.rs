//! The end-to-end tests: real sockets, the real component, the program as it ships.
//!
//! One binary, so that it is linked once. What a test needs around it is in `harness`; the tests are in
//! `cases`, a file for each promise:
//!
//! - `archive`: what comes out is what the source has, byte for byte, whatever the source speaks
//! - `memory`: the cap, and what becomes of ranges that strain it
//! - `death`: an invocation that dies leaves nothing
//! - `source_faults`: a source that is wrong is borne or named
//! - `store_faults`: a store that is wrong is given the object again, or not
//! - `resume`: a run that was killed goes on where it ended
//! - `soak`: everything fails now and then
//! - `limits`: bounds that a peer meets over the wire
//! - `secrets`: nobody sees them who does not need them
//! - `bucket`: `gs://`, by signed URLs alone
//! - `credentials`: who signs them, when there is no key at hand
//! - `permissions`: what each of Google's roles is enough for
//! - `hosts`: the same component file on every host that there is
//! - `remote`: components that run elsewhere
//! - `door`: what the component answers to what is no job
//! - `platform_limits`: what platforms publish, and how much of it a prefix needs
//! - `deploy`: what a cluster and a container are told
//! - `damage`: `verify` finds it
//! - `range_api`: what `serve` answers
//! - `local_store`: what `store` answers
//! - `command_line`: what people type, and what they get for it

mod harness;

mod cases {
    mod archive;
    mod bucket;
    mod command_line;
    mod credentials;
    mod damage;
    mod death;
    mod deploy;
    mod door;
    mod hosts;
    mod limits;
    mod local_store;
    mod memory;
    mod permissions;
    mod platform_limits;
    mod range_api;
    mod remote;
    mod resume;
    mod secrets;
    mod soak;
    mod source_faults;
    mod store_faults;
}
