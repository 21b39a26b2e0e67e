//! The executor: blocking calls and long computations on threads of the loop, with the result on
//! the loop's own thread.
//!
//! Work is an operation that the executor performs: cancelling is a request, and there is exactly
//! one final callback (S13). Scheduling reserves all memory. Completed work is a post, after the
//! posts that the work has sent (S26). If the inbox is closed, it waits in a queue, and the loop is
//! notified as of a signal. Idle threads stay until the loop is closed; they block all signals.
//!
//! No user code runs or is dropped with the lock held. In a forked child, which lacks the lock's
//! holder, nothing takes the lock or joins: the executor's data leaks (S33).

use std::cell::{Cell, OnceCell};
use std::mem::take;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow};

use crate::abi::handle::Handle;
use crate::error::{Error, Result, Sentence};
use crate::pending::Schedule;
use crate::pending::callback::Job;
use crate::pending::driver::Driver;
use crate::pending::posts::Post;
use crate::sys::c_library::{Run, Thread, exit_at_once};
use crate::sys::memory::{TryArc, try_box};
use crate::threads::queues::{Queue, Queues};
use crate::threads::shared::Shared;
use crate::time::monotonic;

/// The threads of a loop, started on demand.
pub(crate) struct Executor<L: 'static> {
    pool: OnceCell<TryArc<Pool<L>>>,
    limit: usize,
}

/// The driver of an operation that is work.
pub(crate) struct Work<L: 'static> {
    pool: TryArc<Pool<L>>,
    ticket: u32,
}

/// The part that the loop and its threads share. (`kernel::buffers` has a pool of buffers.)
struct Pool<L: 'static> {
    shared: TryArc<Shared<L>>,
    limit: usize,
    state: Mutex<State<L>>,
    work_came: Condvar,
    work_ended: Condvar,
    /// Whether work completed after the inbox was closed; the loop reads it without the lock.
    has_done: AtomicBool,
}

/// The part of the pool that the lock protects.
struct State<L: 'static> {
    queues: Queues<L>,
    running: usize,
    idle: usize,
    stopping: bool,
    threads: Vec<Thread>,
}

/// Enough that one slow look-up does not block others, at little cost; libuv has the same number.
const DEFAULT_THREADS: usize = 4;

thread_local! {
    /// The address of the pool that this thread works for.
    static POOL: Cell<*const ()> = const { Cell::new(ptr::null()) };
}

impl<L: 'static> Executor<L> {
    /// At most `limit` threads; 0 is the default.
    pub(crate) fn new(limit: u32) -> Executor<L> {
        let limit = if limit == 0 { DEFAULT_THREADS } else { limit as usize };
        Executor { pool: OnceCell::new(), limit }
    }

    fn pool(&self, shared: &TryArc<Shared<L>>) -> Result<&TryArc<Pool<L>>> {
        if let Some(pool) = self.pool.get() {
            return Ok(pool);
        }
        let pool = TryArc::new(Pool {
            shared: shared.clone(),
            limit: self.limit,
            state: Mutex::new(State {
                queues: Queues::new(),
                running: 0,
                idle: 0,
                stopping: false,
                threads: Vec::new(),
            }),
            work_came: Condvar::new(),
            work_ended: Condvar::new(),
            has_done: AtomicBool::new(false),
        })?;
        Ok(self.pool.get_or_init(|| pool))
    }

    /// Reserves memory and a thread for a piece of work. Returns its driver, and its ticket for
    /// `begin`, which follows.
    pub(crate) fn admit(&self, shared: &TryArc<Shared<L>>) -> Result<(Box<Work<L>>, u32)> {
        let pool = self.pool(shared)?;
        let mut work = try_box(Work { pool: pool.clone(), ticket: 0 })?;
        work.ticket = pool.with(|state| {
            state.queues.reserve()?;
            if state.queues.count(Queue::Waiting) >= state.idle && state.threads.len() < pool.limit
            {
                let started = start_thread(pool, state);
                if state.threads.is_empty() {
                    started?;
                }
            }
            state.queues.take(Queue::Free).ok_or(Error::NO_MEMORY)
        })?;
        let ticket = work.ticket;
        Ok((work, ticket))
    }

    pub(crate) fn begin(&self, ticket: u32, job: Job, handle: Handle) {
        let Some(pool) = self.pool.get() else { return };
        pool.with(|state| {
            state.queues.begin(ticket, job, handle);
            if state.idle > 0 {
                pool.work_came.notify_one();
            }
        });
    }

    /// Appends the result of work to the ready queue, in reserved space. `post` reported its
    /// completion.
    pub(crate) fn take(&self, schedule: &mut Schedule<L>, ticket: u32, post: Post<L>) {
        let Some(pool) = self.pool.get() else { return };
        pool.with(|state| {
            state.queues.give_back(ticket, post);
            state.give(ticket, schedule);
        });
    }

    /// Leaves the post of completed work for `collect`.
    pub(crate) fn tell_later(&self, ticket: u32, post: Post<L>) {
        if let Some(pool) = self.pool.get() {
            pool.tell_later(ticket, post, Queue::Told);
        }
    }

    /// Appends the results of work that completed after the inbox was closed to the ready queue.
    /// When memory is refused, all of it waits. Costs a load if there is none.
    pub(crate) fn collect(&self, schedule: &mut Schedule<L>) -> Result<()> {
        let Some(pool) = self.pool.get() else { return Ok(()) };
        if !pool.has_done.load(Ordering::Acquire) {
            return Ok(());
        }
        pool.with(|state| {
            let queues = &state.queues;
            schedule.reserve_completions(queues.count(Queue::Told) + queues.count(Queue::Done))?;
            pool.has_done.store(false, Ordering::Relaxed);
            while let Some(ticket) =
                state.queues.take(Queue::Told).or_else(|| state.queues.take(Queue::Done))
            {
                state.give(ticket, schedule);
            }
            Ok(())
        })
    }

    /// EDEADLK on a thread of this executor, which would wait for its own work. (Only C can get
    /// there, when the loop's thread has exited.)
    pub(crate) fn check_elsewhere(&self) -> Result<()> {
        let is_own = self.pool.get().is_some_and(|pool| POOL.get() == pool.address());
        if is_own { Err(Error::OWN_EXECUTOR) } else { Ok(()) }
    }

    /// Waits until all begun work has ended, at the latest until `until` on CLOCK_MONOTONIC, then
    /// ETIMEDOUT.
    pub(crate) fn wait(&self, until: u64) -> Result<()> {
        let Some(pool) = self.pool.get() else { return Ok(()) };
        let all_ended = |state: &mut State<L>| (state.running == 0).then_some(());
        pool.wait(&pool.work_ended, until, all_ended).ok_or(Error::CLOSE_TIMED_OUT)
    }
}

impl<L: 'static> Drop for Executor<L> {
    fn drop(&mut self) {
        // The threads are idle.
        if let Some(pool) = self.pool.get().filter(|pool| pool.shared.process().is_current()) {
            let threads = pool.with(|state| {
                state.stopping = true;
                take(&mut state.threads)
            });
            pool.work_came.notify_all();
            threads.into_iter().for_each(Thread::join);
        }
    }
}

impl<L: 'static> Pool<L> {
    fn with<R>(&self, f: impl FnOnce(&mut State<L>) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.ordered(&mut state, f)
    }

    /// Calls `f` with the lock held until it returns a value, and waits for `condition` between
    /// calls. None: no value by `until`, on CLOCK_MONOTONIC.
    fn wait<R>(
        &self,
        condition: &Condvar,
        until: u64,
        mut f: impl FnMut(&mut State<L>) -> Option<R>,
    ) -> Option<R> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let given = self.ordered(&mut state, &mut f);
            if given.is_some() {
                return given;
            }
            let left = Duration::from_nanos(until.saturating_sub(monotonic()));
            if left.is_zero() {
                return None;
            }
            let waited = condition.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Calls `f` for the holder of the lock. With `tsan`, which `tests/tsan/run` sets, repeats the
    /// lock's order for the thread sanitizer, which misses std's waits for a lock: std is built
    /// without it.
    fn ordered<R>(&self, state: &mut State<L>, f: impl FnOnce(&mut State<L>) -> R) -> R {
        #[cfg(tsan)]
        static ORDER: AtomicBool = AtomicBool::new(false);
        #[cfg(tsan)]
        ORDER.load(Ordering::Acquire);
        let given = f(state);
        #[cfg(tsan)]
        ORDER.store(true, Ordering::Release);
        given
    }

    fn address(&self) -> *const () {
        ptr::from_ref(self).cast()
    }

    /// Work has completed, and the inbox is closed.
    fn tell_later(&self, ticket: u32, post: Post<L>, queue: Queue) {
        self.with(|state| {
            state.queues.give_back(ticket, post);
            state.queues.put(queue, ticket);
            self.has_done.store(true, Ordering::Release);
        });
        self.shared.work_done();
    }

    /// Waits for the next piece of work; None when the pool stops. With `ends`, the previous one
    /// has ended.
    fn next_job(&self, ends: bool) -> Option<(u32, Job, Post<L>)> {
        let (mut ends, mut is_idle) = (ends, false);
        let next = self.wait(&self.work_came, u64::MAX, |state| {
            if take(&mut ends) {
                state.running -= 1;
                self.work_ended.notify_one();
            }
            state.idle -= usize::from(take(&mut is_idle));
            let job = state.queues.take_job();
            if job.is_some() {
                state.running += 1;
            } else if !state.stopping {
                state.idle += 1;
                is_idle = true;
                return None;
            }
            Some(job)
        });
        next.flatten()
    }
}

/// Starts a thread, which blocks all signals from its first instruction.
fn start_thread<L>(pool: &TryArc<Pool<L>>, state: &mut State<L>) -> Result<()> {
    state.threads.try_reserve(1)?;
    let cannot = |errno| Error::new(errno, Sentence::NoThread);
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(cannot)?;
    let started = Thread::start(pool.clone());
    // Restoring a former mask does not fail.
    let _ = before.thread_set_mask();
    state.threads.push(started.map_err(cannot)?);
    Ok(())
}

impl<L: 'static> Run for Pool<L> {
    fn run(&self) {
        // The name is only informative, so an error is ignored.
        let _ = prctl::set_name(c"ringloop");
        POOL.set(self.address());
        let mut next = self.next_job(false);
        while let Some((ticket, job, post)) = next {
            job.run();
            if !self.shared.process().is_current() {
                // The work has forked, and this is the only thread of the child. Exit handlers of
                // the program are for the parent.
                exit_at_once();
            }
            if let Err(post) = self.shared.send(post) {
                self.tell_later(ticket, post, Queue::Done);
            }
            next = self.next_job(true);
        }
    }
}

impl<L: 'static> State<L> {
    /// Delivers the result of completed work, and frees its ticket.
    fn give(&mut self, ticket: u32, schedule: &mut Schedule<L>) {
        if let Some(handle) = self.queues.end(ticket) {
            schedule.work_done(handle);
        }
    }
}

impl<L: 'static> Driver for Work<L> {
    fn withdraw(&mut self) -> bool {
        self.pool.with(|state| state.queues.withdraw(self.ticket)).is_some()
    }
}

impl<L: 'static> std::fmt::Debug for Work<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the lock, whose holder may not exist in a forked child.
        f.debug_struct("Work").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}
