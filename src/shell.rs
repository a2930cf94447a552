//! Runs the component on WASI: one request in, one answer out.
//!
//! [`door`] admits the request. [`invocation`] runs its job: [`ranges`] brings the ranges in order, [`upload`] streams
//! the tar, and [`index`] collects the report. Behind [`ranges`], [`prefetcher`] keeps a window of requests in flight,
//! [`fetch`] fetches a range, and [`base`] reads those that have not changed from an earlier tar.
//! [`recorder`] measures, with [`heap`], and [`events`] writes the answer. [`outgoing`]
//! and [`incoming`] wrap WASI's HTTP, and [`reactor`] is the event loop.

mod base;
mod door;
mod events;
mod fetch;
mod heap;
mod incoming;
mod index;
mod invocation;
mod outgoing;
mod prefetcher;
mod ranges;
mod reactor;
mod recorder;
mod upload;

#[expect(
    unsafe_code,
    reason = "the SDK's macro expands to the component model's ABI glue, which is unsafe"
)]
mod entry {
    use spin_sdk::http::{IncomingRequest, ResponseOutparam};

    #[spin_sdk::http_component]
    async fn handle(request: IncomingRequest, response: ResponseOutparam) {
        super::reactor::block_on(super::door::answer(request, response));
    }
}
