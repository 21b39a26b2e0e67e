//! What all rooms may speak of, as plain data: entries for the kernel and what their opcodes mean,
//! completions, and the handles that name both. It imports no other room.

pub(crate) mod completion;
pub(crate) mod handle;
pub(crate) mod opcodes;
pub(crate) mod source;
pub(crate) mod sqe;
