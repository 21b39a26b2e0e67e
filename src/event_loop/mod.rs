//! The loop: its data, and one iteration.
//!
//! `schedule` holds everything that is pending, `kernel` the requests that the kernel has; this
//! room connects the two. `iterate` follows rule S5 step by step: step a is in `sleep`, b and c are
//! here, d is in `dispatch`. The loop holds no borrow of either while user code runs. User code is
//! callbacks, hooks, handlers, and the Drop of their values.

use std::any::Any;
use std::cell::{Cell, RefCell};

use crate::abi::handle::Handle;
use crate::error::Result;
use crate::event_loop::handler::Handler;
use crate::event_loop::slow::SlowWatch;
use crate::kernel::Kernel;
use crate::pending::{self, HookPoint};
use crate::sys::memory::TryArc;
use crate::sys::owner::Owner;
use crate::threads::{self, executor::Executor};
use crate::time::Clock;

pub(crate) use self::release::{Payload, Unjoined, UserCode, drop_quietly};
pub use self::run::Outcome;
pub(crate) use self::watch::EndTogether;

/// An event loop on its own ring.
///
/// The loop belongs to the thread that made it and is not `Send`. Its methods take `&self`, so a
/// callback, which gets `&Loop`, can call all of them. Dropping the loop closes it and drops
/// pending callbacks without running them.
///
/// ```
/// use ringloop::Loop;
///
/// let lp = Loop::new()?;
/// lp.call_soon(|lp| {
///     println!("hello at {:?}", lp.time());
/// })?;
/// lp.run()?;
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// A closed loop cannot be used (S24):
///
/// ```compile_fail,E0382
/// let lp = ringloop::Loop::new().unwrap();
/// lp.close().unwrap();
/// lp.stop();
/// ```
///
/// A loop cannot move to another thread, except with
/// [`Builder::build_detached`](crate::Builder::build_detached):
///
/// ```compile_fail,E0277
/// let lp = ringloop::Loop::new().unwrap();
/// std::thread::spawn(move || lp.run());
/// ```
pub struct Loop {
    pub(crate) owner: Owner,
    pub(crate) clock: Clock,
    schedule: RefCell<Schedule>,
    kernel: RefCell<Kernel>,
    pub(crate) shared: TryArc<Shared>,
    executor: Executor<Loop>,
    phase: Cell<Phase>,
    /// None: automatic (S3).
    slack: Option<u64>,
    spin: u64,
    /// The number of scopes on the stack in which watchers end together (S12).
    ending_together: Cell<u32>,
    running: Cell<bool>,
    /// The number of calls of user code outside a run on the stack: release hooks, walks.
    user_code: Cell<u32>,
    /// The number of nested releases on the stack.
    releases: Cell<u32>,
    current: Cell<Option<Handle>>,
    stopping: Cell<bool>,
    breaking: Cell<bool>,
    slow: SlowWatch,
    flood: flood::Flood,
    exception_handler: Handler<ExceptionHandler>,
    #[cfg(feature = "capi")]
    raw: raw::Raw,
}

pub(crate) type Callback = pending::callback::Callback<Loop>;
pub(crate) type Call = pending::Call<Loop>;
pub(crate) type Held = pending::slots::Held<Loop>;
pub(crate) type Schedule = pending::Schedule<Loop>;
pub(crate) type Shared = threads::shared::Shared<Loop>;

/// The calls that a loop still accepts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub(crate) enum Phase {
    Open,
    /// Accepts nothing new.
    ShutDown,
    /// Is being closed: every function fails with ESHUTDOWN.
    Closing,
    /// Only memory is left.
    Closed,
}

pub(crate) type ExceptionHandler = dyn FnMut(&Loop, Box<dyn Any + Send>);

impl Loop {
    /// One iteration, in the order of S5. Returns the number of callbacks that ran, and whether a
    /// signal interrupted the wait.
    #[inline(always)]
    fn iterate(&self, limit: u64, while_alive: bool) -> Result<(usize, bool)> {
        self.schedule.borrow_mut().metrics.iterations += 1;
        self.run_hooks(HookPoint::BeforeWait)?;
        let waited = {
            let (schedule, kernel) =
                (&mut *self.schedule.borrow_mut(), &mut *self.kernel.borrow_mut());
            let waited = self.wait(schedule, kernel, limit, while_alive)?;
            self.collect_what_came(schedule, kernel)?;
            self.collect_due_timers(schedule, waited.now)?;
            waited
        };
        self.run_hooks(HookPoint::AfterWait)?;
        Ok((self.run_batch()?, waited.interrupted))
    }

    /// S5 (b): appends posts, then one batch of completions, to the ready queue. When memory is
    /// refused, the rest waits, because callbacks that are ready may free some. The refusal is an
    /// error only if nothing is ready.
    #[inline(always)]
    fn collect_what_came(&self, schedule: &mut Schedule, kernel: &mut Kernel) -> Result<()> {
        let posts = self.collect_posts(schedule);
        if posts.is_err() && !schedule.is_ready() {
            return posts;
        }
        let completions = self.collect_completions(schedule, kernel);
        if schedule.is_ready() { Ok(()) } else { completions }
    }

    /// Takes one batch of completions. When memory is refused, they stay in the completion queue.
    #[inline(always)]
    pub(crate) fn collect_completions(
        &self,
        schedule: &mut Schedule,
        kernel: &mut Kernel,
    ) -> Result<()> {
        if kernel.batch_len() == 0 { Ok(()) } else { self.take_completions(schedule, kernel) }
    }

    #[inline(never)]
    fn take_completions(&self, schedule: &mut Schedule, kernel: &mut Kernel) -> Result<()> {
        // Completions of the ring's own requests need no space.
        if schedule.is_kernel_busy() {
            schedule.reserve_completions(kernel.batch_len())?;
        }
        kernel.reap(|completed| schedule.completed(completed));
        Ok(())
    }

    /// S5 (c): appends every due timer to the ready queue. Without a pending timer, the clock is
    /// not read.
    #[inline(always)]
    fn collect_due_timers(&self, schedule: &mut Schedule, now: Option<u64>) -> Result<()> {
        if !schedule.has_timers() {
            return Ok(());
        }
        schedule.collect_due(now.unwrap_or_else(|| self.clock.now()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if self.phase.get() != Phase::Closed {
            self.end_everything();
        }
    }
}

impl std::fmt::Debug for Loop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loop")
            .field("time", &self.time())
            .field("is_running", &self.is_running())
            .finish_non_exhaustive()
    }
}

pub(crate) mod builder;
pub(crate) mod calls;
mod children;
pub(crate) mod close;
mod control;
mod dispatch;
mod embed;
mod flood;
mod handler;
#[cfg(feature = "capi")]
#[allow(unsafe_code)]
pub(crate) mod raw;
mod release;
pub(crate) mod remote;
mod run;
mod sleep;
mod slow;
mod submit;
mod tasks;
#[cfg(test)]
mod tests;
#[allow(unsafe_code)]
pub(crate) mod thread;
pub(crate) mod watch;
pub(crate) mod work;
