//! What is asked of the C library and the kernel without memory of its own, and without a lock: the environment, files by name (S31, S33).

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::FromRawFd;

use libc::c_int;
use nix::errno::Errno;

/// A variable of the environment, to be read at once; none in a program that runs with more rights than its user has, as set-user-ID
/// programs do.
///
/// The standard library's function would abort where there is no memory for a copy. Its lock, held by another thread at the moment of a
/// fork, would hang a child that sets a variable.
pub(crate) fn variable<'a>(name: &CStr) -> Option<&'a CStr> {
    if is_privileged() {
        return None;
    }
    // SAFETY: getenv gives null or a C string. It stays where it is while nobody changes the environment, which no thread may do while
    // another reads it: so says setenv(3), and so getaddrinfo and all of C need it.
    unsafe { libc::getenv(name.as_ptr()).as_ref().map(|value| CStr::from_ptr(value)) }
}

/// Whether the program runs with more rights than its user has, as set-user-ID programs do.
fn is_privileged() -> bool {
    // SAFETY: getauxval takes any number.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Opens a file, whose descriptor is closed on exec. (The standard library copies a long name, and aborts where there is no memory for that.)
pub(crate) fn open(name: &CStr, flags: c_int) -> nix::Result<File> {
    // SAFETY: the name is a C string.
    let fd = Errno::result(unsafe { libc::open(name.as_ptr(), flags | libc::O_CLOEXEC, 0o666) })?;
    // SAFETY: the descriptor is fresh, and nobody else knows of it.
    Ok(unsafe { File::from_raw_fd(fd) })
}
