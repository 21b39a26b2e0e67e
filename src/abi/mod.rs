//! What all rooms may speak of, as plain data: entries for the kernel, and the handles that name them. It imports no other room.

pub(crate) mod handle;
pub(crate) mod source;
pub(crate) mod sqe;
