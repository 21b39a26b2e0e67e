//! The loop: what it is made of, and one iteration.
//!
//! What is pending stands in `schedule`, what the kernel knows in `kernel`; here the two meet.
//! `iterate` reads like rule S5; its steps are in `sleep` (a), here (b, c) and in `dispatch` (d).
//! No borrow of either is held while user code runs, and user code is callbacks, hooks, handlers
//! and the Drop of what they carry.

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

/// An event loop on a ring of its own.
///
/// It belongs to the thread that made it and is not `Send`; its methods take `&self`, so that
/// callbacks, which get `&Loop`, can call all of them. Dropping it closes it: what is pending is
/// dropped without being run.
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
/// Once closed, a loop cannot be used (S24):
///
/// ```compile_fail,E0382
/// let lp = ringloop::Loop::new().unwrap();
/// lp.close().unwrap();
/// lp.stop();
/// ```
///
/// Nor can it be taken to another thread; see
/// [`Builder::build_detached`](crate::Builder::build_detached) for that:
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
    slack: u64,
    spin: u64,
    /// How many scopes are on the stack in which watchers end together (S12).
    ending_together: Cell<u32>,
    running: Cell<bool>,
    /// How many calls of user code outside a run are on the stack: release hooks, walks.
    user_code: Cell<u32>,
    /// How many releases are on the stack, nested.
    releases: Cell<u32>,
    current: Cell<Option<Handle>>,
    stopping: Cell<bool>,
    breaking: Cell<bool>,
    slow: SlowWatch,
    exception_handler: Handler<ExceptionHandler>,
    #[cfg(feature = "capi")]
    raw: raw::Raw,
}

pub(crate) type Callback = pending::callback::Callback<Loop>;
pub(crate) type Call = pending::Call<Loop>;
pub(crate) type Held = pending::slots::Held<Loop>;
pub(crate) type Schedule = pending::Schedule<Loop>;
pub(crate) type Shared = threads::shared::Shared<Loop>;

/// What a loop may still do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub(crate) enum Phase {
    Open,
    /// Takes nothing new.
    ShutDown,
    /// Is being closed: every function says ESHUTDOWN.
    Closing,
    /// Nothing is left but memory.
    Closed,
}

pub(crate) type ExceptionHandler = dyn FnMut(&Loop, Box<dyn Any + Send>);

impl Loop {
    /// One iteration, step by step as in S5. Tells how many callbacks ran and whether a signal
    /// ended the wait.
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

    /// S5 (b): appends posts, then one batch of completions, to the ready queue. What there is no
    /// memory for waits, so that what is ready already may free some; only if nothing is, that is
    /// an error.
    #[inline(always)]
    fn collect_what_came(&self, schedule: &mut Schedule, kernel: &mut Kernel) -> Result<()> {
        let posts = self.collect_posts(schedule);
        if posts.is_err() && !schedule.is_ready() {
            return posts;
        }
        let completions = self.collect_completions(schedule, kernel);
        if schedule.is_ready() { Ok(()) } else { completions }
    }

    /// Takes one batch of completions. When memory is refused, they stay where they are.
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
        // Those of the ring's own need no room.
        if schedule.is_kernel_busy() {
            schedule.reserve_completions(kernel.batch_len())?;
        }
        kernel.reap(|completed| schedule.completed(completed));
        Ok(())
    }

    /// S5 (c): appends every due timer to the ready queue. The clock is not read while no timer is
    /// pending.
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
