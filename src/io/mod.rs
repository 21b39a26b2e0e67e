//! What `net`, `fs` and `process` are made of: operations over owned buffers, as futures of tasks.
//!
//! A buffer is moved in and comes back with the result, whatever that is. A future that is dropped
//! cancels its operation (S13). What a receive had taken from the kernel by then stays with its
//! source, in order, and is given to the next; the next waits for the end of one that was
//! cancelled, so that there is one under way at most.

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
