//! The guide, in four chapters. Each begins with a program and ends with where to read on; all of
//! their programs are compiled and run by the tests.
//!
//! - [`callbacks`]: the loop itself. Calls, timers, handles, running and stopping, and time that a
//!   test can jump through.
//! - [`coroutines`]: tasks that await. For who comes from asyncio or tokio, with a table from
//!   either.
//! - [`threads`]: what other threads may do, work off the loop, a loop for each processor, signals,
//!   fork.
//! - [`io`]: sockets, files, pipes and children, with callbacks and with tasks; what is lost when a
//!   future is dropped, and what not.
//!
//! A program without `main` stands in `fn main() -> Result<(), Box<dyn std::error::Error>> { ...
//! Ok(()) }`. Some use the crates `libc`, `futures-util` and `futures-channel`; `compat` is there
//! with the features `futures-io` and `hyper`.
//!
//! The chapters cite the rules of `docs/semantics.md` by their numbers, as S7. The module is in the
//! documentation alone, not in the library.

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
