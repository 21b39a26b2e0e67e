//! The parts of a loop for other threads: they post to it, wake it, work for it.
//!
//! `shared` is for any thread, and takes no lock. The lock of `executor` is never held while user
//! code runs. This room uses the schedule of a loop, but not the loop, which collects posts and
//! completed work.

pub(crate) mod executor;
#[allow(unsafe_code)]
pub(crate) mod inbox;
mod queues;
pub(crate) mod shared;

/// Atomics from loom for `make loom`, otherwise from the standard library.
pub(crate) mod sync {
    #[cfg(loom)]
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
    #[cfg(not(loom))]
    pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
}
