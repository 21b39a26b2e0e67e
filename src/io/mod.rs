//! What `net`, `fs` and `process` are made of: operations over owned buffers, as futures of tasks.
//!
//! A buffer is moved in and comes back with the result, whatever that is. A future that is dropped cancels its operation (S13). What a
//! receive had taken from the kernel by then stays with its source, in order, and is given to the next; the next waits for the end of one
//! that was cancelled, so that there is one under way at most.

mod accept;
#[cfg(any(feature = "futures-io", feature = "hyper"))]
pub mod compat;
mod flight;
pub mod fs;
mod methods;
pub mod net;
pub mod process;
mod receive;
mod send;
pub mod signal;
mod source;

pub(crate) use self::accept::{Accept, Listening};
pub(crate) use self::flight::{Kept, begin};
pub(crate) use self::methods::{reading, writing};
pub(crate) use self::receive::{Receive, fill, read_at};
pub(crate) use self::send::{Send, SendAll, write_all_at, write_at};
pub(crate) use self::source::{IoKind, Socket};
pub(crate) use crate::sys::try_arc::TryRc;
