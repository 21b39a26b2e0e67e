//! What other threads may do with a loop: post to it, wake it, work for it.

#[allow(unsafe_code)]
pub(crate) mod executor;
#[allow(unsafe_code)]
pub(crate) mod inbox;
#[allow(unsafe_code)]
pub(crate) mod post_box;
#[allow(unsafe_code)]
pub(crate) mod remote;
pub(crate) mod sync;
