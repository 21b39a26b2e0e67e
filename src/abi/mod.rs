//! Plain data for all rooms: entries for the kernel, the properties of opcodes, completions, and
//! handles. This room imports no other room and makes no system call.

pub(crate) mod completion;
pub(crate) mod handle;
pub(crate) mod opcodes;
pub(crate) mod source;
pub(crate) mod sqe;
