//! Tests of the loop's semantics: at least one for each rule that the Rust API can show. The name
//! of such a test begins with its rule.
//!
//! Time is virtual (S36) except where real time is tested; with virtual time, all times are exact.
//! Tests on the real clock assert nothing that a slow machine could break.

mod cancelling;
mod chains;
mod children;
mod closing;
#[cfg(any(feature = "futures-io", feature = "hyper"))]
mod compat;
mod dense;
mod embedding;
mod errors;
mod executor;
mod files;
mod flags;
mod groups;
mod handles;
mod io;
mod iteration;
mod kernels;
mod letting_go;
mod nonblock;
mod operations;
mod panics;
mod processes;
mod queues;
mod receiving;
mod release;
mod running;
mod sends;
mod signal;
mod signals;
mod stopping;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod tasks;
mod threads;
mod time;
mod timers;
mod trace;
mod watchers;
mod watching;
