//! The guide, in four chapters. Each begins with a program and ends with further reading. The tests
//! compile and run all programs of the guide.
//!
//! - [`callbacks`]: the loop itself. Calls, timers, handles, running and stopping, and virtual time
//!   for tests.
//! - [`coroutines`]: tasks that await, with tables for users of asyncio and tokio.
//! - [`threads`]: what other threads may do, work on other threads, one loop for each processor,
//!   signals, fork.
//! - [`io`]: sockets, files, pipes and children, with callbacks and with tasks; what a dropped
//!   future loses and keeps.
//!
//! A program without `main` is the body of `fn main() -> Result<(), Box<dyn std::error::Error>> {
//! ... Ok(()) }`. Some programs use the crates `libc`, `futures-util` and `futures-channel`.
//! `compat` needs the feature `futures-io` or `hyper`.
//!
//! The chapters cite the rules of `docs/semantics.md` by number, as S7. The module exists only in
//! the documentation, not in the library.

pub mod callbacks {
    #![doc = include_str!("../docs/guide/callbacks.md")]
}

pub mod coroutines {
    #![doc = include_str!("../docs/guide/coroutines.md")]
}

pub mod io {
    #![doc = include_str!("../docs/guide/io.md")]
}

pub mod threads {
    #![doc = include_str!("../docs/guide/threads.md")]
}
