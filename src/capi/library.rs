//! Library: version, errors in words.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::OnceLock;

use nix::errno::Errno;

use crate::error::Error;

thread_local!(static LAST_ERROR: Cell<&'static CStr> = const { Cell::new(c"") });

/// Remembers the sentence of an error, and gives its number.
#[cold]
pub(super) fn fail(error: Error) -> c_int {
    LAST_ERROR.set(error.sentence());
    -error.raw_os_error()
}

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("a version holds no NUL"),
};

/// The version of the library that runs, such as "1.2.3"; LOOP_VERSION_STRING is that of the header. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn loop_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The name and the meaning of an error, such as "EBUSY: Device or resource busy"; `error` may be negative or positive. The
/// string lives for ever. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn loop_strerror(error: c_int) -> *const c_char {
    static NAMES: OnceLock<Vec<CString>> = OnceLock::new();

    let names = NAMES.get_or_init(|| (0..=libc::EHWPOISON).map(name).collect());
    let name = names.get(error.unsigned_abs() as usize).filter(|name| !name.is_empty());
    name.map_or(c"unknown error", CString::as_c_str).as_ptr()
}

/// An errno in words; empty for a number that is none.
fn name(errno: c_int) -> CString {
    let words = match Errno::from_raw(errno) {
        _ if errno == 0 => "no error".to_owned(),
        Errno::UnknownErrno => String::new(),
        known => format!("{known:?}: {}", known.desc()),
    };
    CString::new(words).unwrap_or_default()
}

/// A sentence about what went wrong last on the calling thread, and what to do about it; "" when nothing has. The string
/// lives for ever. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn loop_last_error() -> *const c_char {
    LAST_ERROR.get().as_ptr()
}
