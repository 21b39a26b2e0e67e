//! Whose a loop is: the thread that may call it and the process it lives in (S25, S29, S33).
//!
//! Threads are told apart by a number that is never used again; an address or a pthread_t comes back with another
//! thread. A thread that owns loops shares with them whether it has exited. Nothing is shared by all loops: a lock of
//! that kind would hang a child that was forked while another thread held it. The check costs two loads and two compares,
//! in every build.

use std::cell::{Cell, OnceCell};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::unistd::gettid;

use crate::counted::Counted;
use crate::error::{Error, Result};
use crate::fork::{Process, is_thread_alive};
use crate::time::monotonic;

/// The owner of one loop.
pub(crate) struct Owner {
    process: Process,
    thread: AtomicU64,
    /// The kernel's number of the thread that made or adopted the loop.
    tid: AtomicI32,
    /// Whether the thread that made or adopted the loop has exited.
    exited: Mutex<Counted<AtomicBool>>,
}

impl Owner {
    /// The thread and the process that ask.
    pub(crate) fn current() -> Result<Owner> {
        let process = Process::current()?;
        let exited = Mutex::new(exit_of_this_thread()?);
        let (thread, tid) = (AtomicU64::new(number_this_thread()), AtomicI32::new(gettid().as_raw()));
        Ok(Owner { process, thread, tid, exited })
    }

    /// Makes the calling thread the owner.
    pub(crate) fn adopt(&self) -> Result<()> {
        *self.exited() = exit_of_this_thread()?;
        self.tid.store(gettid().as_raw(), Relaxed);
        self.thread.store(number_this_thread(), Relaxed);
        Ok(())
    }

    /// Whether the calling thread may call the loop; if not, EOWNERDEAD or EPERM (S29).
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.process.is_current() && self.thread.load(Relaxed) == THREAD.get() { Ok(()) } else { self.refuse() }
    }

    #[cold]
    fn refuse(&self) -> Result<()> {
        Err(if self.process.is_current() { Error::WRONG_THREAD } else { Error::FORKED })
    }

    /// As `check`, but when the owner has exited, the calling thread takes its place. Allocates nothing.
    pub(crate) fn inherit(&self) -> Result<()> {
        let is_heir =
            self.process.is_current() && self.thread.load(Relaxed) != THREAD.get() && self.exited().load(Acquire);
        if is_heir {
            self.thread.store(number_this_thread(), Relaxed);
        }
        self.check()
    }

    /// Whether the loop has been taken over from a thread that has exited.
    pub(crate) fn is_inherited(&self) -> bool {
        self.tid.load(Relaxed) != gettid().as_raw()
    }

    /// Waits until the kernel, too, knows nothing more of the thread that has exited, at the latest until `until`: then ETIMEDOUT.
    /// It takes the last microseconds of the thread.
    pub(crate) fn await_exit(&self, until: u64) -> Result<()> {
        while is_thread_alive(self.tid.load(Relaxed)) {
            if monotonic() >= until {
                return Err(Error::KERNEL_HOLDS_ON);
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    pub(crate) fn process(&self) -> Process {
        self.process
    }

    fn exited(&self) -> MutexGuard<'_, Counted<AtomicBool>> {
        self.exited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static LAST_THREAD: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// This thread's number; 0 before it is given one.
    static THREAD: Cell<u64> = const { Cell::new(0) };
    /// Tells the loops of this thread when it exits; empty before it has any.
    static EXIT: OnceCell<Exit> = const { OnceCell::new() };
}

/// Sets what it shares with loops when it is dropped.
struct Exit(Counted<AtomicBool>);

impl Drop for Exit {
    fn drop(&mut self) {
        // What the thread has done with its loops comes before what its heir does.
        self.0.store(true, Release);
    }
}

/// The calling thread's number.
fn number_this_thread() -> u64 {
    if THREAD.get() == 0 {
        THREAD.set(LAST_THREAD.fetch_add(1, Relaxed) + 1);
    }
    THREAD.get()
}

/// What tells of the calling thread's exit.
fn exit_of_this_thread() -> Result<Counted<AtomicBool>> {
    let shared = EXIT.try_with(|exit| match exit.get() {
        Some(exit) => Ok(exit.0.clone()),
        None => Counted::new(AtomicBool::new(false)).map(|fresh| exit.get_or_init(|| Exit(fresh)).0.clone()),
    });
    // A thread that is past its destructors counts as exited at once.
    shared.unwrap_or_else(|_| Counted::new(AtomicBool::new(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s25_an_owner_is_gone_once_its_thread_has_exited() {
        let owner = std::thread::spawn(|| {
            let owner = Owner::current().unwrap();
            assert_eq!(owner.check(), Ok(()));
            owner
        })
        .join()
        .unwrap();
        assert_eq!(owner.check(), Err(Error::WRONG_THREAD));
        assert_eq!(owner.inherit(), Ok(()));
        assert_eq!(owner.check(), Ok(()));
    }

    #[test]
    fn s25_the_owner_alone_may_call() {
        let owner = Owner::current().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(owner.check(), Err(Error::WRONG_THREAD));
                assert_eq!(owner.inherit(), Err(Error::WRONG_THREAD));
            });
        });
        assert_eq!(owner.check(), Ok(()));
    }
}
