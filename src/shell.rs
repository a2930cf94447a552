//! The component's entry, and the only modules that know WASI: one request in, one answer out.
//! Every rule about ranges, tars, lengths and jobs is left to the pure modules.
//!
//! [`door`] takes the job in, [`invocation`] drives it: [`fetch`] gets ranges, [`upload`] writes the tar,
//! [`events`] tells how it goes. [`outgoing`] and [`incoming`] are HTTP as WASI has it; [`reactor`] waits for
//! all of them in one loop, in one task.

mod door;
mod events;
mod fetch;
mod incoming;
mod invocation;
mod outgoing;
mod reactor;
mod upload;

#[expect(
    unsafe_code,
    reason = "the SDK's macro expands to the component model's ABI glue, which is unsafe by its nature"
)]
mod entry {
    use spin_sdk::http::{IncomingRequest, ResponseOutparam};

    #[spin_sdk::http_component]
    async fn handle(request: IncomingRequest, response: ResponseOutparam) {
        super::reactor::block_on(super::door::answer(request, response));
    }
}
