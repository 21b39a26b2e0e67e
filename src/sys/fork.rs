//! The identity of a process: a number that a forked child does not share with its parent (S33).
//!
//! The number is in a page that the kernel wipes on fork (MADV_WIPEONFORK, 4.14), so a check costs
//! one load and no system call. A child that makes its own loop gets the next number. The page is
//! never unmapped.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{SysconfVar, gettid, sysconf};

use crate::error::{Error, Result, Sentence};
use crate::sys::c_library::{find_thread, wiped_on_fork};
use crate::sys::memory::{Published, try_box};

/// The process in which this value was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    page: &'static AtomicU64,
    number: u64,
}

static PAGE: Published<&AtomicU64> = Published::none();
static LAST_NUMBER: AtomicU64 = AtomicU64::new(0);

impl Process {
    /// The calling process.
    pub(crate) fn current() -> Result<Process> {
        let page = page()?;
        let mut number = page.load(Ordering::Acquire);
        if number == 0 {
            let fresh = LAST_NUMBER.fetch_add(1, Ordering::Relaxed) + 1;
            number = match page.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => fresh,
                Err(other) => other,
            };
        }
        Ok(Process { page, number })
    }

    /// Whether the calling process is the one in which this value was made, and not a forked child
    /// of it.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.page.load(Ordering::Relaxed) == self.number
    }
}

/// A value for each process, made at its first use and never freed. A forked child does not use its
/// parent's, in which another thread may have held a lock.
pub(crate) struct PerProcess<T: 'static>(Published<Made<T>>);

struct Made<T: 'static> {
    process: Process,
    value: T,
    /// The value of the parent process, which only leak checkers use.
    _former: Option<&'static Made<T>>,
}

impl<T: Send + Sync> PerProcess<T> {
    pub(crate) const fn new() -> PerProcess<T> {
        PerProcess(Published::none())
    }

    /// The value of this process, if it has been made. Async-signal-safe.
    pub(crate) fn made(&self) -> Option<&'static T> {
        self.0.get().filter(|made| made.process.is_current()).map(|made| &made.value)
    }

    /// The value of this process, made now if necessary.
    pub(crate) fn get(&self, make: impl Fn() -> T) -> Result<&'static T> {
        let process = Process::current()?;
        loop {
            let former = self.0.get();
            if let Some(made) = self.made() {
                return Ok(made);
            }
            self.0.replace(former, try_box(Made { process, value: make(), _former: former })?);
        }
    }
}

/// The page, mapped at the first call.
fn page() -> Result<&'static AtomicU64> {
    loop {
        if let Some(page) = PAGE.get() {
            return Ok(page);
        }
        let fresh = wiped_on_fork().map_err(|errno| match errno {
            Errno::ENOMEM => Error::NO_MEMORY,
            _ => Error::new(Errno::ENOSYS, Sentence::NoWipeOnFork),
        })?;
        PAGE.replace(None, try_box(fresh)?);
    }
}

/// Whether a thread of this process is still alive for the kernel, by TID. `exited_at` is the time
/// on CLOCK_BOOTTIME when it ended for the program, 0 if unknown: a thread that began later is
/// another one with the same TID.
///
/// A main thread that leaves others behind stays as a zombie, which tgkill reports as alive; so the
/// state in /proc decides. Without /proc, the thread is alive. Where a filter refuses tgkill, only
/// /proc is used. In doubt the thread is alive, so that its loops are not taken from it.
pub(crate) fn is_thread_alive(tid: i32, exited_at: u64) -> bool {
    let asked = find_thread(tid);
    if asked == Err(Errno::ESRCH) {
        return false;
    }
    match open_stat(tid) {
        Ok(file) => !thread_state(file).is_some_and(|(state, began)| {
            matches!(state, b'Z' | b'X') || exited_at != 0 && began > exited_at
        }),
        // /proc has this thread, but not that one.
        Err(Errno::ENOENT) => asked.is_ok() || open_stat(gettid().as_raw()).is_err(),
        Err(_) => true,
    }
}

/// Opens /proc's stat file of a thread.
fn open_stat(tid: i32) -> nix::Result<File> {
    let mut path = [0; 40];
    // The last byte stays NUL: a number has at most eleven characters.
    let _ = write!(&mut path[..39], "/proc/self/task/{tid}/stat");
    let path = CStr::from_bytes_until_nul(&path).unwrap_or_default();
    open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map(File::from)
}

/// The state letter of a thread, and its start time on CLOCK_BOOTTIME. Allocates nothing.
fn thread_state(mut file: File) -> Option<(u8, u64)> {
    // The fields are in the first 300 bytes, of which the name has 16.
    let mut text = [0; 512];
    let length = file.read(&mut text).ok()?;
    // The name, which is in brackets, may contain brackets.
    let rest = &text[..length][text[..length].iter().rposition(|&byte| byte == b')')? + 1..];
    let mut fields = rest.split(|&byte| byte == b' ').skip(1);
    let state = *fields.next()?.first()?;
    let ticks: u64 = str::from_utf8(fields.nth(18)?).ok()?.parse().ok()?;
    let ticks_a_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    Some((state, ticks * (1_000_000_000 / ticks_a_second.max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::boottime;

    #[test]
    fn s25_a_thread_that_has_begun_since_is_another_one() {
        let tid = nix::unistd::gettid().as_raw();
        assert!(thread_state(open_stat(tid).unwrap()).is_some_and(|(state, _)| state == b'R'));
        assert!(is_thread_alive(tid, 0) && is_thread_alive(tid, boottime()));
        assert!(!is_thread_alive(tid, 1));
        assert!(!is_thread_alive(i32::MAX, 0));
    }
}
