//! What is the process's: its forks, signal dispositions, children, environment, and memory that
//! can be refused.
//!
//! The room knows nothing of loops, and imports errors and time alone.

#[allow(unsafe_code)]
pub(crate) mod c_library;
pub(crate) mod children;
pub(crate) mod descriptors;
pub(crate) mod fork;
#[allow(unsafe_code)]
pub(crate) mod memory;
pub(crate) mod owner;
#[allow(unsafe_code)]
pub(crate) mod signals;
