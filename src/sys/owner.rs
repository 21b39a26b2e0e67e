//! Whose a loop is: the thread that may call it and the process it lives in (S25, S29, S33).
//!
//! Threads are told apart by a number that is never used again; an address or a pthread_t comes
//! back with another thread. A thread that owns loops shares with them when it has exited. Where it
//! could not say so, the kernel is asked: glibc runs no thread-local destructors of a main thread
//! that leaves by pthread_exit. Nothing is shared by all loops: a lock of that kind would hang a
//! child that was forked while another thread held it. The check costs two loads and two compares,
//! in every build.

use std::cell::{Cell, OnceCell};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::unistd::gettid;

use crate::error::{Error, Result};
use crate::sys::fork::{Process, is_thread_alive};
use crate::sys::memory::TryArc;
use crate::time::{boottime, monotonic};

/// The owner of one loop.
pub(crate) struct Owner {
    process: Process,
    thread: AtomicU64,
    /// The kernel's number of the thread that made or adopted the loop.
    tid: AtomicI32,
    /// When the thread that made or adopted the loop exited, by CLOCK_BOOTTIME; 0 while it has not
    /// said so.
    exited: Mutex<TryArc<AtomicU64>>,
    /// The kernel's number of the thread that had exited when the loop was taken over first, to
    /// which its ring may be bound, and when that exited; 0: there is none.
    former: (AtomicI32, AtomicU64),
    /// Whether the loop has run: then no other thread adopts it.
    settled: AtomicBool,
}

impl Owner {
    /// The thread and the process that ask.
    pub(crate) fn current() -> Result<Owner> {
        Ok(Owner {
            process: Process::current()?,
            thread: AtomicU64::new(number_this_thread()),
            tid: AtomicI32::new(gettid().as_raw()),
            exited: Mutex::new(exit_of_this_thread()?),
            former: Default::default(),
            settled: AtomicBool::new(false),
        })
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
        if self.process.is_current() && self.thread.load(Relaxed) == THREAD.get() {
            Ok(())
        } else {
            self.refuse()
        }
    }

    #[cold]
    #[inline(never)]
    fn refuse(&self) -> Result<()> {
        Err(if self.process.is_current() { Error::WRONG_THREAD } else { Error::FORKED })
    }

    /// Whether the owner is another thread, which has exited, so that the calling thread may take
    /// its place; else it is the owner, or the error is that of `check`. Allocates nothing.
    pub(crate) fn is_heir(&self) -> Result<bool> {
        let refused = self.check();
        match refused {
            Err(Error::WRONG_THREAD)
                if self.exited_at() != 0 || !is_thread_alive(self.tid.load(Relaxed), 0) =>
            {
                Ok(true)
            }
            _ => refused.map(|()| false),
        }
    }

    /// Makes the calling thread, an heir, the owner. Without memory for what tells of its exit,
    /// others may become heirs before that.
    pub(crate) fn inherit(&self) {
        if !self.is_inherited() {
            self.former.1.store(self.exited_at(), Relaxed);
            self.former.0.store(self.tid.load(Relaxed), Relaxed);
        }
        if self.adopt().is_err() {
            self.thread.store(number_this_thread(), Relaxed);
        }
    }

    /// Whether the loop has been taken over from a thread that has exited.
    pub(crate) fn is_inherited(&self) -> bool {
        self.former.0.load(Relaxed) != 0
    }

    /// Waits until the kernel, too, knows nothing more of the former owner, at the latest until
    /// `until`: then ETIMEDOUT. It takes the last microseconds of the thread; longer where a device
    /// or a server holds up one of the kernel's own threads, which that one waits for.
    pub(crate) fn await_exit(&self, until: u64) -> Result<()> {
        let mut turns = 0;
        while is_thread_alive(self.former.0.load(Relaxed), self.former.1.load(Relaxed)) {
            if monotonic() >= until {
                return Err(Error::CLOSE_TIMED_OUT);
            }
            if turns < 100 {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_micros(100));
            }
            turns += 1;
        }
        Ok(())
    }

    /// The loop runs: it stays with its thread. True the first time.
    #[inline]
    pub(crate) fn settle(&self) -> bool {
        let is_first = !self.settled.load(Relaxed);
        if is_first {
            self.settled.store(true, Relaxed);
        }
        is_first
    }

    /// A forked child has freed its copy of the loop, but for this owner: nobody owns it there, and
    /// what tells of an exit is not freed.
    #[cfg(feature = "capi")]
    pub(crate) fn abandon(&mut self) {
        self.leave_to_nobody();
        std::mem::forget(self.exited.get_mut().unwrap_or_else(PoisonError::into_inner).clone());
    }

    /// Nobody owns the loop any more in a forked child.
    #[cfg(feature = "capi")]
    pub(crate) fn leave_to_nobody(&self) {
        self.thread.store(NOBODY, Relaxed);
    }

    /// Whether the calling thread is the owner, or its image in a forked child.
    #[cfg(feature = "capi")]
    pub(crate) fn is_of_this_thread(&self) -> bool {
        self.thread.load(Relaxed) == THREAD.get()
    }

    #[cfg(feature = "capi")]
    pub(crate) fn is_abandoned(&self) -> bool {
        self.thread.load(Relaxed) == NOBODY
    }

    /// Whether another thread may adopt the loop, as far as the owner tells.
    pub(crate) fn check_adoptable(&self) -> Result<()> {
        match (self.process.is_current(), self.settled.load(Relaxed)) {
            (false, _) => Err(Error::FORKED),
            (true, true) => Err(Error::BOUND),
            (true, false) => Ok(()),
        }
    }

    pub(crate) fn process(&self) -> Process {
        self.process
    }

    fn exited(&self) -> MutexGuard<'_, TryArc<AtomicU64>> {
        self.exited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the owner exited; 0 if it has not said so.
    fn exited_at(&self) -> u64 {
        self.exited().load(Acquire)
    }
}

/// No thread's number.
#[cfg(feature = "capi")]
const NOBODY: u64 = u64::MAX;

static LAST_THREAD: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// This thread's number; 0 before it is given one.
    static THREAD: Cell<u64> = const { Cell::new(0) };
    /// Tells the loops of this thread when it exits; empty before it has any.
    static EXIT: OnceCell<Exit> = const { OnceCell::new() };
}

/// Sets what it shares with loops when it is dropped, after it has called a function, if there is
/// one.
struct Exit(TryArc<AtomicU64>, Cell<Option<fn()>>);

impl Drop for Exit {
    fn drop(&mut self) {
        self.1.take().into_iter().for_each(|before| before());
        // What the thread has done with its loops comes before what its heir does.
        self.0.store(boottime().max(1), Release);
    }
}

/// The calling thread's number.
fn number_this_thread() -> u64 {
    if THREAD.get() == 0 {
        THREAD.set(LAST_THREAD.fetch_add(1, Relaxed) + 1);
    }
    THREAD.get()
}

/// Has a function called before the calling thread counts as exited. False: it counts as that
/// already. (No function is called where the thread leaves without its destructors.)
#[cfg(feature = "capi")]
pub(crate) fn before_exit(f: fn()) -> bool {
    EXIT.try_with(|exit| exit.get().map(|exit| exit.1.set(Some(f))).is_some()).unwrap_or(false)
}

/// What tells of the calling thread's exit.
fn exit_of_this_thread() -> Result<TryArc<AtomicU64>> {
    let shared = EXIT.try_with(|exit| match exit.get() {
        Some(exit) => Ok(exit.0.clone()),
        None => TryArc::new(AtomicU64::new(0))
            .map(|fresh| exit.get_or_init(|| Exit(fresh, Cell::new(None))).0.clone()),
    });
    // A thread that is past its destructors counts as exited at once.
    shared.unwrap_or_else(|_| TryArc::new(AtomicU64::new(boottime().max(1))))
}
