//! A loop's beginning: its settings, and the builder that makes it.

use std::cell::{Cell, RefCell};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::handler::Handler;
use super::slow::SlowWatch;
use super::{Loop, Phase, Schedule, Shared};
use crate::error::Result;
use crate::kernel::{Kernel, Sizes};
use crate::observe::inspect;
use crate::observe::trace::{self, TraceFile};
use crate::sys::owner::Owner;
use crate::threads::executor::Executor;
use crate::time::{self, Clock, Time};

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
    executor_threads: u32,
}

impl Builder {
    /// Entries of the submission queue, at most 32768; 0 is the default of 128. The kernel rounds
    /// up to a power of two.
    pub fn sq_entries(mut self, entries: u32) -> Builder {
        self.sq_entries = entries;
        self
    }

    /// Entries of the completion queue, at least those of the submission queue and at most 65536; 0
    /// is the default of eight for each submission. Completions that do not fit wait in memory of
    /// the kernel's, at the cost of a system call; where the kernel has no memory for one, it is
    /// lost, and a run says EBADR (S28).
    pub fn cq_entries(mut self, entries: u32) -> Builder {
        self.cq_entries = entries;
        self
    }

    /// Before it sleeps, and before a deadline, the loop looks at the ring and the clock for up to
    /// `spin` instead of sleeping: less latency, for a processor that is busy meanwhile. Zero by
    /// default; on a virtual clock it does nothing.
    pub fn spin(mut self, spin: Duration) -> Builder {
        self.spin = time::nanos(spin);
        self
    }

    /// Lets timers run up to `slack` late, never early, for fewer wakeups (S3). Zero by default.
    pub fn slack(mut self, slack: Duration) -> Builder {
        self.slack = time::nanos(slack);
        self
    }

    /// Gives the loop a virtual clock that starts at `start`, and jumps to the next deadline
    /// whenever the loop would sleep with no operation in flight (S36): an hour of timers in a
    /// millisecond, for tests. While an operation, a child or work is pending it stands still: no
    /// timer comes then, nor a timeout of what is awaited.
    pub fn virtual_time(mut self, start: Time) -> Builder {
        self.virtual_start = Some(start.as_nanos());
        self
    }

    /// Writes trace events to a file, in the place of the one that `RINGLOOP_TRACE` names: each
    /// callback with its name, how late each timer was, each sleep, wake and post. Perfetto and
    /// chrome://tracing show it; `docs/tracing.md` says more.
    ///
    /// `%p` in the name is the process's number. Loops of a process with the same file share it.
    /// Costs about a microsecond a callback; without a file, nothing.
    pub fn trace(mut self, file: impl Into<PathBuf>) -> Builder {
        self.trace = Some(file.into());
        self
    }

    /// At most so many threads for [`Loop::run_in_executor`] and look-ups of names, which are
    /// started when there is work for them; 0 is the default of 4. It is for work that waits: a few
    /// that wait for long hold up no others. For work that computes, ask for a thread a processor.
    pub fn executor_threads(mut self, threads: u32) -> Builder {
        self.executor_threads = threads;
        self
    }

    /// Makes the loop, for the calling thread.
    ///
    /// Errors (S32): EPERM where io_uring is switched off, or `io_uring_enter` alone, ENOSYS where
    /// the kernel has none that is new enough (5.10), EMFILE, ENFILE and ENOMEM where a limit is
    /// met, each with a sentence that says what to change; EINVAL when the numbers of entries are
    /// out of range; what the file for a trace says.
    pub fn build(self) -> Result<Loop> {
        static SEED: AtomicU64 = AtomicU64::new(0);

        let sizes = Sizes::new(self.sq_entries, self.cq_entries)?;
        let owner = Owner::current()?;
        let kernel = Kernel::new(sizes, owner.process())?;
        let trace = match &self.trace {
            Some(file) => Some(TraceFile::open(file.as_os_str().as_bytes())?),
            None => trace::from_environment()?,
        };
        let shared = Shared::new(owner.process(), self.virtual_start.is_some(), trace)?;
        let clock = self
            .virtual_start
            .map_or(Clock::Monotonic, |start| Clock::Virtual(AtomicU64::new(start)));
        Ok(Loop {
            owner,
            schedule: RefCell::new(Schedule::new(SEED.fetch_add(1, Relaxed), clock.now())),
            clock,
            kernel: RefCell::new(kernel),
            shared,
            executor: Executor::new(self.executor_threads),
            phase: Cell::new(Phase::Open),
            slack: self.slack,
            // A virtual clock does not move meanwhile: the loop would spin for ever.
            spin: if self.virtual_start.is_some() { 0 } else { self.spin },
            ending_together: Cell::new(0),
            running: Cell::new(false),
            user_code: Cell::new(0),
            releases: Cell::new(0),
            current: Cell::new(None),
            stopping: Cell::new(false),
            breaking: Cell::new(false),
            slow: SlowWatch::new(inspect::debug_mode(), trace),
            exception_handler: Handler::default(),
            #[cfg(feature = "capi")]
            raw: super::raw::Raw::default(),
        })
    }
}

impl Loop {
    /// Makes a loop with default settings, for the calling thread; see [`Builder::build`] for the
    /// errors.
    ///
    /// Costs a few system calls, some 20 µs. An operation has the credentials that the process has
    /// when it goes to the kernel, not those of now; what is open stays open.
    pub fn new() -> Result<Loop> {
        Loop::builder().build()
    }

    /// Settings for a loop, all at their defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }
}
