//! An event loop for Linux on io_uring, with the scheduling of Python's asyncio.
//!
//! A [`Loop`] calls back: soon, later, at a given time, periodically, when a descriptor is ready,
//! or when an operation has completed. Numbered rules, S1 to S48 in `docs/semantics.md`, define its
//! behaviour. The documentation cites them, and tests have their numbers.
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
//! A loop also runs coroutines. Their turns are entries of the same ready queue. [`task`] starts
//! and joins coroutines, which await [`net`], [`fs`], [`process`] and [`signal`](mod@signal). An
//! operation takes ownership of its buffer and returns the buffer with the result:
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
//! Four chapters, each with a first program, the important rules, pitfalls, and the limits of the
//! guarantees:
//!
//! - [callbacks](guide::callbacks): calls, timers, handles, running and stopping, virtual time for
//!   tests;
//! - [coroutines](guide::coroutines): tasks, groups, queues, time; coming from asyncio or tokio;
//! - [threads](guide::threads): posts, wakers, work on other threads, one loop for each processor,
//!   signals, fork;
//! - [io](guide::io): readiness and completions, owned buffers, the effects of dropping a future.
//!
//! # What to know
//!
//! - A loop belongs to one thread. Callbacks get `&Loop` and may call all of its methods.
//! - An error is a value: an errno and a sentence. No error loses data.
//! - The library needs Linux 5.10, and works best from 6.1. Where io_uring is disabled, making a
//!   loop fails with an error that explains the cause.
//!
//! # Features
//!
//! - `futures-io`: `compat::Buffered` wraps a stream and implements the traits of futures-io.
//! - `hyper`: the same with the traits of hyper, and an executor and a timer for hyper.
//! - `futures-core`: [`signal::Signals`] implements `Stream`.
//! - `capi`: adds the C API to the library; `build.rs` generates its header.

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

/// The program of the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The Rust programs of the book's chapters compile and run; `guide` has those of the guide.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../docs/first-program.md")]
    struct FirstProgram;

    #[doc = include_str!("../docs/errors.md")]
    struct Errors;
}
