//! A loop's beginning and end: the builder, adoption by another thread, shutdown, close.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::event_loop::{Loop, Phase};
use crate::handler::Handler;
use crate::inspect;
use crate::owner::Owner;
use crate::remote::{self, Remote, Shared};
use crate::ring::{Ring, Sizes};
use crate::schedule::Schedule;
use crate::slots::Held;
use crate::slow::SlowWatch;
use crate::time::{self, Clock, Time};
use crate::trace::{self, TraceFile};

/// Settings of a loop that is to be made.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Builder {
    sq_entries: u32,
    cq_entries: u32,
    spin: u64,
    slack: u64,
    virtual_start: Option<u64>,
    trace: Option<PathBuf>,
}

impl Builder {
    /// Entries of the submission queue, at most 32768; 0 is the default of 128. The kernel rounds up to a power of two.
    pub fn sq_entries(mut self, entries: u32) -> Builder {
        self.sq_entries = entries;
        self
    }

    /// Entries of the completion queue, at least those of the submission queue and at most 65536; 0 is the default of
    /// eight for each submission. One that is too small costs system calls, never completions.
    pub fn cq_entries(mut self, entries: u32) -> Builder {
        self.cq_entries = entries;
        self
    }

    /// Before it sleeps, and before a deadline, the loop looks at the ring and the clock for up to `spin` instead of
    /// sleeping: less latency, for a processor that is busy meanwhile. Zero by default.
    pub fn spin(mut self, spin: Duration) -> Builder {
        self.spin = time::nanos(spin);
        self
    }

    /// Lets timers run up to `slack` late, never early, for fewer wakeups (S3). Zero by default.
    pub fn slack(mut self, slack: Duration) -> Builder {
        self.slack = time::nanos(slack);
        self
    }

    /// Gives the loop a virtual clock that starts at `start`, and jumps to the next deadline whenever the loop would
    /// sleep with no operation in flight (S36): an hour of timers in a millisecond, for tests.
    pub fn virtual_time(mut self, start: Time) -> Builder {
        self.virtual_start = Some(start.as_nanos());
        self
    }

    /// Writes trace events to a file, in the place of the one that `RINGLOOP_TRACE` names: each callback with its name, how late
    /// each timer was, each sleep, wake and post. Perfetto and chrome://tracing show it; `docs/tracing.md` says more.
    ///
    /// `%p` in the name is the process's number. Loops of a process with the same file share it. Costs about a microsecond a
    /// callback; without a file, nothing.
    pub fn trace(mut self, file: impl Into<PathBuf>) -> Builder {
        self.trace = Some(file.into());
        self
    }

    /// Makes the loop, for the calling thread.
    ///
    /// Errors (S32): EPERM where io_uring is switched off, ENOSYS where the kernel has none that is new enough (5.10),
    /// EMFILE, ENFILE and ENOMEM where a limit is met, each with a sentence that says what to change; EINVAL when the
    /// numbers of entries are out of range; what the file for a trace says.
    pub fn build(self) -> Result<Loop> {
        static SEED: AtomicU64 = AtomicU64::new(0);

        let sizes = Sizes::new(self.sq_entries, self.cq_entries)?;
        let owner = Owner::current()?;
        let ring = Ring::new(sizes, owner.process())?;
        let trace = match &self.trace {
            Some(file) => Some(TraceFile::open(file.as_os_str())?),
            None => trace::from_environment()?,
        };
        let shared = Shared::new(owner.process(), self.virtual_start.is_some(), trace)?;
        let clock = self.virtual_start.map_or(Clock::Monotonic, |start| Clock::Virtual(AtomicU64::new(start)));
        Ok(Loop {
            owner,
            schedule: RefCell::new(Schedule::new(SEED.fetch_add(1, Relaxed), clock.now())),
            clock,
            ring: RefCell::new(ring),
            shared,
            phase: Cell::new(Phase::Open),
            slack: self.slack,
            spin: self.spin,
            has_run: Cell::new(false),
            running: Cell::new(false),
            user_code: Cell::new(0),
            current: Cell::new(None),
            stopping: Cell::new(false),
            breaking: Cell::new(false),
            slow: SlowWatch::new(inspect::debug_mode(), trace),
            exception_handler: Handler::default(),
            #[cfg(feature = "capi")]
            c: crate::capi::CSide::default(),
        })
    }

    /// Makes a loop that belongs to no thread yet, to be taken to the one that shall run it (S25): what can fail has
    /// then failed here.
    pub fn build_detached(self) -> Result<DetachedLoop> {
        self.build().map(DetachedLoop)
    }
}

/// A loop on its way to the thread that will own it.
#[derive(Debug)]
pub struct DetachedLoop(Loop);

// SAFETY: a detached loop has come straight from the builder: nothing is scheduled, no closure of any thread is in it,
// its ring is not bound to a thread yet, and until a thread adopts it nobody can reach the loop but through a remote.
unsafe impl Send for DetachedLoop {}

impl DetachedLoop {
    /// Makes the loop the calling thread's. Errors: EOWNERDEAD in a forked child, ENOMEM; the loop, in which nothing is
    /// pending, is dropped then.
    pub fn adopt(self) -> Result<Loop> {
        self.0.adopt()?;
        Ok(self.0)
    }

    /// The loop as other threads know it; what is posted waits for the loop's first run.
    pub fn remote(&self) -> Remote {
        self.0.remote()
    }
}

/// A loop that could not be closed, and why. Nothing is lost: try again with the loop in it.
#[derive(Debug)]
pub struct CloseError {
    /// The loop as it was.
    pub lp: Loop,
    /// Why it could not be closed.
    pub error: Error,
}

impl std::fmt::Display for CloseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for CloseError {}

impl Loop {
    /// Makes a loop with default settings, for the calling thread; see [`Builder::build`] for the errors.
    ///
    /// Costs a few system calls, some 20 µs. A ring keeps the credentials of the process as they were when it was made:
    /// a program that gives up privileges does so first.
    pub fn new() -> Result<Loop> {
        Loop::builder().build()
    }

    /// Settings for a loop, all at their defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Ends a loop in the friendly way: cancels everything and runs until the last final callback has come. From then on
    /// it takes nothing new, and is to be closed (S22).
    ///
    /// Errors: EBUSY from inside a run, a hook or a walk of this loop.
    pub fn shutdown(&self) -> Result<()> {
        self.check_idle()?;
        self.phase.set(Phase::ShutDown);
        // Calls, timers and hooks have no final callback: there is nothing to run for.
        self.cancel_everything();
        self.check_not_forked()
    }

    /// Closes the loop: cancels everything, runs release hooks, runs no callbacks, frees everything (S22). Dropping the
    /// loop does the same.
    #[expect(clippy::result_large_err, reason = "the error hands the loop back")]
    pub fn close(self) -> std::result::Result<(), CloseError> {
        self.close_within(Duration::MAX)
    }

    /// As [`close`](Loop::close), but gives up with ETIMEDOUT when the kernel has not let go after `limit`; the loop
    /// comes back in the error, and can be closed again. Calls and timers keep nothing in the kernel: with these alone,
    /// it never gives up.
    #[expect(clippy::result_large_err, reason = "the error hands the loop back")]
    pub fn close_within(self, limit: Duration) -> std::result::Result<(), CloseError> {
        let _ = limit;
        match self.prepare_close() {
            Ok(()) => Ok(()),
            Err(error) => Err(CloseError { lp: self, error }),
        }
    }

    /// Whether the loop can be closed by the calling thread, which takes it over if its owner has exited (S25).
    pub(crate) fn prepare_close(&self) -> Result<()> {
        // Before anything is read that another thread may be writing. A forked child frees its copy of the memory.
        let is_forked = !self.owner.process().is_current();
        if !is_forked {
            self.owner.inherit()?;
        }
        match (self.running.get() || self.user_code.get() > 0, self.phase.get()) {
            (false, _) => Ok(()),
            (true, _) if is_forked => Err(Error::FORKED),
            (true, Phase::Closing) => Err(Error::SHUT_DOWN),
            (true, _) => Err(Error::RUNNING),
        }
    }

    /// Takes over a loop that has not run yet.
    pub(crate) fn adopt(&self) -> Result<()> {
        if !self.owner.process().is_current() {
            return Err(Error::FORKED);
        }
        if self.has_run.get() || self.ring.borrow().is_bound() {
            return Err(Error::BOUND);
        }
        if self.phase.get() != Phase::Open {
            return Err(Error::SHUT_DOWN);
        }
        self.owner.adopt()
    }

    /// What close does to all that is pending: it ends, is released, and does not run. In a forked child it is forgotten
    /// instead, since no user code may run there (S33).
    pub(crate) fn end_everything(&self) {
        if !self.owner.process().is_current() {
            self.forget_everything();
            return;
        }
        self.phase.set(Phase::Closing);
        if let Some(trace) = self.slow.trace() {
            trace.flush();
        }
        if self.slow.debug() {
            self.walk_pending(|info| inspect::print_pending(self, info));
        }
        self.cancel_everything();
    }

    /// Ends all that is pending. A panic in one Drop or release hook does not keep the others from theirs; the first goes
    /// on its way when all is done. Allocates nothing (S31).
    fn cancel_everything(&self) {
        // Those that are ready came before those that are not.
        let (mut ready, mut posts) = (self.schedule.borrow_mut().end_posts(), self.shared.inbox.close());
        let mut index = 0;
        let mut first_panic = None;
        let mut next_post = || ready.pop().or_else(|| posts.pop()).map(remote::unpack);
        while let Some(ended) = next_post().or_else(|| self.end_next(&mut index)) {
            let panic = catch_unwind(AssertUnwindSafe(|| self.let_go_of(ended))).err();
            if first_panic.is_none() {
                first_panic = panic;
            } else {
                // A payload may panic when it is dropped.
                std::mem::forget(panic);
            }
            if !self.owner.process().is_current() {
                // That was user code which has forked, and this is the child.
                self.forget_everything();
                return;
            }
        }
        // A loop that is dropped by a panic must not begin another.
        if let Some(payload) = first_panic.filter(|_| !std::thread::panicking()) {
            resume_unwind(payload);
        }
    }

    /// Ends what stands in the next slot that is not empty, from `index` on.
    fn end_next(&self, index: &mut u32) -> Option<Held> {
        let mut schedule = self.schedule.borrow_mut();
        while *index < schedule.len() {
            *index += 1;
            let ended = schedule.end_at(*index - 1);
            if ended.is_some() {
                return ended;
            }
        }
        None
    }

    /// Forgets all user code without running any of it, Drops included.
    fn forget_everything(&self) {
        // Posts are leaked when they are not unpacked.
        self.schedule.borrow_mut().end_posts();
        self.shared.inbox.close();
        self.schedule.borrow_mut().forget_all();
        self.exception_handler.forget();
        self.slow.forget_handler();
    }
}
