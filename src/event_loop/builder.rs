//! The settings of a loop, and the builder that makes the loop.

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

/// Settings of a new loop.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Builder {
    sq_entries: u32,
    cq_entries: u32,
    spin: u64,
    slack: Option<u64>,
    virtual_start: Option<u64>,
    trace: Option<PathBuf>,
    executor_threads: u32,
}

impl Builder {
    /// Entries of the submission queue, at most 32768; 0 means the default, 128. The kernel rounds
    /// up to a power of two.
    pub fn sq_entries(mut self, entries: u32) -> Builder {
        self.sq_entries = entries;
        self
    }

    /// Entries of the completion queue, at most 65536 and not fewer than those of the submission
    /// queue; 0 means the default, eight for each submission entry. Completions that do not fit
    /// wait in kernel memory, which costs a system call. Where the kernel has no memory for one,
    /// that completion is lost and a run fails with EBADR (S28).
    pub fn cq_entries(mut self, entries: u32) -> Builder {
        self.cq_entries = entries;
        self
    }

    /// Before it sleeps, and before a deadline, the loop polls the ring and the clock for up to
    /// `spin` instead of sleeping. This lowers latency and keeps the processor busy. Zero by
    /// default; no effect on a virtual clock.
    pub fn spin(mut self, spin: Duration) -> Builder {
        self.spin = time::nanos(spin);
        self
    }

    /// Lets timers run up to `slack` late, never early, for fewer wakeups (S3). Zero asks for each
    /// deadline exactly, whatever it costs.
    ///
    /// By default the loop decides: a timer that stands alone is exact; in a dense stream a timer
    /// is at most one gap late, 10 to 200 µs: four times the measured latency of a wakeup, see
    /// [`Metrics::gap_ns`](crate::Metrics::gap_ns).
    pub fn slack(mut self, slack: Duration) -> Builder {
        self.slack = Some(time::nanos(slack));
        self
    }

    /// Gives the loop a virtual clock that starts at `start` and jumps to the next deadline
    /// whenever the loop would sleep with no operation in flight (S36). A test then runs an hour of
    /// timers in a millisecond. While an operation, a child or work is pending, the clock stands
    /// still, and no timer or timeout expires.
    pub fn virtual_time(mut self, start: Time) -> Builder {
        self.virtual_start = Some(start.as_nanos());
        self
    }

    /// Writes trace events to a file, which replaces the one that `RINGLOOP_TRACE` names: each
    /// callback with its name, the lateness of each timer, each sleep, wake and post. Perfetto and
    /// chrome://tracing show the file; see `docs/tracing.md`.
    ///
    /// `%p` in the name stands for the process ID. Loops of a process with the same file share it.
    /// Costs about a microsecond for each callback, and nothing without a file.
    pub fn trace(mut self, file: impl Into<PathBuf>) -> Builder {
        self.trace = Some(file.into());
        self
    }

    /// The most threads for [`Loop::run_in_executor`] and name look-ups, started on demand; 0 means
    /// the default, 4. The threads are for work that waits: a few long waits do not delay other
    /// work. For work that computes, ask for one thread for each processor.
    pub fn executor_threads(mut self, threads: u32) -> Builder {
        self.executor_threads = threads;
        self
    }

    /// Makes the loop, for the calling thread.
    ///
    /// Errors (S32): EPERM where io_uring, or only `io_uring_enter`, is disabled; ENOSYS where the
    /// kernel is older than 5.10 or has no io_uring; EMFILE, ENFILE and ENOMEM at a limit. Each has
    /// a sentence that names the setting to change. EINVAL when a number of entries is out of
    /// range; the error of opening the trace file.
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
        // Without a sleep at the deadline, no wakeup can be saved.
        let is_exact = self.virtual_start.is_some() || self.spin > 0;
        Ok(Loop {
            owner,
            schedule: RefCell::new(Schedule::new(SEED.fetch_add(1, Relaxed), clock.now())),
            clock,
            kernel: RefCell::new(kernel),
            shared,
            executor: Executor::new(self.executor_threads),
            phase: Cell::new(Phase::Open),
            slack: self.slack.or(is_exact.then_some(0)),
            // A virtual clock does not advance during the spin, which would never end.
            spin: if self.virtual_start.is_some() { 0 } else { self.spin },
            ending_together: Cell::new(0),
            running: Cell::new(false),
            user_code: Cell::new(0),
            releases: Cell::new(0),
            current: Cell::new(None),
            stopping: Cell::new(false),
            breaking: Cell::new(false),
            flood: Default::default(),
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
    /// Costs a few system calls, about 20 µs. An operation uses the credentials that the process
    /// has when the operation goes to the kernel, not those of now. Open descriptors stay usable.
    pub fn new() -> Result<Loop> {
        Loop::builder().build()
    }

    /// Settings for a loop, all with their default values.
    pub fn builder() -> Builder {
        Builder::default()
    }
}
