//! Which process this is, and whose rights it has: a number that a forked child does not have in common with its parent (S33).
//!
//! The number stands in a page that the kernel wipes on fork (MADV_WIPEONFORK, 4.14), so asking costs one load and no
//! system call. A child that makes a loop of its own gets the next number. The page is never unmapped.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use nix::errno::Errno;

use crate::error::{Error, Result, Sentence};
use crate::memory::try_box;

/// The process in which this was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    page: &'static AtomicU64,
    number: u64,
}

static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
static LAST_NUMBER: AtomicU64 = AtomicU64::new(0);

impl Process {
    /// The process that asks.
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

    /// Whether the process that asks is the one in which this was made, and not a forked child of it.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.page.load(Ordering::Relaxed) == self.number
    }
}

/// What each process makes for itself when it first asks. A forked child does not get its parent's, in which another thread may
/// have held a lock. It is never freed.
pub(crate) struct PerProcess<T> {
    latest: AtomicPtr<Made<T>>,
}

struct Made<T> {
    process: Process,
    value: T,
    /// That of the parent process. It is of no use but to those who look for leaks.
    _former: *mut Made<T>,
}

impl<T: Sync> PerProcess<T> {
    pub(crate) const fn new() -> PerProcess<T> {
        PerProcess { latest: AtomicPtr::new(ptr::null_mut()) }
    }

    /// What this process has made. Async-signal-safe.
    pub(crate) fn made(&self) -> Option<&'static T> {
        // SAFETY: what has been published is never freed.
        let latest: Option<&'static Made<T>> = unsafe { self.latest.load(Ordering::Acquire).as_ref() };
        latest.filter(|made| made.process.is_current()).map(|made| &made.value)
    }

    /// What this process has made, or makes now.
    pub(crate) fn get(&self, make: impl Fn() -> T) -> Result<&'static T> {
        let process = Process::current()?;
        loop {
            let former = self.latest.load(Ordering::Acquire);
            if let Some(made) = self.made() {
                return Ok(made);
            }
            let fresh = Box::into_raw(try_box(Made { process, value: make(), _former: former })?);
            if self.latest.compare_exchange(former, fresh, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                // SAFETY: it was not published, so it is still ours alone.
                drop(unsafe { Box::from_raw(fresh) });
            }
        }
    }
}

/// Whether the program runs with more rights than its user has, as set-user-ID programs do.
pub(crate) fn is_privileged() -> bool {
    // SAFETY: getauxval takes any number.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The page, mapped when it is first asked for.
fn page() -> Result<&'static AtomicU64> {
    let mut page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        let fresh = map()?;
        page = match PAGE.compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => fresh,
            Err(other) => {
                // SAFETY: `fresh` is a mapping of this size that nobody else has seen.
                unsafe { libc::munmap(fresh.cast(), PAGE_SIZE) };
                other
            }
        };
    }
    // SAFETY: the mapping is aligned, zeroed, valid for an AtomicU64 and never unmapped.
    Ok(unsafe { &*page })
}

/// The kernel rounds up to whole pages of whatever size it has.
const PAGE_SIZE: usize = 4096;

fn map() -> Result<*mut AtomicU64> {
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory that is in use.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            PAGE_SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(Error::NO_MEMORY);
    }
    // SAFETY: the range is the mapping made above.
    if unsafe { libc::madvise(page, PAGE_SIZE, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: as above, and nobody else has seen it.
        unsafe { libc::munmap(page, PAGE_SIZE) };
        return Err(Error::new(Errno::ENOSYS, Sentence::NoWipeOnFork));
    }
    Ok(page.cast())
}

/// Whether a thread of this process, by the kernel's number, has not ended for the kernel.
pub(crate) fn is_thread_alive(tid: i32) -> bool {
    // SAFETY: signal 0 asks, and sends nothing.
    let asked = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, 0) };
    asked == 0
}
