//! The loop: one iteration, the ways of running it, stopping and breaking.
//!
//! What is pending stands in `schedule`, what the kernel knows in `ring`; here the two meet. `iterate` reads like rule
//! S5. No borrow of either is held while user code runs, and user code is callbacks, hooks, handlers and the Drop of
//! what they carry.

use std::any::Any;
use std::cell::{Cell, RefCell, RefMut};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::abi::handle::{Handle, Kind};
use crate::error::{Error, Result};
use crate::event_loop::handler::Handler;
use crate::event_loop::running::Running;
use crate::event_loop::slow::SlowWatch;
use crate::kernel::uring::{Ring, Waited};
use crate::op::buffers::Pool;
use crate::pending::event::Event;
use crate::pending::ready::{List, list_of};
use crate::pending::slots::SlotRef;
use crate::pending::{self, HookPoint};
use crate::sys::owner::Owner;
use crate::sys::try_arc::TryArc;
use crate::threads::executor::Executor;
use crate::threads::inbox::Post;
use crate::threads::remote::{self, Shared};
use crate::time::{self, Clock};

use self::release::attempt;
pub(crate) use self::release::{Payload, Unjoined, UserCode, drop_quietly};

/// An event loop on a ring of its own.
///
/// It belongs to the thread that made it and is not `Send`; its methods take `&self`, so that callbacks, which get
/// `&Loop`, can call all of them. Dropping it closes it: what is pending is dropped without being run.
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
/// Nor can it be taken to another thread; see [`Builder::build_detached`](crate::Builder::build_detached) for that:
///
/// ```compile_fail,E0277
/// let lp = ringloop::Loop::new().unwrap();
/// std::thread::spawn(move || lp.run());
/// ```
pub struct Loop {
    pub(crate) owner: Owner,
    pub(crate) clock: Clock,
    pub(crate) schedule: RefCell<Schedule>,
    pub(crate) ring: RefCell<Ring>,
    pub(crate) shared: TryArc<Shared>,
    pub(crate) executor: Executor,
    pub(crate) phase: Cell<Phase>,
    pub(crate) slack: u64,
    pub(crate) spin: u64,
    /// How many scopes are on the stack in which watchers end together (S12).
    pub(crate) ending_together: Cell<u32>,
    pub(crate) running: Cell<bool>,
    /// How many calls of user code outside a run are on the stack: release hooks, walks.
    pub(crate) user_code: Cell<u32>,
    /// How many releases are on the stack, nested.
    pub(crate) releases: Cell<u32>,
    pub(crate) current: Cell<Option<Handle>>,
    /// Its rings of buffers.
    pub(crate) pools: RefCell<Vec<Option<TryArc<Pool>>>>,
    pub(crate) stopping: Cell<bool>,
    pub(crate) breaking: Cell<bool>,
    pub(crate) slow: SlowWatch,
    pub(crate) exception_handler: Handler<ExceptionHandler>,
    #[cfg(feature = "capi")]
    raw: raw::Raw,
}

pub(crate) type Callback = pending::callback::Callback<Loop>;
pub(crate) type Call = pending::Call<Loop>;
pub(crate) type Held = pending::slots::Held<Loop>;
pub(crate) type Schedule = pending::Schedule<Loop>;

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

/// Why a run returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing that counts is left.
    Done,
    /// [`Loop::stop`] was called.
    Stopped,
    /// [`Loop::break_`] was called.
    Broken,
}

pub(crate) type ExceptionHandler = dyn FnMut(&Loop, Box<dyn Any + Send>);

/// No limit to how long an iteration may sleep.
const FOREVER: u64 = u64::MAX;

/// What came of step (a).
struct Waiting {
    interrupted: bool,
    /// The clock as it was read last, unless there was no need to.
    now: Option<u64>,
}

impl Loop {
    /// Runs until nothing referenced is left, or until stopped or broken off (S19).
    ///
    /// On a loop with nothing left it returns [`Outcome::Done`] without an iteration. Errors: EBUSY when the loop runs
    /// already; ESHUTDOWN; ENOMEM when memory is refused; EAGAIN when the kernel has taken no submissions for a second, for
    /// want of memory; EBADR when it had no memory to keep a completion: an operation that had it ends with EBADR when it is
    /// cancelled; what else `io_uring_enter` says. Nothing is lost on an error: run again. A signal does not end it.
    ///
    /// # Panics
    /// When a callback does and no exception handler is set; the rest of the batch stays queued (S30).
    pub fn run(&self) -> Result<Outcome> {
        self.run_to_end(false)
    }

    /// As [`run`](Loop::run), but returns only when stopped or broken off.
    ///
    /// # Panics
    /// As [`run`](Loop::run).
    pub fn run_forever(&self) -> Result<Outcome> {
        self.run_to_end(true)
    }

    /// Runs one iteration, which sleeps at most `limit` (`Duration::MAX`: without limit), and tells how many callbacks
    /// it ran; hooks do not count (S17, S19).
    ///
    /// It may come back with 0. Errors: those of [`run`](Loop::run), and EINTR when a signal ended the wait and no
    /// callback ran (S21).
    ///
    /// # Panics
    /// As [`run`](Loop::run).
    pub fn run_once(&self, limit: Duration) -> Result<usize> {
        self.iterate_once(time::nanos(limit))
    }

    pub(crate) fn iterate_once(&self, limit: u64) -> Result<usize> {
        let run = Run::begin(self)?;
        let (ran, interrupted) = self.iterate(if run.is_wanted { 0 } else { limit }, false)?;
        self.stopping.set(false);
        if interrupted && ran == 0 { Err(Error::INTERRUPTED) } else { Ok(ran) }
    }

    /// An iteration on the way to the last final callback, which nothing stops or breaks off.
    pub(crate) fn iterate_in_shutdown(&self) -> Result<()> {
        self.stopping.set(false);
        self.breaking.set(false);
        self.iterate(FOREVER, false).map(|_| ())
    }

    fn run_to_end(&self, forever: bool) -> Result<Outcome> {
        let run = Run::begin(self)?;
        let mut limit = if run.is_wanted { 0 } else { FOREVER };
        let mut outcome = Outcome::Done;
        while outcome == Outcome::Done && (forever || self.is_alive()) {
            self.iterate(limit, !forever)?;
            limit = FOREVER;
            outcome = match (self.breaking.get(), self.stopping.get()) {
                (true, _) => Outcome::Broken,
                (false, true) => Outcome::Stopped,
                (false, false) => Outcome::Done,
            };
        }
        self.stopping.set(false);
        Ok(outcome)
    }

    /// The loop stays with this thread from now on.
    #[inline]
    pub(crate) fn settle(&self) {
        let is_first = self.owner.settle();
        #[cfg(feature = "capi")]
        if is_first {
            self.link_to_thread();
        }
        #[cfg(not(feature = "capi"))]
        let _ = is_first;
    }

    /// One iteration, step by step as in S5. Tells how many callbacks ran and whether a signal ended the wait.
    #[inline(always)]
    fn iterate(&self, limit: u64, while_alive: bool) -> Result<(usize, bool)> {
        self.schedule.borrow_mut().metrics.iterations += 1;
        self.run_hooks(HookPoint::BeforeWait)?;
        let interrupted = {
            let (schedule, ring) = (&mut *self.schedule.borrow_mut(), &mut *self.ring.borrow_mut());
            // A hook may have ended the last thing that counts: then a run for these does not sleep (S19).
            let limit = if while_alive && !schedule.is_alive() { 0 } else { limit };
            let waiting = self.submit_and_wait(schedule, ring, limit).inspect_err(|_| note_loss(schedule, ring))?;
            // What there is no memory for waits, so that what is ready already may free some.
            self.collect_posts(schedule).or_else(|error| if schedule.is_ready() { Ok(()) } else { Err(error) })?;
            self.collect_completions(schedule, ring)
                .or_else(|error| if schedule.is_ready() { Ok(()) } else { Err(error) })?;
            self.collect_due_timers(schedule, waiting.now)?;
            waiting.interrupted
        };
        self.run_hooks(HookPoint::AfterWait)?;
        let ran = self.run_batch()?;
        Ok((ran, interrupted))
    }

    /// S5 (a): submits what was queued, and sleeps if there is nothing else to do.
    #[inline(always)]
    fn submit_and_wait(&self, schedule: &mut Schedule, ring: &mut Ring, limit: u64) -> Result<Waiting> {
        let limit = if schedule.has_submissions() { self.submit_deferred_first(schedule, ring, limit)? } else { limit };
        if limit == 0 || self.must_not_sleep(schedule) {
            ring.submit()?;
            return Ok(Waiting { interrupted: false, now: None });
        }
        let now = self.clock.now();
        if schedule.is_due(now) {
            ring.submit()?;
            return Ok(Waiting { interrupted: false, now: Some(now) });
        }
        match &self.clock {
            Clock::Monotonic => self.sleep(schedule, ring, now, now.saturating_add(limit)),
            Clock::Virtual(clock) => self.jump(clock, schedule, ring, now, limit),
        }
    }

    /// Tells the kernel what it is to be told. When it takes no more at the moment, that waits for the next iteration. When memory is
    /// refused, what the kernel has completed is collected first, without sleep.
    #[cold]
    fn submit_deferred_first(&self, schedule: &mut Schedule, ring: &mut Ring, limit: u64) -> Result<u64> {
        if ring.has_loss() {
            // A cancel has met it, which does not fail for that.
            return Err(Error::COMPLETION_LOST);
        }
        match self.submit_deferred(schedule, ring) {
            // Some operations go on in the next iteration.
            Ok(()) if schedule.has_submissions() => Ok(0),
            Ok(()) | Err(Error::NO_SUBMISSION) => Ok(limit),
            Err(Error::NO_MEMORY) if ring.has_completions() => Ok(0),
            Err(error) => Err(error),
        }
    }

    #[inline]
    fn must_not_sleep(&self, schedule: &Schedule) -> bool {
        self.stopping.get() || self.breaking.get() || schedule.is_ready() || self.shared.inbox.has_posts()
    }

    /// When the loop wakes up for a deadline: `slack` later than it could (S3).
    pub(crate) fn wake_up_time(&self, deadline: Option<u64>) -> u64 {
        deadline.map_or(FOREVER, |deadline| deadline.saturating_add(self.slack))
    }

    /// Sleeps from `now` until something completes or a timer is due, at the latest until `limit`, by CLOCK_MONOTONIC. The timers of a
    /// virtual clock end no sleep.
    #[cold]
    fn sleep(&self, schedule: &mut Schedule, ring: &mut Ring, mut now: u64, limit: u64) -> Result<Waiting> {
        let is_virtual = matches!(self.clock, Clock::Virtual(_));
        loop {
            let deadline = if is_virtual { None } else { schedule.wake_up_bound() };
            let until = self.wake_up_time(deadline).min(limit);
            let wake_up = if until == FOREVER { FOREVER } else { until.saturating_sub(self.spin) };
            let mut waited = Waited::Completed;
            now = self.spin(ring, now, until);
            let would_sleep = now < wake_up && !ring.has_completions();
            if would_sleep {
                // Before the loop counts as asleep: from then on, others write to it.
                ring.watch_wakes(self.shared.eventfd())?;
            }
            let is_wanted = if would_sleep && self.shared.inbox.fall_asleep() {
                let asleep = now;
                let traced = self.slow.trace().map(|trace| (trace, time::monotonic()));
                let result = ring.wait(wake_up);
                let is_wanted = self.shared.inbox.wake_up();
                if let Some((trace, asleep)) = traced {
                    trace.sleep(asleep, is_wanted);
                }
                waited = result?;
                now = time::monotonic();
                schedule.metrics.asleep_ns += if is_virtual { 0 } else { now - asleep };
                is_wanted
            } else {
                let submitted = ring.submit().map(|()| Waited::Completed);
                ring.pause_if_refused(submitted, wake_up)?;
                now = time::monotonic();
                self.shared.inbox.wake_up()
            };
            // They are taken by the iteration, after the posts.
            let has_come = ring.reap_own();
            let interrupted = waited == Waited::Interrupted;
            if !interrupted && !has_come {
                now = self.spin(ring, now, until);
            }
            // Once, as a rule. It goes round again when all that came was a timeout for what has been cancelled since.
            let is_awake = is_wanted || interrupted || has_come || now >= limit || self.must_not_sleep(schedule);
            if is_awake || !is_virtual && schedule.is_due(now) {
                return Ok(Waiting { interrupted, now: Some(now) });
            }
        }
    }

    /// What a loop on a virtual clock does instead of sleeping: the clock jumps to the next deadline (S36). With none
    /// ahead, it sleeps for real.
    #[cold]
    fn jump(
        &self,
        clock: &AtomicU64,
        schedule: &mut Schedule,
        ring: &mut Ring,
        now: u64,
        limit: u64,
    ) -> Result<Waiting> {
        let deadline = schedule.next_deadline();
        // The world's time is not the virtual clock's: while operations are in flight that clock stands still.
        if schedule.has_operations() || deadline.is_none() && limit == FOREVER {
            let asleep = time::monotonic();
            let waiting = self.sleep(schedule, ring, asleep, asleep.saturating_add(limit))?;
            return Ok(Waiting { now: Some(now), ..waiting });
        }
        if schedule.is_kernel_busy() {
            // Descriptors that are ready by now come before the jump.
            ring.submit()?;
            if ring.has_completions() {
                return Ok(Waiting { interrupted: false, now: Some(now) });
            }
        }
        if self.shared.inbox.wake_up() {
            ring.submit()?;
            return Ok(Waiting { interrupted: false, now: Some(now) });
        }
        let until = self.wake_up_time(deadline).min(now.saturating_add(limit));
        clock.store(until, Relaxed);
        schedule.metrics.asleep_ns += until - now;
        Ok(Waiting { interrupted: false, now: Some(until) })
    }

    /// Looks at the ring and the clock instead of sleeping, from `now` for up to the loop's `spin`; tells the time then.
    fn spin(&self, ring: &mut Ring, now: u64, until: u64) -> u64 {
        let mut last = now;
        while last < until && last - now < self.spin && !ring.has_completions() && !self.shared.inbox.is_wanted() {
            std::hint::spin_loop();
            last = time::monotonic();
        }
        last
    }

    /// S5 (b): takes one batch of completions. When memory is refused, they stay where they are.
    #[inline(always)]
    pub(crate) fn collect_completions(&self, schedule: &mut Schedule, ring: &mut Ring) -> Result<()> {
        if ring.batch_len() == 0 { Ok(()) } else { self.take_completions(schedule, ring) }
    }

    #[inline(never)]
    fn take_completions(&self, schedule: &mut Schedule, ring: &mut Ring) -> Result<()> {
        // Those of the ring's own need no room.
        if schedule.is_kernel_busy() {
            schedule.reserve_completions(ring.batch_len())?;
        }
        ring.reap(|completed| schedule.completed(completed));
        Ok(())
    }

    /// S5 (c): appends every due timer to the ready queue. The clock is not read while no timer is pending.
    #[inline(always)]
    fn collect_due_timers(&self, schedule: &mut Schedule, now: Option<u64>) -> Result<()> {
        if !schedule.has_timers() {
            return Ok(());
        }
        schedule.collect_due(now.unwrap_or_else(|| self.clock.now()))
    }

    /// S5 (d): runs what stands in the ready queue now, and tells how many callbacks that were.
    #[inline(always)]
    fn run_batch(&self) -> Result<usize> {
        self.schedule.borrow_mut().begin_batch();
        self.slow.restart();
        let mut ran = 0;
        while !self.breaking.get() {
            let mut schedule = self.schedule.borrow_mut();
            let Some(next) = schedule.next_in_batch() else { break };
            if schedule.is_plain(next) && !self.slow.is_on() {
                let (handle, callback) = schedule.take_plain(next);
                drop(schedule);
                self.invoke_plain(Some(handle), callback)?;
            } else if let Some(list) = list_of(next) {
                self.take_turn(list, schedule)?;
            } else if schedule.is_task(next) && !self.slow.is_on() {
                self.poll_task(schedule, next)?;
            } else if !self.run_call(schedule, next)? {
                continue;
            }
            ran += 1;
        }
        Ok(ran)
    }

    /// Runs what is next, of any kind; false when it turns out that nothing is to be run for it.
    #[inline(never)]
    fn run_call(&self, mut schedule: RefMut<'_, Schedule>, next: SlotRef) -> Result<bool> {
        let Some(call) = self.take_call(&mut schedule, next)? else { return Ok(false) };
        drop(schedule);
        self.invoke(call).map(|()| true)
    }

    /// Runs a callback that has nothing to come after it: what `invoke` does for most.
    #[inline(always)]
    fn invoke_plain(&self, handle: Option<Handle>, callback: Callback) -> Result<()> {
        self.current.set(handle);
        let in_callback = attempt(|| callback.call_once(self, &Event::Turn));
        self.current.set(None);
        if in_callback.is_some() && self.owner.process().is_current() {
            self.handle_panics([in_callback, None, None]);
        }
        self.check_not_forked()
    }

    /// What `invoke` does, for a task: its callback stays in its slot.
    #[inline(never)]
    fn poll_task(&self, mut schedule: RefMut<'_, Schedule>, next: SlotRef) -> Result<()> {
        let (handle, mut callback) = schedule.begin_task(next);
        drop(schedule);
        self.current.set(Some(handle));
        let in_callback = attempt(|| callback.call(self, &Event::Turn));
        self.current.set(None);
        self.check_not_forked()?;
        let ended = self.schedule.borrow_mut().task_returned(next);
        if ended.is_none() && in_callback.is_none() {
            return Ok(());
        }
        let in_release = ended.and_then(|ended| self.release(ended));
        if in_callback.is_some() || in_release.is_some() {
            self.handle_panics([in_callback, in_release, None]);
        }
        self.check_not_forked()
    }

    /// Runs what a member of a list has its turn for.
    #[inline(never)]
    fn take_turn(&self, list: List, mut schedule: RefMut<'_, Schedule>) -> Result<()> {
        match list {
            List::Posts => {
                let post = schedule.take_post();
                drop(schedule);
                self.invoke_post(post)
            }
            List::Results => {
                let Some(call) = schedule.take_result() else { return Ok(()) };
                drop(schedule);
                self.invoke(call)
            }
        }
    }

    /// Runs what another thread has posted.
    #[inline(never)]
    fn invoke_post(&self, post: Option<Post>) -> Result<()> {
        let Some(post) = post else { return Ok(()) };
        let held = remote::unpack(post);
        if held.release.is_none() && !self.slow.is_on() {
            self.invoke_plain(None, held.callback)
        } else {
            self.invoke(Call::last(None, Kind::Call, held, Event::Turn))
        }
    }

    #[inline(always)]
    fn run_hooks(&self, point: HookPoint) -> Result<()> {
        if self.schedule.borrow().has_hooks() { self.run_hooks_at(point) } else { Ok(()) }
    }

    #[cold]
    fn run_hooks_at(&self, point: HookPoint) -> Result<()> {
        let count = self.schedule.borrow_mut().begin_hooks(point);
        self.slow.restart();
        for at in 0..count {
            if self.breaking.get() {
                break;
            }
            let call = self.schedule.borrow_mut().hook_call(point, at);
            if let Some(call) = call {
                self.invoke(call)?;
            }
        }
        Ok(())
    }

    /// Runs one callback, and what its end brings: the report that it was slow, its release, the handling of a panic.
    ///
    /// When it returns in a forked child, nothing of the loop's runs there any more (S33).
    fn invoke(&self, mut call: Call) -> Result<()> {
        let watched = self.slow.begin(self, &call);
        self.current.set(call.handle);
        let in_callback = attempt(|| call.callback.call(self, &call.event));
        self.current.set(None);
        if let Err(error) = self.check_not_forked() {
            std::mem::forget(call);
            return Err(error);
        }
        let in_report = watched.and_then(|watched| attempt(|| self.slow.end(self, watched)));
        if let Err(error) = self.check_not_forked() {
            std::mem::forget(call);
            return Err(error);
        }
        let ended = self.schedule.borrow_mut().finished(call);
        let in_release = if ended.is_empty() { None } else { self.release_after_call(ended) };
        if in_callback.is_some() || in_report.is_some() || in_release.is_some() {
            self.handle_panics([in_callback, in_report, in_release]);
        }
        self.check_not_forked()
    }

    /// Asked after all user code: it may have forked, and this may be the child, where nothing of the loop's may run.
    #[inline]
    pub(crate) fn check_not_forked(&self) -> Result<()> {
        if self.owner.process().is_current() { Ok(()) } else { Err(Error::FORKED) }
    }
}

/// After an enter that failed: the kernel may have lost a completion.
#[cold]
fn note_loss(schedule: &mut Schedule, ring: &mut Ring) {
    if ring.take_loss() {
        schedule.completion_lost();
    }
}

/// One run, from beginning to end, whichever way it ends.
pub(crate) struct Run<'a> {
    lp: &'a Loop,
    /// Whether others have woken the loop while it counted as asleep in a host loop: then this run does not begin with a sleep.
    is_wanted: bool,
    _innermost: Running<'a>,
}

impl<'a> Run<'a> {
    fn begin(lp: &'a Loop) -> Result<Run<'a>> {
        lp.check_open()?;
        lp.tell_loss_to_host()?;
        Run::enter(lp)
    }

    /// As `begin`, for a loop that takes nothing new any more.
    pub(crate) fn enter(lp: &'a Loop) -> Result<Run<'a>> {
        if lp.running.replace(true) {
            return Err(Error::RUNNING);
        }
        lp.settle();
        let is_wanted = lp.wake_up_from_host();
        Ok(Run { lp, is_wanted, _innermost: Running::enter(lp) })
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.lp.breaking.set(false);
        self.lp.running.set(false);
        if self.lp.owner.process().is_current() {
            self.lp.hand_over_to_host();
        }
        if let Some(trace) = self.lp.slow.trace() {
            trace.flush();
        }
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

#[allow(unsafe_code)]
pub(crate) mod builder;
pub(crate) mod calls;
pub(crate) mod close;
mod control;
mod embed;
mod handler;
mod introspection;
#[cfg(feature = "capi")]
#[allow(unsafe_code)]
mod leaving;
#[cfg(feature = "capi")]
#[allow(unsafe_code)]
pub(crate) mod raw;
mod release;
#[allow(unsafe_code)]
pub(crate) mod running;
mod slow;
#[cfg(test)]
mod tests;
