//! Library: version, error messages.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::io::Write;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8};

use nix::errno::Errno;

use crate::error::Error;

thread_local!(static LAST_ERROR: Cell<&'static CStr> = const { Cell::new(c"") });

/// Stores the sentence of an error for loop_last_error(), and returns -errno.
#[cold]
#[inline(never)]
pub(super) fn fail(error: Error) -> c_int {
    LAST_ERROR.set(error.sentence());
    -error.raw_os_error()
}

/// Gets the version of the running library, such as "1.2.3". LOOP_VERSION_STRING is the version of
/// the header. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn loop_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Gets the name and the meaning of an error, such as "EBUSY: Device or resource busy". `error` may
/// be negative or positive. The string is valid until the process ends. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn loop_strerror(error: c_int) -> *const c_char {
    // In static memory: a message is needed also when memory is refused.
    static NAMES: [Name; ERRNOS] =
        [const { Name(AtomicBool::new(false), [const { AtomicU8::new(0) }; ROOM]) }; ERRNOS];

    match NAMES.get(error.unsigned_abs() as usize) {
        Some(name) => name.words_for(error.wrapping_abs()),
        None => c"unknown error".as_ptr(),
    }
}

/// One more than the largest errno of Linux.
const ERRNOS: usize = libc::EHWPOISON as usize + 1;

/// Space for the longest text, which has 57 bytes, and a NUL.
const ROOM: usize = 64;

/// Whether the text for an error has been written, and the text. The first request writes the text;
/// several threads may write the same text at once. A lock would stay held in a child that is
/// forked meanwhile (S33).
struct Name(AtomicBool, [AtomicU8; ROOM]);

impl Name {
    fn words_for(&self, errno: c_int) -> *const c_char {
        let Name(is_written, place) = self;
        if !is_written.load(Acquire) {
            let mut words = [0; ROOM];
            let mut room = &mut words[..ROOM - 1];
            // The buffer truncates longer text.
            let _ = match Errno::from_raw(errno) {
                _ if errno == 0 => write!(room, "no error"),
                Errno::UnknownErrno => write!(room, "unknown error"),
                known => write!(room, "{known:?}: {}", known.desc()),
            };
            place.iter().zip(words).for_each(|(place, byte)| place.store(byte, Relaxed));
            is_written.store(true, Release);
        }
        place.as_ptr().cast()
    }
}

/// Gets a sentence about the last error on the calling thread: its cause and its remedy. The
/// sentence is "" if there was no error. A call that succeeds does not change the sentence, so ask
/// only after a failure. loop_wakeup() and loop_remote_wakeup(), which are for signal handlers, do
/// not change the sentence even if they fail. The string is valid until the process ends. Any
/// thread.
#[unsafe(no_mangle)]
pub extern "C" fn loop_last_error() -> *const c_char {
    LAST_ERROR.get().as_ptr()
}
