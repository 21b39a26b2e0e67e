//! The basis of `net`, `fs` and `process`: operations over owned buffers, as futures of tasks.
//!
//! A buffer is moved in and comes back with any result. Dropping a future cancels its operation
//! (S13). Data that a receive had taken from the kernel by then stays with its descriptor, in
//! order, for the next receive, which waits for the end of the cancelled one: at most one is under
//! way.

#[cfg(any(feature = "futures-io", feature = "hyper"))]
pub mod compat;
pub mod fs;
#[allow(unsafe_code)]
mod in_flight;
mod methods;
pub mod net;
pub mod process;
mod receive;
mod send;
mod shared_fd;
pub mod signal;
mod turn;

pub(crate) use self::in_flight::run;
pub(crate) use self::methods::{reading, writing};
pub(crate) use self::receive::{accept_from, fill, receive};
#[cfg(any(feature = "futures-io", feature = "hyper"))]
pub(crate) use self::send::SendAll;
pub(crate) use self::send::{send, send_all, write_all_at};
pub(crate) use self::shared_fd::{IoKind, SharedFd};
pub(crate) use self::turn::Turn;
pub(crate) use crate::sys::memory::TryRc;
