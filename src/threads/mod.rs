//! What other threads may do with a loop: post to it, wake it, work for it.
//!
//! The room knows the schedule of a loop, to which posts and finished work come, and not the loop.

pub(crate) mod executor;
#[allow(unsafe_code)]
pub(crate) mod inbox;
mod queues;
pub(crate) mod shared;
pub(crate) mod sync;
pub(crate) mod work;
