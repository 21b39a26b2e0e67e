//! One test or more for each rule of the loop's semantics that the Rust API can show, named after the rule.
//!
//! Time is virtual (S36) wherever real time is not the point: then every time in a test is exact. Where time is real,
//! nothing is asserted that a slow machine could break.

mod children;
mod closing;
mod errors;
mod executor;
mod handles;
mod io;
mod iteration;
mod operations;
mod panics;
mod release;
mod running;
mod signal;
mod stopping;
#[path = "../support/mod.rs"]
mod support;
mod tasks;
mod threads;
mod time;
mod timers;
mod trace;
mod watching;
