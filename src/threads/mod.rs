//! What other threads may do with a loop: post to it, wake it, work for it.
//!
//! `shared` is for any thread, and takes no lock; the lock of `executor` is never held while user
//! code runs. The room knows the schedule of a loop, to which posts and finished work come, and not
//! the loop: it relies on that to collect both.

pub(crate) mod executor;
#[allow(unsafe_code)]
pub(crate) mod inbox;
mod queues;
pub(crate) mod shared;

/// The atomics that are checked with loom (`make loom`) and are the standard library's otherwise.
pub(crate) mod sync {
    #[cfg(loom)]
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
    #[cfg(not(loom))]
    pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
}
