//! An event loop for Linux on io_uring, with the scheduling of Python's asyncio.
//!
//! A [`Loop`] calls back: soon, later, at a time, again and again. What it promises is written down as rules with
//! numbers, S1 to S36, in `docs/semantics.md`; the documentation cites them, and the tests bear their numbers.
//!
//! ```
//! use std::time::Duration;
//! use ringloop::Loop;
//!
//! let lp = Loop::new()?;
//! let ticking = lp.call_every(Duration::from_millis(10), |lp| println!("tick at {:?}", lp.time()))?;
//! lp.call_later(Duration::from_millis(35), move |lp| lp.cancel(ticking).unwrap())?;
//! lp.run()?; // returns when nothing is left
//! # Ok::<(), ringloop::Error>(())
//! ```
//!
//! I/O comes in two ways: [`Loop::watch_fd`] tells when a descriptor is ready, and operations do the work and tell the result. A buffer
//! is given to an operation and comes back with it:
//!
//! ```
//! use ringloop::Loop;
//!
//! let lp = Loop::new()?;
//! let file = std::fs::File::open("/proc/self/status")?;
//! lp.read(file, Vec::with_capacity(100), None, |_lp, read, buffer| {
//!     assert_eq!(read, Ok(100));
//!     assert!(buffer.starts_with(b"Name:"));
//! })?;
//! lp.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What to know
//!
//! - Time is CLOCK_MONOTONIC in whole nanoseconds. A timer never runs early, and no delay is rounded.
//! - Everything that is ready runs in the order in which it became ready. What a callback schedules runs in a later
//!   iteration, so that nothing starves.
//! - A [`Handle`] never dangles: once its thing has ended, every function says so.
//! - A loop belongs to one thread. Callbacks get `&Loop` and may call all of it.
//! - Errors are values, an errno and a sentence, and nothing is lost on one. A panic in a callback leaves the run, or
//!   goes to [`Loop::set_exception_handler`]; the rest of the batch stays queued.
//! - It needs Linux 5.10, and is at its best from 6.1. Where io_uring is switched off, making a loop says so.
//!
//! With the feature `capi` the library has the C API as well, and `build.rs` generates its header.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod address;
#[allow(unsafe_code)]
mod buffer;
#[allow(unsafe_code)]
mod callback;
mod calls;
#[cfg(feature = "capi")]
#[allow(unsafe_code)]
mod capi;
#[allow(unsafe_code)]
mod children;
mod closing;
#[cfg(any(feature = "futures-io", feature = "hyper"))]
pub mod compat;
#[allow(unsafe_code)]
mod counted;
mod current;
mod embed;
mod error;
mod event_loop;
#[allow(unsafe_code)]
mod executor;
#[allow(unsafe_code)]
mod fork;
#[allow(unsafe_code)]
pub mod fs;
mod handle;
mod handler;
#[allow(unsafe_code)]
mod inbox;
mod inspect;
#[allow(unsafe_code)]
mod io;
#[allow(unsafe_code)]
mod lifecycle;
#[allow(unsafe_code)]
mod memory;
mod metrics;
#[allow(unsafe_code)]
pub mod net;
#[allow(unsafe_code)]
mod op;
mod owner;
#[allow(unsafe_code)]
mod parcel;
pub mod process;
mod readiness;
mod ready;
#[allow(unsafe_code)]
mod remote;
#[allow(unsafe_code)]
mod resolve;
#[allow(unsafe_code)]
mod ring;
#[allow(unsafe_code)]
mod running;
mod schedule;
pub mod signal;
#[allow(unsafe_code)]
mod signals;
mod slots;
mod slow;
mod sqe;
#[allow(unsafe_code)]
mod symbol;
mod sync;
#[allow(unsafe_code)]
pub mod task;
mod time;
mod timers;
mod trace;

pub use address::Address;
pub use buffer::{Buffer, BufferMut};
pub use closing::CloseError;
pub use current::Current;
pub use error::{Error, Result};
pub use event_loop::{Loop, Outcome};
pub use handle::{Handle, Kind};
pub use inspect::{Info, SlowCallback};
pub use lifecycle::{Builder, DetachedLoop};
pub use metrics::Metrics;
pub use op::{Buffers, CWD, Completion, FileStatus, OpenOptions};
pub use readiness::Events;
pub use remote::{Refused, Remote};
pub use schedule::HookPoint;
pub use sqe::Sqe;
pub use time::Time;

/// The README's program compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
