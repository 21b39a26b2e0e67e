//! What a loop asks of a kernel, and who answers.

pub(crate) mod uring;
