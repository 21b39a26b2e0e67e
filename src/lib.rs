//! An event loop for Linux on io_uring, with the scheduling of Python's asyncio.
//!
//! A [`Loop`] calls back: soon, later, at a time, again and again, when a descriptor is ready, when
//! an operation is done. What it promises is written down as rules with numbers, S1 to S48, in
//! `docs/semantics.md`; the documentation cites them, and the tests bear their numbers.
//!
//! ```
//! use std::time::Duration;
//! use ringloop::Loop;
//!
//! let lp = Loop::new()?;
//! let tick = |lp: &Loop| println!("tick at {:?}", lp.time());
//! let ticking = lp.call_every(Duration::from_millis(10), tick)?;
//! lp.call_later(Duration::from_millis(35), move |lp| lp.cancel(ticking).unwrap())?;
//! lp.run()?; // returns when nothing is left
//! # Ok::<(), ringloop::Error>(())
//! ```
//!
//! It runs coroutines as well, whose turns stand in the same queue: [`task`] starts and joins them,
//! and [`net`], [`fs`], [`process`] and [`signal`](mod@signal) are what they await. A buffer is
//! given to an operation and comes back with the result:
//!
//! ```
//! use std::time::Duration;
//! use ringloop::{Loop, Result, fs::File, task};
//!
//! async fn run() -> Result<()> {
//!     let ticking = task::spawn(async {
//!         task::sleep(Duration::from_millis(10)).await
//!     })?;
//!     let file = File::open("/proc/self/status").await?;
//!     let (read, buffer) = file.read_at(Vec::with_capacity(100), 0).await;
//!     assert_eq!(read?, 100);
//!     assert!(buffer.starts_with(b"Name:"));
//!     ticking.await.expect("it does not panic")
//! }
//!
//! Loop::new()?.run_until_complete(run())??;
//! # Ok::<(), ringloop::Error>(())
//! ```
//!
//! # The guide
//!
//! Four chapters, each with a first program, the rules that matter, pitfalls, and what is not
//! guaranteed:
//!
//! - [callbacks](guide::callbacks): calls, timers, handles, running and stopping, virtual time for
//!   tests;
//! - [coroutines](guide::coroutines): tasks, groups, queues, time; from asyncio and from tokio;
//! - [threads](guide::threads): posts, wakers, work off the loop, a loop for each processor,
//!   signals, fork;
//! - [io](guide::io): readiness and completions, owned buffers, what is lost when a future is
//!   dropped.
//!
//! # What to know
//!
//! - A loop belongs to one thread. Callbacks get `&Loop` and may call all of it.
//! - Errors are values, an errno and a sentence, and nothing is lost on one.
//! - It needs Linux 5.10, and is at its best from 6.1. Where io_uring is switched off, making a
//!   loop says so.
//!
//! # Features
//!
//! - `futures-io`: `compat::Buffered` makes of a stream one with the traits of futures-io.
//! - `hyper`: the same with those of hyper, and an executor and a timer for hyper.
//! - `futures-core`: [`signal::Signals`] is a `Stream`.
//! - `capi`: the library has the C API as well, and `build.rs` generates its header.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod abi;
#[cfg(feature = "capi")]
#[allow(unsafe_code)]
mod capi;
mod error;
mod event_loop;
#[cfg(any(doc, doctest))]
pub mod guide;
mod io;
mod kernel;
mod observe;
#[allow(unsafe_code)]
mod op;
mod pending;
mod sys;
pub mod task;
mod threads;
mod time;

pub use abi::handle::{Handle, Kind};
pub use abi::sqe::Sqe;
pub use error::{Error, Result};
pub use event_loop::builder::Builder;
pub use event_loop::close::CloseError;
pub use event_loop::remote::{Refused, Remote};
pub use event_loop::thread::DetachedLoop;
pub use event_loop::watch::Events;
pub use event_loop::{Loop, Outcome};
#[cfg(any(feature = "futures-io", feature = "hyper"))]
pub use io::compat;
pub use io::{fs, net, process, signal};
pub use observe::inspect::{Info, SlowCallback};
pub use observe::metrics::Metrics;
pub use op::address::Address;
pub use op::buffer::{Buffer, BufferMut};
pub use op::{Buffers, CWD, Completion, FileStatus, OpenOptions};
pub use pending::HookPoint;
pub use task::current::Current;
pub use time::Time;

/// The README's program compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// What the chapters of the book have in Rust compiles and runs; those of the guide are in `guide`.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../docs/first-program.md")]
    struct FirstProgram;

    #[doc = include_str!("../docs/errors.md")]
    struct Errors;
}
