//! The C API: thin, one file for each section of the header, no logic of its own.
//!
//! Each function calls the loop, and converts the result into numbers. It gets pointers and
//! functions of C in types that stand for the promises of C in the header (`pointer`, `memory`,
//! `messages`, `callbacks`). These types contain the `unsafe` code; they are sound if C keeps its
//! promises. `build.rs` makes `include/ringloop.h` from the documentation of public items. No panic
//! reaches C: an `extern "C"` function aborts with a message instead (S30).

#![allow(non_camel_case_types, reason = "the names are C's")]
#![allow(unreachable_pub, reason = "it is C that reaches them; cbindgen wants them pub")]

mod callbacks;
pub(crate) mod calls;
pub(crate) mod children;
pub(crate) mod completions;
pub(crate) mod embedding;
pub(crate) mod executor;
pub(crate) mod files;
pub(crate) mod introspection;
pub(crate) mod library;
pub(crate) mod lifecycle;
mod memory;
mod messages;
pub(crate) mod multi;
mod operations;
mod pointer;
pub(crate) mod readiness;
pub(crate) mod running;
pub(crate) mod signals;
pub(crate) mod sockets;
pub(crate) mod threads;
pub(crate) mod types;

use std::ffi::c_int;
use std::ptr;

use nix::errno::Errno;

use self::callbacks::{Arg, CCallback, Function, Plain};
use self::completions::loop_io_callback_t;
use self::memory::{
    Array, Buffer, ConstBuffer, Count, Lasting, OPTIONS_TOO_NEW, Room, Str, Versioned, VersionedIn,
    VersionedOut, sockaddr,
};
use self::messages::{ConstMessagePtr, Message, MessagePtr, receive};
use self::operations::{Made, Span, Status, Vectors, submit};
use self::pointer::{BuffersPtr, ConstLoopPtr, LoopPtr, RemotePtr};
use self::types::{loop_callback_t, loop_handle_t, loop_release_t};
use crate::abi::handle::Handle;
use crate::error::{Error, Result, Sentence};
use crate::event_loop::Loop;

/// The type of a loop in C.
#[derive(Debug)]
pub struct loop_t(());

/// The pointer that C has to a loop.
fn as_c(lp: &Loop) -> *mut loop_t {
    ptr::from_ref(lp).cast_mut().cast()
}

const NULL_POINTER: Error = Error::new(Errno::EINVAL, Sentence::NullPointer);

/// The result in C of a function that returns 0 or an error.
#[inline]
fn status(result: Result<()>) -> c_int {
    number(result.map(|()| 0))
}

/// As `status`, but without the sentence, for functions that signal handlers may call. In a library
/// that was dlopened, the first use of thread-local storage on a thread may allocate (S27).
fn status_without_sentence(result: Result<()>) -> c_int {
    result.map_or_else(|error| -error.raw_os_error(), |()| 0)
}

/// The result in C of a function that returns a number or an error.
#[inline]
fn number(result: Result<c_int>) -> c_int {
    result.unwrap_or_else(library::fail)
}

/// The result in C of a function that returns a count or an error.
fn count(result: Result<usize>) -> c_int {
    number(result.map(|count| c_int::try_from(count).unwrap_or(c_int::MAX)))
}

/// The result in C of a function that returns a handle or an error.
#[inline]
fn handle(result: Result<Handle>) -> loop_handle_t {
    match result {
        Ok(handle) => handle.as_raw(),
        Err(error) => library::fail(error).into(),
    }
}

/// A handle that came from C: 0 and negative numbers name nothing.
#[inline]
fn handle_from_c(raw: loop_handle_t) -> Handle {
    Handle::from_raw(raw).unwrap_or(Handle::NOTHING)
}
