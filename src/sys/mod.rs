//! State of the process: forks, signal dispositions, children, environment, and fallible
//! allocation.
//!
//! This room does not know loops, and imports only errors and time.

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
