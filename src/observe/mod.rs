//! Observation of a loop: counters, pending entries, slow callbacks, a trace.
//!
//! This room only formats and writes data; `event_loop` calls it.

pub(crate) mod inspect;
pub(crate) mod metrics;
pub(crate) mod symbol;
pub(crate) mod trace;
