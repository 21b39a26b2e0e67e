//! Library: version, errors in words.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::io::Write;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8};

use nix::errno::Errno;

use crate::error::Error;

thread_local!(static LAST_ERROR: Cell<&'static CStr> = const { Cell::new(c"") });

/// Remembers the sentence of an error, and gives its number.
#[cold]
#[inline(never)]
pub(super) fn fail(error: Error) -> c_int {
    LAST_ERROR.set(error.sentence());
    -error.raw_os_error()
}

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version holds no NUL"),
    };

/// The version of the library that runs, such as "1.2.3"; LOOP_VERSION_STRING is that of the
/// header. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn loop_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The name and the meaning of an error, such as "EBUSY: Device or resource busy"; `error` may be
/// negative or positive. The string lives for ever. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn loop_strerror(error: c_int) -> *const c_char {
    // In static memory: words for an error are wanted when there is none left.
    static NAMES: [Name; ERRNOS] = [const { Name::new() }; ERRNOS];

    match NAMES.get(error.unsigned_abs() as usize) {
        Some(name) => name.words_for(error.wrapping_abs()),
        None => c"unknown error".as_ptr(),
    }
}

/// Words that are there once they have been asked for. Whoever asks for them first writes them,
/// several threads the same: a lock would stay held in a child that is forked meanwhile (S33).
struct Name {
    is_written: AtomicBool,
    words: [AtomicU8; size_of::<Words>()],
}

impl Name {
    const fn new() -> Name {
        Name {
            is_written: AtomicBool::new(false),
            words: [const { AtomicU8::new(0) }; size_of::<Words>()],
        }
    }

    fn words_for(&self, errno: c_int) -> *const c_char {
        if !self.is_written.load(Acquire) {
            self.words
                .iter()
                .zip(words_for(errno))
                .for_each(|(room, byte)| room.store(byte, Relaxed));
            self.is_written.store(true, Release);
        }
        self.words.as_ptr().cast()
    }
}

/// One more than the largest errno of Linux.
const ERRNOS: usize = libc::EHWPOISON as usize + 1;

/// Room for the words of the longest, which has 57 bytes, and a NUL.
type Words = [u8; 64];

fn words_for(errno: c_int) -> Words {
    let mut words = [0; size_of::<Words>()];
    let mut room = &mut words[..size_of::<Words>() - 1];
    // What does not fit is cut off.
    let _ = match Errno::from_raw(errno) {
        _ if errno == 0 => write!(room, "no error"),
        Errno::UnknownErrno => write!(room, "unknown error"),
        known => write!(room, "{known:?}: {}", known.desc()),
    };
    words
}

/// A sentence about what went wrong last on the calling thread, and what to do about it; "" when
/// nothing has. A call that succeeds leaves it as it was: ask after a failure alone. So do
/// loop_wakeup() and loop_remote_wakeup(), which are for signal handlers, also when they fail. The
/// string lives for ever. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn loop_last_error() -> *const c_char {
    LAST_ERROR.get().as_ptr()
}
