//! Reaching a loop that may or may not be running, from its own thread: when futures are dropped.

use crate::abi::handle::Handle;
use crate::event_loop::Loop;
use crate::sys::try_arc::TryArc;
use crate::threads::remote::{Remote, Shared};

/// Calls `f` if the loop is the one that is running on this thread; else gives it back.
pub(super) fn if_running<R, F: FnOnce(&Loop) -> R>(shared: &TryArc<Shared>, f: F) -> Result<R, F> {
    Loop::with_running(|lp| match lp.filter(|lp| TryArc::is_same(lp.shared(), shared)) {
        Some(lp) => Ok(f(lp)),
        None => Err(f),
    })
}

/// Cancels something: at once inside of a run of its loop, else in the next iteration. Nothing happens if it has ended.
pub(crate) fn cancel(shared: &TryArc<Shared>, handle: Handle) {
    let cancel = move |lp: &Loop| {
        // It may be stale.
        let _ = lp.cancel(handle);
    };
    if let Err(cancel) = if_running(shared, cancel) {
        // What is refused ends with the loop, which is being closed; or by itself, where there is no memory.
        drop(Remote::new(shared.clone()).call_soon(cancel));
    }
}
