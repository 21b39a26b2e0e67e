//! The second thread: it lives as long as the process, and does one job at a time.

use std::cell::Cell;
use std::sync::atomic::Ordering::Release;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use super::api;
use super::memory;
use super::thing::{self, Thing};

pub(crate) const MOST: usize = 8;

/// Posts through a remote, before, while or after the loop is closed.
pub(crate) struct Job {
    /// The worker owns one reference to the remote.
    pub(crate) remote: *mut api::Remote,
    /// A loop that stays open until the job is done, or null.
    pub(crate) lp: *mut api::Loop,
    /// The things to post, up to the first null.
    pub(crate) things: [*const Thing; MOST],
    /// The release hook of each post.
    pub(crate) releases: [api::Release; MOST],
    /// Bits: posts without the remote, and whether the worker wakes the loop and yields in between.
    pub(crate) manner: u64,
    /// Whether the job ends with a stop.
    pub(crate) stops: bool,
}

// SAFETY: a remote is for any thread; the things live until the job is done, and the worker uses
// only their atomic fields; the loop is open until the job is done.
unsafe impl Send for Job {}

enum Desk {
    Idle,
    Asked(Job),
    Busy,
    /// The allocations less the frees of the worker.
    Done(i64),
}

static DESK: Mutex<Desk> = Mutex::new(Desk::Idle);
static CHANGED: Condvar = Condvar::new();

thread_local!(static IS_WORKER: Cell<bool> = const { Cell::new(false) });

fn desk() -> MutexGuard<'static, Desk> {
    DESK.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn is_this_thread() -> bool {
    IS_WORKER.get()
}

/// Begins a job. The caller has waited for the previous one.
pub(crate) fn begin(job: Job) {
    *desk() = Desk::Asked(job);
    CHANGED.notify_all();
}

/// Waits until the job is done; returns the allocations less the frees of the worker.
pub(crate) fn finish() -> i64 {
    let mut desk = desk();
    loop {
        match std::mem::replace(&mut *desk, Desk::Idle) {
            Desk::Done(live) => return live,
            other => *desk = other,
        }
        desk = CHANGED.wait(desk).unwrap_or_else(PoisonError::into_inner);
    }
}

pub(crate) fn start_thread() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        thread::spawn(work);
    });
}

fn work() {
    IS_WORKER.set(true);
    let mut desk = desk();
    loop {
        while !matches!(*desk, Desk::Asked(_)) {
            desk = CHANGED.wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
        if let Desk::Asked(job) = std::mem::replace(&mut *desk, Desk::Busy) {
            drop(desk);
            let before = memory::live();
            do_job(&job);
            let live = memory::live() - before;
            desk = self::desk();
            *desk = Desk::Done(live);
            CHANGED.notify_all();
        }
    }
}

fn do_job(job: &Job) {
    let things = job.things.iter().take_while(|thing| !thing.is_null());
    for (index, (&thing, release)) in things.zip(job.releases).enumerate() {
        // SAFETY: the thread that began the job keeps the things.
        let thing = unsafe { &*thing };
        // loop_call_soon_threadsafe() takes no release hook.
        let on_loop = !job.lp.is_null() && release.is_none() && job.manner & 2 << index != 0;
        let result = if on_loop {
            api::loop_call_soon_threadsafe(job.lp, thing::CALL, thing.arg())
        } else {
            api::loop_remote_call_soon(job.remote, thing::CALL, thing.arg(), release)
        };
        thing.posted.store(result, Release);
        if job.manner & 0x40 != 0 {
            api::loop_remote_wakeup(job.remote);
        }
        if job.manner & 0x80 != 0 {
            thread::yield_now();
        }
    }
    if job.stops {
        api::loop_remote_stop(job.remote);
    }
    api::loop_remote_release(job.remote);
}
