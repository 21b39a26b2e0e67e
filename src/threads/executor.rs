//! Work off the loop: blocking calls and long computations run on threads of the loop's, and are done on its own.
//!
//! Work is an operation whose kernel is the executor: cancelling is a request, and exactly one final callback comes (S13). All that
//! the executor needs for a piece of work is had when it is scheduled, so that a thread which has done it allocates nothing.
//! Finished work is a post like all others, which stands behind those that the work has made (S26): many pieces of work cost one
//! wake, and none is sent to a loop that is awake. When the inbox takes no more, and no posts come any more, it waits in a list, and
//! the loop is told as of a signal.
//!
//! A thread is started when work waits that no idle thread will take. Idle threads stay until the loop is closed. They block all
//! signals: the program's handlers run elsewhere.
//!
//! The threads, and whoever holds the lock, are not there in a forked child, so nothing takes it there, or joins: what the
//! executor has is leaked (S33). No user code runs or is dropped while the lock is held.

use std::any::Any;
use std::cell::OnceCell;
use std::mem::{MaybeUninit, replace};
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libc::{c_void, pthread_t, sigset_t};
use nix::errno::Errno;

use crate::abi::handle::Handle;
use crate::error::{Error, Result, Sentence};
use crate::event_loop::Callback;
use crate::event_loop::Loop;
use crate::event_loop::Schedule;
use crate::pending::driver::Driver;
use crate::sys::fork::Process;
use crate::sys::memory::try_box;
use crate::sys::try_arc::{Inner, TryArc};
use crate::threads::inbox::Post;
use crate::threads::remote::{Head, Shared, What};
use crate::time::monotonic;

/// The threads of a loop, if it has any yet.
#[derive(Debug)]
pub(crate) struct Executor {
    pool: OnceCell<TryArc<Pool>>,
    limit: usize,
}

/// A piece of work. Dropping it runs no user code.
pub(crate) enum Job {
    Rust(Box<dyn FnOnce() + Send>),
    #[cfg(feature = "capi")]
    C(c::CJob),
}

/// Work that has been handed over, as the loop's thread knows it: it gets the result.
pub(crate) struct Packet<F, T>(TryArc<Mutex<Stage<F, T>>>);

enum Stage<F, T> {
    Waiting(F),
    Done(std::thread::Result<T>),
    Taken,
}

/// What came of work.
pub(crate) enum Worked<T> {
    Done(T),
    Panicked(Box<dyn Any + Send>),
    Cancelled,
}

/// What the loop and its threads share.
struct Pool {
    shared: TryArc<Shared>,
    process: Process,
    limit: usize,
    state: Mutex<State>,
    order: AtomicBool,
    work_came: Condvar,
    work_ended: Condvar,
    /// Whether there is work that was done when the inbox took no more, for the loop to know without the lock.
    has_done: AtomicBool,
}

#[derive(Default)]
struct State {
    /// By ticket.
    tasks: Vec<Task>,
    free: List,
    waiting: List,
    /// Those that closing has found in the inbox.
    told: List,
    /// Those that were done when the inbox took no more, and that the loop does not know of.
    done: List,
    running: usize,
    idle: usize,
    stopping: bool,
    threads: Vec<pthread_t>,
}

/// A piece of work, or room for one.
struct Task {
    job: Option<Job>,
    handle: Option<Handle>,
    /// Tells that it is done. It is whose the task is, and lives as long as the pool.
    post: NonNull<DonePost>,
    next: u32,
    previous: u32,
}

/// A post that says that work is done.
#[repr(C)]
struct DonePost {
    head: Head,
    ticket: u32,
}

/// The state, while the lock is held. That each holder sees what the one before has done is said once more by `order`: a thread
/// sanitizer knows nothing of the order that std makes where it has to wait.
struct Locked<'a> {
    state: Option<MutexGuard<'a, State>>,
    order: &'a AtomicBool,
}

/// Some of the tasks, linked in order.
struct List {
    first: u32,
    last: u32,
    count: usize,
}

/// What an operation has that is work.
struct Work {
    pool: TryArc<Pool>,
    ticket: u32,
}

/// Four are enough that one slow look-up holds up no others, and few enough to cost nothing: libuv has as many.
const DEFAULT_THREADS: usize = 4;
const NONE: u32 = u32::MAX;

impl Loop {
    /// Runs `work` on another thread, and then `done` on the loop's, with what `work` returned. What `work` has posted to the loop runs
    /// before `done`. For what blocks or takes long:
    /// threads are started when they are needed, up to [`Builder::executor_threads`](crate::Builder::executor_threads), and
    /// work that finds none free waits for its turn.
    ///
    /// It is an operation (S13): cancelled before it has begun, it never runs, and `done` gets ECANCELED; work that has begun
    /// ends by itself. `done` is called once, unless the loop is closed before; closing waits for work that has begun. A panic
    /// in `work` comes up where `done` would have run (S30).
    ///
    /// A few microseconds, and two allocations or more. Errors: EAGAIN when there is no thread, and none can be started; ENOMEM,
    /// ESHUTDOWN.
    pub fn run_in_executor<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&Loop, Result<T>) + 'static,
    ) -> Result<Handle> {
        self.check_open()?;
        let (job, packet) = Packet::new(work)?;
        let callback = Callback::once(move |lp: &Loop| match packet.open() {
            Worked::Done(result) => done(lp, Ok(result)),
            Worked::Panicked(payload) => resume_unwind(payload),
            Worked::Cancelled => done(lp, Err(Error::CANCELLED)),
        })?;
        self.execute(job, callback)
    }

    /// Has work done, and `callback` called when it has ended; its result is 0 or -ECANCELED.
    pub(crate) fn execute(&self, job: Job, callback: Callback) -> Result<Handle> {
        let pool = self.executor.pool(&self.shared, self.owner.process())?;
        let ticket = pool.admit()?;
        let handle = try_box(Work { pool: pool.clone(), ticket }).and_then(|work| {
            // The borrow ends before the callback does.
            let mut schedule = self.schedule.borrow_mut();
            schedule.reserve_operations(1)?;
            Ok((schedule, work))
        });
        match handle {
            Ok((mut schedule, work)) => {
                let handle = schedule.add_work(work, callback);
                pool.begin(ticket, job, handle);
                Ok(handle)
            }
            Err(error) => {
                pool.dismiss(ticket);
                Err(error)
            }
        }
    }
}

impl Executor {
    /// At most `limit` threads; 0 is the default.
    pub(crate) fn new(limit: u32) -> Executor {
        let limit = if limit == 0 { DEFAULT_THREADS } else { limit as usize };
        Executor { pool: OnceCell::new(), limit }
    }

    fn pool(&self, shared: &TryArc<Shared>, process: Process) -> Result<&TryArc<Pool>> {
        if let Some(pool) = self.pool.get() {
            return Ok(pool);
        }
        let pool = TryArc::new(Pool {
            shared: shared.clone(),
            process,
            limit: self.limit,
            state: Mutex::default(),
            order: AtomicBool::new(false),
            work_came: Condvar::new(),
            work_ended: Condvar::new(),
            has_done: AtomicBool::new(false),
        })?;
        Ok(self.pool.get_or_init(|| pool))
    }

    /// Appends the result of work to the ready queue, where there is room for it. The post is one that says `Work`.
    pub(crate) fn take(&self, schedule: &mut Schedule, post: Post) {
        let Some(pool) = self.pool.get() else { return };
        let ticket = DonePost::ticket(post);
        let mut state = pool.lock();
        state.give(ticket, schedule);
    }

    /// Has `collect` take a post that says `Work`.
    pub(crate) fn tell_later(&self, post: Post) {
        let Some(pool) = self.pool.get() else { return };
        pool.tell_later(DonePost::ticket(post), |state| &mut state.told);
    }

    /// Appends the results of what was done when the inbox took no more to the ready queue; all of it waits when there is no
    /// memory. A load when nothing was.
    pub(crate) fn collect(&self, schedule: &mut Schedule) -> Result<()> {
        match self.pool.get() {
            Some(pool) if pool.has_done.load(Ordering::Acquire) => pool.collect(schedule),
            _ => Ok(()),
        }
    }

    /// EDEADLK on one of its own threads, which would wait for itself: the work that it does has not ended. (It is C that gets there,
    /// when the loop's thread has exited.)
    pub(crate) fn check_elsewhere(&self) -> Result<()> {
        // SAFETY: neither function needs anything.
        let is_this = |&thread: &pthread_t| unsafe { libc::pthread_equal(thread, libc::pthread_self()) != 0 };
        let is_one = |pool: &TryArc<Pool>| pool.lock().threads.iter().any(is_this);
        if self.pool.get().is_some_and(is_one) { Err(Error::OWN_EXECUTOR) } else { Ok(()) }
    }

    /// Waits until all work that has begun has ended, at the latest until `until` on CLOCK_MONOTONIC: then ETIMEDOUT.
    pub(crate) fn wait(&self, until: u64) -> Result<()> {
        self.pool.get().map_or(Ok(()), |pool| pool.wait(until))
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.get().filter(|pool| pool.process.is_current()) {
            pool.stop();
        }
    }
}

impl Pool {
    fn lock(&self) -> Locked<'_> {
        Locked::new(self.state.lock().unwrap_or_else(PoisonError::into_inner), &self.order)
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

    fn collect(&self, schedule: &mut Schedule) -> Result<()> {
        let mut state = self.lock();
        schedule.reserve_completions(state.told.count + state.done.count)?;
        self.has_done.store(false, Ordering::Relaxed);
        while let Some(ticket) = state.take(|state| &mut state.told).or_else(|| state.take(|state| &mut state.done)) {
            state.give(ticket, schedule);
        }
        Ok(())
    }

    /// Work is done, and the inbox takes no more.
    fn tell_later(&self, ticket: u32, list: fn(&mut State) -> &mut List) {
        let mut state = self.lock();
        state.put(list, ticket);
        self.has_done.store(true, Ordering::Release);
        drop(state);
        self.shared.work_done();
    }

    /// Begins work whose ticket has been admitted.
    fn begin(&self, ticket: u32, job: Job, handle: Handle) {
        let mut state = self.lock();
        let task = &mut state.tasks[ticket as usize];
        (task.job, task.handle) = (Some(job), Some(handle));
        state.put(|state| &mut state.waiting, ticket);
        if state.idle > 0 {
            self.work_came.notify_one();
        }
    }

    /// Gives back a ticket with which nothing was begun.
    fn dismiss(&self, ticket: u32) {
        self.lock().put(|state| &mut state.free, ticket);
    }

    /// Takes work back that no thread has begun. False: one has.
    fn withdraw(&self, ticket: u32) -> bool {
        let mut state = self.lock();
        let job = state.tasks[ticket as usize].job.take();
        if job.is_some() {
            state.unlink(|state| &mut state.waiting, ticket);
            state.put(|state| &mut state.free, ticket);
        }
        job.is_some()
    }

    /// What a thread does.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(ticket) = state.take(|state| &mut state.waiting) {
                let Task { job, post, .. } = &mut state.tasks[ticket as usize];
                let (job, post) = (job.take(), *post);
                state.running += 1;
                drop(state);
                if let Some(job) = job {
                    job.run();
                }
                if !self.process.is_current() {
                    // The work has forked, and this is the only thread of the child. What the program does at its exit is the
                    // parent's to do.
                    // SAFETY: _exit takes any number.
                    unsafe { libc::_exit(0) };
                }
                // SAFETY: the ticket is this work's until the loop has had the post, which begins with its head and stays where it is.
                if !unsafe { self.shared.post_head(post.cast()) } {
                    self.tell_later(ticket, |state| &mut state.done);
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

    /// Ends the threads, which have nothing to do, and waits for them.
    fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        self.work_came.notify_all();
        for thread in threads {
            // SAFETY: the thread was made joinable, and is joined once.
            unsafe { libc::pthread_join(thread, ptr::null_mut()) };
        }
    }
}

impl TryArc<Pool> {
    /// Makes room for a piece of work, and sees to it that there is a thread for it.
    fn admit(&self) -> Result<u32> {
        let mut state = self.lock();
        if state.free.count == 0 {
            state.add_task()?;
        }
        if state.waiting.count >= state.idle && state.threads.len() < self.limit {
            let started = self.start_thread(&mut state);
            if state.threads.is_empty() {
                started?;
            }
        }
        // There is one, as it has just been seen to.
        state.take(|state| &mut state.free).ok_or(Error::NO_MEMORY)
    }

    /// Starts a thread, which blocks all signals from its first instruction.
    fn start_thread(&self, state: &mut State) -> Result<()> {
        state.threads.try_reserve(1)?;
        let mut thread = MaybeUninit::uninit();
        let mut signals = MaybeUninit::<sigset_t>::uninit();
        let mut before = MaybeUninit::<sigset_t>::uninit();
        let pool = self.clone().into_raw();
        // SAFETY: all pointers are to live variables, which are initialized where they are read; the pool is the new thread's.
        let errno = unsafe {
            libc::sigfillset(signals.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, signals.as_ptr(), before.as_mut_ptr());
            let errno = libc::pthread_create(thread.as_mut_ptr(), ptr::null(), run_thread, pool.cast());
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
            errno
        };
        if errno != 0 {
            // SAFETY: no thread has taken it.
            drop(NonNull::new(pool).map(|pool| unsafe { TryArc::from_raw(pool) }));
            return Err(Error::new(Errno::from_raw(errno), Sentence::NoThread));
        }
        // SAFETY: pthread_create has set it.
        state.threads.push(unsafe { thread.assume_init() });
        Ok(())
    }
}

/// Where a thread begins.
extern "C" fn run_thread(pool: *mut c_void) -> *mut c_void {
    let pool = NonNull::new(pool.cast::<Inner<Pool>>()).expect("a thread is given a pool");
    // SAFETY: it came from `into_raw`, for this thread alone.
    let pool = unsafe { TryArc::from_raw(pool) };
    // SAFETY: the name is a C string of less than 16 bytes.
    unsafe { libc::pthread_setname_np(libc::pthread_self(), c"ringloop".as_ptr()) };
    pool.work();
    ptr::null_mut()
}

impl<'a> Locked<'a> {
    fn new(state: MutexGuard<'a, State>, order: &'a AtomicBool) -> Locked<'a> {
        order.load(Ordering::Acquire);
        Locked { state: Some(state), order }
    }

    /// Waits for a condition, without the lock meanwhile, at most `limit`.
    fn wait(mut self, condition: &Condvar, limit: Duration) -> Locked<'a> {
        let order = self.order;
        order.store(true, Ordering::Release);
        let state = self.state.take().expect("it is there until here");
        let waited = condition.wait_timeout(state, limit);
        Locked::new(waited.unwrap_or_else(PoisonError::into_inner).0, order)
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.state.as_ref().expect("it is there until it waits")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.state.as_mut().expect("it is there until it waits")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if self.state.is_some() {
            self.order.store(true, Ordering::Release);
        }
    }
}

impl State {
    /// Makes room for one more task.
    fn add_task(&mut self) -> Result<()> {
        self.tasks.try_reserve(1)?;
        let ticket = self.tasks.len() as u32;
        let post = try_box(DonePost { head: Head::new(&What::Work), ticket })?;
        let post = NonNull::from(Box::leak(post));
        self.tasks.push(Task { job: None, handle: None, post, next: NONE, previous: NONE });
        self.put(|state| &mut state.free, ticket);
        Ok(())
    }

    /// Gives the result of a task that is done, and frees its ticket.
    fn give(&mut self, ticket: u32, schedule: &mut Schedule) {
        let handle = self.tasks[ticket as usize].handle.take();
        self.put(|state| &mut state.free, ticket);
        if let Some(handle) = handle {
            schedule.work_done(handle);
        }
    }

    /// Puts a task at the end of a list.
    fn put(&mut self, list: fn(&mut State) -> &mut List, ticket: u32) {
        let last = replace(&mut list(self).last, ticket);
        if last == NONE {
            list(self).first = ticket;
        } else {
            self.tasks[last as usize].next = ticket;
        }
        list(self).count += 1;
        let task = &mut self.tasks[ticket as usize];
        (task.next, task.previous) = (NONE, last);
    }

    /// Takes the first task of a list.
    fn take(&mut self, list: fn(&mut State) -> &mut List) -> Option<u32> {
        let first = list(self).first;
        if first == NONE {
            return None;
        }
        self.unlink(list, first);
        Some(first)
    }

    /// Takes a task out of the list that it is in.
    fn unlink(&mut self, list: fn(&mut State) -> &mut List, ticket: u32) {
        let Task { next, previous, .. } = self.tasks[ticket as usize];
        match previous {
            NONE => list(self).first = next,
            _ => self.tasks[previous as usize].next = next,
        }
        match next {
            NONE => list(self).last = previous,
            _ => self.tasks[next as usize].previous = previous,
        }
        list(self).count -= 1;
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for task in &self.tasks {
            // SAFETY: it was boxed, and stands in no inbox: the loop has closed that, and all work has ended.
            drop(unsafe { Box::from_raw(task.post.as_ptr()) });
        }
    }
}

// SAFETY: the posts are the tasks', and each is used by who has its task: the lock's holder, or the thread that does it.
unsafe impl Send for State {}

impl DonePost {
    /// The ticket of a post that says `Work`.
    fn ticket(post: Post) -> u32 {
        // SAFETY: such a post is one of these, and lives as long as the pool, whose loop has it.
        unsafe { post.into_raw().cast::<DonePost>().as_ref() }.ticket
    }
}

impl Default for List {
    fn default() -> List {
        List { first: NONE, last: NONE, count: 0 }
    }
}

impl Job {
    /// Does it, on whichever thread. A panic is the packet's; what C throws cannot be caught, and aborts with a message.
    fn run(self) {
        match self {
            Job::Rust(job) => job(),
            #[cfg(feature = "capi")]
            Job::C(job) => drop(catch_unwind(AssertUnwindSafe(|| job.run()))),
        }
    }
}

impl<T: Send + 'static, F: FnOnce() -> T + Send + 'static> Packet<F, T> {
    /// Work to hand over, and what will have the result.
    pub(crate) fn new(work: F) -> Result<(Job, Packet<F, T>)> {
        let packet = TryArc::new(Mutex::new(Stage::Waiting(work)))?;
        let job = Packet(packet.clone());
        Ok((Job::Rust(try_box(move || job.work())?), Packet(packet)))
    }

    fn work(self) {
        let Stage::Waiting(work) = self.swap(Stage::Taken) else { return };
        let result = catch_unwind(AssertUnwindSafe(work));
        self.swap(Stage::Done(result));
    }

    /// What came of it: for the callback of the work, on the loop's thread.
    pub(crate) fn open(self) -> Worked<T> {
        match self.swap(Stage::Taken) {
            Stage::Done(Ok(result)) => Worked::Done(result),
            Stage::Done(Err(payload)) => Worked::Panicked(payload),
            waiting => {
                drop(waiting);
                Worked::Cancelled
            }
        }
    }

    fn swap(&self, stage: Stage<F, T>) -> Stage<F, T> {
        replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), stage)
    }
}

// SAFETY: it has no entry for the kernel.
unsafe impl Driver for Work {
    fn withdraw(&mut self) -> bool {
        self.pool.withdraw(self.ticket)
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TryArc<Pool> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the lock, which may belong to a thread that a forked child does not have.
        f.debug_struct("Pool").field("limit", &self.limit).finish_non_exhaustive()
    }
}

#[cfg(feature = "capi")]
pub(crate) mod c {
    //! Work in C.

    use libc::c_void;

    /// `loop_work_t`. The ABI lets a C++ exception arrive here, where it aborts with a message (S30).
    pub(crate) type Work = unsafe extern "C-unwind" fn(*mut c_void);

    pub(crate) struct CJob {
        work: Work,
        arg: *mut c_void,
    }

    // SAFETY: the header says that work and argument are used on another thread.
    unsafe impl Send for CJob {}

    impl CJob {
        /// Whoever makes one promises that calling `work` with `arg` on any thread is sound.
        pub(crate) fn new(work: Work, arg: *mut c_void) -> CJob {
            CJob { work, arg }
        }

        pub(super) fn run(self) {
            // SAFETY: whoever made it vouched for the call.
            unsafe { (self.work)(self.arg) }
        }
    }
}
