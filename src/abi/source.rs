//! The identity of a callback, for reports: a closure's type, or the address of a C function.

/// A closure or a C function.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// The type of a closure.
    Rust(&'static str),
    #[cfg(feature = "capi")]
    C(CFunction),
}

/// The address of a C function and its argument.
#[cfg(feature = "capi")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct CFunction {
    pub(crate) address: *mut std::ffi::c_void,
    pub(crate) arg: *mut std::ffi::c_void,
}
