//! Seeing what a loop does: counters, what is pending, slow callbacks, a trace.

pub(crate) mod inspect;
pub(crate) mod metrics;
pub(crate) mod symbol;
pub(crate) mod trace;
