//! The owner of a loop: the thread that may call it, and its process (S25, S29, S33).
//!
//! A thread is identified by a number that is never reused, unlike an address or a pthread_t. A
//! thread that owns loops sets a shared flag at its exit. If the flag is not set, the kernel is
//! asked, because glibc runs no thread-local destructors of a main thread that leaves by
//! pthread_exit. Loops share no lock: it would hang a child that was forked while another thread
//! held it. The check costs two loads and two compares, in every build.

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
    /// The TID of the thread that made or adopted the loop.
    tid: AtomicI32,
    /// When that thread exited, on CLOCK_BOOTTIME; 0 until it reports its exit.
    exited: Mutex<TryArc<AtomicU64>>,
    /// The TID and the exit time of the thread whose loop was taken over first, to which the ring
    /// may be bound; 0: none.
    former: (AtomicI32, AtomicU64),
    /// Whether the loop has run, so that no other thread may adopt it.
    settled: AtomicBool,
}

impl Owner {
    /// The calling thread and process.
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

    /// Whether the owner is another thread that has exited, so that the calling thread may take its
    /// place; false if the calling thread is the owner. Errors: those of `check`. Allocates
    /// nothing.
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

    /// Makes the calling thread, an heir, the owner. Without memory for its exit flag, other
    /// threads may become heirs before its exit.
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

    /// Waits until the former owner has ended for the kernel too, at the latest until `until`, then
    /// ETIMEDOUT. This takes the last microseconds of the thread; longer if a device or a server
    /// blocks a kernel thread that it waits for.
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

    /// The loop runs, and stays with its thread. Returns true the first time.
    #[inline]
    pub(crate) fn settle(&self) -> bool {
        let is_first = !self.settled.load(Relaxed);
        if is_first {
            self.settled.store(true, Relaxed);
        }
        is_first
    }

    /// A forked child has freed its copy of the loop, except for this owner: no thread owns the
    /// loop there, and the exit flag is not freed.
    #[cfg(feature = "capi")]
    pub(crate) fn abandon(&mut self) {
        self.leave_to_nobody();
        std::mem::forget(self.exited.get_mut().unwrap_or_else(PoisonError::into_inner).clone());
    }

    /// In a forked child, no thread owns the loop any more.
    #[cfg(feature = "capi")]
    pub(crate) fn leave_to_nobody(&self) {
        self.thread.store(NOBODY, Relaxed);
    }

    /// Whether the calling thread is the owner, or its copy in a forked child.
    #[cfg(feature = "capi")]
    pub(crate) fn is_of_this_thread(&self) -> bool {
        self.thread.load(Relaxed) == THREAD.get()
    }

    #[cfg(feature = "capi")]
    pub(crate) fn is_abandoned(&self) -> bool {
        self.thread.load(Relaxed) == NOBODY
    }

    /// Whether the owner permits another thread to adopt the loop.
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

    /// When the owner exited; 0 if it has not reported its exit.
    fn exited_at(&self) -> u64 {
        self.exited().load(Acquire)
    }
}

/// Not the number of any thread.
#[cfg(feature = "capi")]
const NOBODY: u64 = u64::MAX;

static LAST_THREAD: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// This thread's number; 0 before it is given one.
    static THREAD: Cell<u64> = const { Cell::new(0) };
    /// Reports the exit of this thread to its loops; empty until it has any.
    static EXIT: OnceCell<Exit> = const { OnceCell::new() };
}

/// When dropped, calls a function, if there is one, and then sets the flag that it shares with
/// loops.
struct Exit(TryArc<AtomicU64>, Cell<Option<fn()>>);

impl Drop for Exit {
    fn drop(&mut self) {
        self.1.take().into_iter().for_each(|before| before());
        // The thread's actions on its loops happen before those of its heir.
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

/// Makes a function run before the calling thread counts as exited. False: it counts as exited
/// already. (Without destructors at the thread's end, the function does not run.)
#[cfg(feature = "capi")]
pub(crate) fn before_exit(f: fn()) -> bool {
    EXIT.try_with(|exit| exit.get().map(|exit| exit.1.set(Some(f))).is_some()).unwrap_or(false)
}

/// The exit flag of the calling thread.
fn exit_of_this_thread() -> Result<TryArc<AtomicU64>> {
    let shared = EXIT.try_with(|exit| match exit.get() {
        Some(exit) => Ok(exit.0.clone()),
        None => TryArc::new(AtomicU64::new(0))
            .map(|fresh| exit.get_or_init(|| Exit(fresh, Cell::new(None))).0.clone()),
    });
    // A thread whose destructors have run counts as exited at once.
    shared.unwrap_or_else(|_| TryArc::new(AtomicU64::new(boottime().max(1))))
}
