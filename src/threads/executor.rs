//! Work off the loop: blocking calls and long computations run on threads of the loop's, and are
//! done on its own.
//!
//! Work is an operation whose kernel is the executor: cancelling is a request, and exactly one
//! final callback comes (S13). All that the executor needs for a piece of work is had when it is
//! scheduled, so that a thread which has done it allocates nothing. Finished work is a post like
//! all others, which stands behind those that the work has made (S26): many pieces of work cost one
//! wake, and none is sent to a loop that is awake. When the inbox takes no more, and no posts come
//! any more, it waits in a queue, and the loop is told as of a signal.
//!
//! A thread is started when work waits that no idle thread will take. Idle threads stay until the
//! loop is closed. They block all signals: the program's handlers run elsewhere.
//!
//! The threads, and whoever holds the lock, are not there in a forked child, so nothing takes it
//! there, or joins: what the executor has is leaked (S33). No user code runs or is dropped while
//! the lock is held.

use std::cell::{Cell, OnceCell};
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow};

use crate::abi::handle::Handle;
use crate::error::{Error, Result, Sentence};
use crate::pending::Schedule;
use crate::pending::callback::Job;
use crate::pending::driver::{Elsewhere, Withdraw};
use crate::pending::posts::Post;
use crate::sys::c_library::{Run, Thread, exit_at_once};
use crate::sys::memory::{TryArc, try_box};
use crate::threads::queues::{Queue, Queues};
use crate::threads::shared::Shared;
use crate::time::monotonic;

/// The threads of a loop, if it has any yet.
pub(crate) struct Executor<L: 'static> {
    pool: OnceCell<TryArc<Pool<L>>>,
    limit: usize,
}

/// A ticket for a piece of work, which is given back when it is dropped.
pub(crate) struct Admitted<'a, L: 'static> {
    pool: &'a TryArc<Pool<L>>,
    ticket: Option<u32>,
}

/// What an operation has that is work.
pub(crate) struct Work<L: 'static> {
    pool: TryArc<Pool<L>>,
    ticket: u32,
}

/// What the loop and its threads share.
struct Pool<L: 'static> {
    shared: TryArc<Shared<L>>,
    limit: usize,
    state: Mutex<State<L>>,
    order: AtomicBool,
    work_came: Condvar,
    work_ended: Condvar,
    /// Whether there is work that was done when the inbox took no more, for the loop to know
    /// without the lock.
    has_done: AtomicBool,
}

struct State<L: 'static> {
    queues: Queues<L>,
    running: usize,
    idle: usize,
    stopping: bool,
    threads: Vec<Thread>,
}

/// The state, while the lock is held. That each holder sees what the one before has done is said
/// once more by `order`: a thread sanitizer knows nothing of the order that std makes where it has
/// to wait.
struct Locked<'a, L: 'static> {
    state: Option<MutexGuard<'a, State<L>>>,
    order: &'a AtomicBool,
}

/// Four are enough that one slow look-up holds up no others, and few enough to cost nothing: libuv
/// has as many.
const DEFAULT_THREADS: usize = 4;

thread_local! {
    /// Where the pool is that this thread works for.
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
        let queues = Queues::new();
        let pool = TryArc::new(Pool {
            shared: shared.clone(),
            limit: self.limit,
            state: Mutex::new(State {
                queues,
                running: 0,
                idle: 0,
                stopping: false,
                threads: Vec::new(),
            }),
            order: AtomicBool::new(false),
            work_came: Condvar::new(),
            work_ended: Condvar::new(),
            has_done: AtomicBool::new(false),
        })?;
        Ok(self.pool.get_or_init(|| pool))
    }

    /// Makes room for a piece of work, and sees to it that there is a thread for it.
    pub(crate) fn admit(&self, shared: &TryArc<Shared<L>>) -> Result<Admitted<'_, L>> {
        let pool = self.pool(shared)?;
        let mut state = pool.lock();
        state.queues.reserve()?;
        if state.queues.count(Queue::Waiting) >= state.idle && state.threads.len() < pool.limit {
            let started = start_thread(pool, &mut state);
            if state.threads.is_empty() {
                started?;
            }
        }
        Ok(Admitted { pool, ticket: state.queues.take(Queue::Free) })
    }

    /// Appends the result of work to the ready queue, where there is room for it. The post says
    /// that it is done.
    pub(crate) fn take(&self, schedule: &mut Schedule<L>, ticket: u32, post: Post<L>) {
        let Some(pool) = self.pool.get() else { return };
        let mut state = pool.lock();
        state.queues.give_back(ticket, post);
        state.give(ticket, schedule);
    }

    /// Has `collect` take the post of work that is done.
    pub(crate) fn tell_later(&self, ticket: u32, post: Post<L>) {
        let Some(pool) = self.pool.get() else { return };
        pool.tell_later(ticket, post, Queue::Told);
    }

    /// Appends the results of what was done when the inbox took no more to the ready queue; all of
    /// it waits when there is no memory. A load when nothing was.
    pub(crate) fn collect(&self, schedule: &mut Schedule<L>) -> Result<()> {
        match self.pool.get() {
            Some(pool) if pool.has_done.load(Ordering::Acquire) => pool.collect(schedule),
            _ => Ok(()),
        }
    }

    /// EDEADLK on one of its own threads, which would wait for itself: the work that it does has
    /// not ended. (It is C that gets there, when the loop's thread has exited.)
    pub(crate) fn check_elsewhere(&self) -> Result<()> {
        let is_own = self.pool.get().is_some_and(|pool| POOL.get() == pool.address());
        if is_own { Err(Error::OWN_EXECUTOR) } else { Ok(()) }
    }

    /// Waits until all work that has begun has ended, at the latest until `until` on
    /// CLOCK_MONOTONIC: then ETIMEDOUT.
    pub(crate) fn wait(&self, until: u64) -> Result<()> {
        self.pool.get().map_or(Ok(()), |pool| pool.wait(until))
    }
}

impl<L: 'static> Drop for Executor<L> {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.get().filter(|pool| pool.shared.process().is_current()) {
            pool.stop();
        }
    }
}

impl<L: 'static> Admitted<'_, L> {
    /// What the operation has. There is a ticket.
    pub(crate) fn work(&self) -> Result<Box<Elsewhere<Work<L>>>> {
        try_box(Elsewhere(Work {
            pool: self.pool.clone(),
            ticket: self.ticket.ok_or(Error::NO_MEMORY)?,
        }))
    }

    /// Begins the work of an operation.
    pub(crate) fn begin(mut self, job: Job, handle: Handle) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut state = self.pool.lock();
        state.queues.begin(ticket, job, handle);
        if state.idle > 0 {
            self.pool.work_came.notify_one();
        }
    }
}

impl<L: 'static> Drop for Admitted<'_, L> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.pool.lock().queues.put(Queue::Free, ticket);
        }
    }
}

impl<L: 'static> Pool<L> {
    fn lock(&self) -> Locked<'_, L> {
        Locked::new(self.state.lock().unwrap_or_else(PoisonError::into_inner), &self.order)
    }

    fn address(&self) -> *const () {
        ptr::from_ref(self).cast()
    }

    /// Waits until all work that has begun has ended, or until `until`.
    fn wait(&self, until: u64) -> Result<()> {
        let mut state = self.lock();
        while state.running > 0 {
            let left = Duration::from_nanos(until.saturating_sub(monotonic()));
            if left.is_zero() {
                return Err(Error::CLOSE_TIMED_OUT);
            }
            state = state.wait(&self.work_ended, left);
        }
        Ok(())
    }

    fn collect(&self, schedule: &mut Schedule<L>) -> Result<()> {
        let mut state = self.lock();
        schedule.reserve_completions(
            state.queues.count(Queue::Told) + state.queues.count(Queue::Done),
        )?;
        self.has_done.store(false, Ordering::Relaxed);
        while let Some(ticket) =
            state.queues.take(Queue::Told).or_else(|| state.queues.take(Queue::Done))
        {
            state.give(ticket, schedule);
        }
        Ok(())
    }

    /// Work is done, and the inbox takes no more.
    fn tell_later(&self, ticket: u32, post: Post<L>, queue: Queue) {
        let mut state = self.lock();
        state.queues.give_back(ticket, post);
        state.queues.put(queue, ticket);
        self.has_done.store(true, Ordering::Release);
        drop(state);
        self.shared.work_done();
    }

    /// Ends the threads, which have nothing to do, and waits for them.
    fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        self.work_came.notify_all();
        threads.into_iter().for_each(Thread::join);
    }
}

/// Starts a thread, which blocks all signals from its first instruction.
fn start_thread<L>(pool: &TryArc<Pool<L>>, state: &mut State<L>) -> Result<()> {
    state.threads.try_reserve(1)?;
    let cannot = |errno| Error::new(errno, Sentence::NoThread);
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(cannot)?;
    let started = Thread::start(pool.clone());
    // It was the mask before, so it can be.
    let _ = before.thread_set_mask();
    state.threads.push(started.map_err(cannot)?);
    Ok(())
}

impl<L: 'static> Run for Pool<L> {
    /// What a thread does.
    fn run(&self) {
        // A name that is refused is of no use but to those who look at threads.
        let _ = prctl::set_name(c"ringloop");
        POOL.set(self.address());
        let mut state = self.lock();
        loop {
            if let Some((ticket, job, post)) = state.queues.take_job() {
                state.running += 1;
                drop(state);
                job.run();
                if !self.shared.process().is_current() {
                    // The work has forked, and this is the only thread of the child. What the
                    // program does at its exit is the parent's to do.
                    exit_at_once();
                }
                if let Err(post) = self.shared.send(post) {
                    self.tell_later(ticket, post, Queue::Done);
                }
                state = self.lock();
                state.running -= 1;
                self.work_ended.notify_one();
            } else if state.stopping {
                return;
            } else {
                state.idle += 1;
                state = state.wait(&self.work_came, Duration::MAX);
                state.idle -= 1;
            }
        }
    }
}

impl<L: 'static> State<L> {
    /// Gives the result of a task that is done, and frees its ticket.
    fn give(&mut self, ticket: u32, schedule: &mut Schedule<L>) {
        if let Some(handle) = self.queues.end(ticket) {
            schedule.work_done(handle);
        }
    }
}

impl<'a, L: 'static> Locked<'a, L> {
    fn new(state: MutexGuard<'a, State<L>>, order: &'a AtomicBool) -> Locked<'a, L> {
        order.load(Ordering::Acquire);
        Locked { state: Some(state), order }
    }

    /// Waits for a condition, without the lock meanwhile, at most `limit`.
    fn wait(mut self, condition: &Condvar, limit: Duration) -> Locked<'a, L> {
        let order = self.order;
        order.store(true, Ordering::Release);
        let state = self.state.take().expect("it is there until here");
        let waited = condition.wait_timeout(state, limit);
        Locked::new(waited.unwrap_or_else(PoisonError::into_inner).0, order)
    }
}

impl<L: 'static> Deref for Locked<'_, L> {
    type Target = State<L>;

    fn deref(&self) -> &State<L> {
        self.state.as_ref().expect("it is there until it waits")
    }
}

impl<L: 'static> DerefMut for Locked<'_, L> {
    fn deref_mut(&mut self) -> &mut State<L> {
        self.state.as_mut().expect("it is there until it waits")
    }
}

impl<L: 'static> Drop for Locked<'_, L> {
    fn drop(&mut self) {
        if self.state.is_some() {
            self.order.store(true, Ordering::Release);
        }
    }
}

impl<L: 'static> Withdraw for Work<L> {
    fn withdraw(&mut self) -> bool {
        let job = self.pool.lock().queues.withdraw(self.ticket);
        job.is_some()
    }
}

impl<L: 'static> std::fmt::Debug for Work<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the lock, which may belong to a thread that a forked child does not have.
        f.debug_struct("Work").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}
