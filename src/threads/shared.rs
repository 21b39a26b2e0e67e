//! The part of a loop that other threads share: its inbox, and how it is woken. It may outlive its
//! loop (S23).
//!
//! Unless noted, functions are for any thread and take no lock; a wake is async-signal-safe. This
//! relies on the loop, which closes the inbox and takes its posts before it ends. Only the type of
//! the loop's callbacks is known here.

use std::mem::forget;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libc::c_int;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::{Error, Result, Sentence};
use crate::observe::trace::Trace;
use crate::pending::Schedule;
use crate::pending::posts::{self, Head, Post, Posted};
use crate::sys::fork::Process;
use crate::sys::memory::TryArc;
use crate::sys::signals::Target;
use crate::threads::inbox::Inbox;
use crate::time::monotonic;

/// The part of a loop that it shares with its remotes.
pub(crate) struct Shared<L: 'static> {
    pub(crate) inbox: Inbox<Head<L>>,
    process: Process,
    /// Written to wake the loop, which has a poll for it in the ring. None only during the drop.
    /// Not closed in a forked child, where the number may be another file's (S33).
    eventfd: Option<EventFd>,
    /// The descriptor of `Loop::fd`, which a host loop polls, if there is one.
    host: OnceLock<EventFd>,
    is_virtual: bool,
    /// The signals that have arrived for handlers of the loop; bit 0 is signal 1.
    signals: AtomicU64,
    wakes: AtomicU64,
    trace: Option<Trace>,
}

impl<L: 'static> Shared<L> {
    pub(crate) fn new(
        process: Process,
        is_virtual: bool,
        trace: Option<Trace>,
    ) -> Result<TryArc<Shared<L>>> {
        TryArc::new(Shared {
            inbox: Inbox::new(),
            process,
            eventfd: Some(new_eventfd(Sentence::WakeFdFailed)?),
            host: OnceLock::new(),
            is_virtual,
            signals: AtomicU64::new(0),
            wakes: AtomicU64::new(0),
            trace,
        })
    }

    /// The process of the loop.
    pub(crate) fn process(&self) -> Process {
        self.process
    }

    /// Whether the loop's clock is virtual; then delays of posts count from when the loop takes
    /// them.
    pub(crate) fn is_virtual(&self) -> bool {
        self.is_virtual
    }

    /// The eventfd that wakes the loop.
    pub(crate) fn eventfd(&self) -> &EventFd {
        self.eventfd.as_ref().expect("it is there until the drop")
    }

    /// The descriptor for a host loop, if `make_host_fd` has been called.
    #[inline]
    pub(crate) fn host_fd(&self) -> Option<&EventFd> {
        self.host.get()
    }

    /// Makes the descriptor for a host loop, and calls `prepare` before others can see it. The
    /// loop's thread.
    pub(crate) fn make_host_fd(&self, prepare: impl FnOnce(&EventFd) -> Result<()>) -> Result<()> {
        let fd = new_eventfd(Sentence::EventFdFailed)?;
        prepare(&fd)?;
        // It is made once, by one thread, so it is not set yet.
        let _ = self.host.set(fd);
        Ok(())
    }

    /// The number of wakes sent.
    pub(crate) fn wakes(&self) -> u64 {
        self.wakes.load(Relaxed)
    }

    /// Posts a value, after `delay` if there is one. Returns a refused value.
    pub(crate) fn post<T: Posted<L>>(
        &self,
        value: T,
        delay: Option<u64>,
    ) -> std::result::Result<(), (T, Error)> {
        if !self.process.is_current() {
            return Err((value, Error::FORKED));
        }
        let time = |delay| if self.is_virtual { delay } else { monotonic().saturating_add(delay) };
        let when = delay.map(time);
        let send = |post| {
            if let Some(trace) = self.trace {
                trace.post();
            }
            self.send(post)
        };
        posts::send_value(value, when, send)
    }

    /// Adds a post to the inbox, and wakes the loop; returns the post when the inbox is closed.
    /// Allocates nothing.
    #[inline]
    pub(crate) fn send(&self, post: Post<L>) -> std::result::Result<(), Post<L>> {
        self.inbox.push(post).map(|is_asleep| self.wake(is_asleep))
    }

    /// Makes the loop's current sleep, or its next one, return at once (S27). Async-signal-safe,
    /// and preserves errno.
    pub(crate) fn wakeup(&self) -> Result<()> {
        if !self.process.is_current() {
            return Err(Error::FORKED);
        }
        let is_asleep = self.inbox.latch().ok_or(Error::SHUT_DOWN)?;
        self.wake(is_asleep);
        Ok(())
    }

    /// Appends the handlers of the signals that have arrived to the ready queue. The loop's thread.
    pub(crate) fn collect_signals(&self, schedule: &mut Schedule<L>) -> Result<()> {
        let came = self.signals.load(Relaxed);
        schedule.signals_came(came)?;
        self.signals.fetch_and(!came, Relaxed);
        Ok(())
    }

    /// Notifies the loop, whose inbox is closed, of work that another thread has completed.
    pub(crate) fn work_done(&self) {
        self.wake(self.inbox.signal());
    }

    /// Ends the loop's sleep, if it is asleep.
    fn wake(&self, is_asleep: bool) {
        if is_asleep {
            self.wakes.fetch_add(1, Relaxed);
            let errno = Errno::last();
            // EAGAIN would mean 2^64 - 2 writes without a read, which does not occur.
            let _ = self.eventfd().write(1);
            if let Some(host) = self.host_fd() {
                // On a ring with DEFER_TASKRUN, the kernel signals the ring's eventfd late, and
                // only once, for a poll that an eventfd completes (measured on 6.18).
                let _ = host.write(1);
            }
            errno.set();
        }
    }
}

impl<L: 'static> Target for TryArc<Shared<L>> {
    fn signal(&self, signal: c_int) {
        self.signals.fetch_or(1 << (signal - 1), Relaxed);
        self.wake(self.inbox.signal());
    }
}

impl<L: 'static> Drop for Shared<L> {
    fn drop(&mut self) {
        // The loop has closed the inbox and taken its posts.
        if !self.process.is_current() {
            forget((self.eventfd.take(), self.host.take()));
        }
    }
}

fn new_eventfd(otherwise: Sentence) -> Result<EventFd> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(|errno| match errno
    {
        Errno::EMFILE => Error::new(errno, Sentence::NoDescriptor),
        Errno::ENFILE => Error::new(errno, Sentence::NoSystemDescriptor),
        _ => Error::new(errno, otherwise),
    })
}

impl<L: 'static> std::fmt::Debug for Shared<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
