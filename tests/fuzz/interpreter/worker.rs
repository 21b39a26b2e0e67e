//! The second thread: it lives as long as the program, and does one job at a time.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::Ordering::Release;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use super::api;
use super::memory;
use super::thing::{self, Thing};

pub(crate) const MOST: usize = 8;

/// Posts through a remote, which may come before, while or after the loop is closed.
pub(crate) struct Job {
    /// One owner of it goes to the worker.
    pub(crate) remote: *mut api::Remote,
    /// A loop that stays open until the job is done: on this one, it calls what other threads may
    /// not.
    pub(crate) lp: *mut api::Loop,
    /// What is posted, up to the first null.
    pub(crate) things: [*const Thing; MOST],
    pub(crate) flags: u8,
    /// Whether it ends with a stop.
    pub(crate) stops: bool,
}

// SAFETY: a remote is for any thread; the things live until the job is done, and the worker touches
// of them only what is atomic; the loop is open until the job is done.
unsafe impl Send for Job {}

pub(crate) struct Outcome {
    /// What the worker has allocated less what it has freed.
    pub(crate) live: i64,
    /// The first call from the wrong thread that was not refused.
    pub(crate) not_refused: Option<&'static str>,
}

enum Desk {
    Idle,
    Asked(Job),
    Busy,
    Done(Outcome),
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

/// Begins a job. The one before has been waited for.
pub(crate) fn begin(job: Job) {
    *desk() = Desk::Asked(job);
    CHANGED.notify_all();
}

/// Waits until the job is done.
pub(crate) fn finish() -> Outcome {
    let mut desk = desk();
    loop {
        match std::mem::replace(&mut *desk, Desk::Idle) {
            Desk::Done(outcome) => return outcome,
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
            let not_refused = do_job(&job);
            let live = memory::live() - before;
            desk = self::desk();
            *desk = Desk::Done(Outcome { live, not_refused });
            CHANGED.notify_all();
        }
    }
}

fn do_job(job: &Job) -> Option<&'static str> {
    let mut not_refused = None;
    for (index, &thing) in job.things.iter().take_while(|thing| !thing.is_null()).enumerate() {
        // SAFETY: whoever gave the job keeps the things.
        let thing = unsafe { &*thing };
        let arg = ptr::from_ref(thing).cast_mut().cast::<c_void>();
        // loop_call_soon_threadsafe() takes no release hook.
        let on_loop = !job.lp.is_null()
            && thing.posted_release.is_none()
            && job.flags & 1 << (index % 8) != 0;
        let result = if on_loop {
            api::loop_call_soon_threadsafe(job.lp, thing::CALL, arg)
        } else {
            api::loop_remote_call_soon(job.remote, thing::CALL, arg, thing.posted_release)
        };
        thing.posted.store(result, Release);
        if !job.lp.is_null() {
            not_refused = not_refused.or_else(|| call_what_is_refused(job.lp, arg));
        }
        if job.flags & 0x40 != 0 {
            api::loop_remote_wakeup(job.remote);
        }
        if job.flags & 0x80 != 0 {
            thread::yield_now();
        }
    }
    if job.stops {
        api::loop_remote_stop(job.remote);
    }
    api::loop_remote_release(job.remote);
    not_refused
}

/// What is for the loop's thread alone says EPERM here, or nothing.
fn call_what_is_refused(lp: *mut api::Loop, arg: *mut c_void) -> Option<&'static str> {
    let mut number = 7;
    let mut remote = ptr::null_mut();
    let mut metrics =
        api::Metrics { size: size_of::<api::Metrics>() as u32, ..api::Metrics::default() };
    let results = [
        ("call_soon", api::loop_call_soon(lp, thing::CALL, arg)),
        ("call_at", api::loop_call_at(lp, 5, thing::CALL, arg)),
        ("call_every", api::loop_call_every(lp, 5, thing::CALL, arg)),
        ("add_hook", api::loop_add_hook(lp, 1, thing::CALL, arg)),
        ("cancel", api::loop_cancel(lp, 1 << 32).into()),
        ("reschedule", api::loop_reschedule(lp, 1 << 32, 5).into()),
        ("when", api::loop_when(lp, 1 << 32, &raw mut number).into()),
        ("skipped", api::loop_skipped(lp, 1 << 32, &raw mut number).into()),
        ("ref", api::loop_ref(lp, 1 << 32).into()),
        ("unref", api::loop_unref(lp, 1 << 32).into()),
        ("on_release", api::loop_on_release(lp, 1 << 32, None).into()),
        ("run_once", api::loop_run_once(lp, 0).into()),
        ("run", api::loop_run(lp).into()),
        ("stop", api::loop_stop(lp).into()),
        ("break", api::loop_break(lp).into()),
        ("shutdown", api::loop_shutdown(lp).into()),
        ("close", api::loop_close(lp).into()),
        ("remote_new", api::loop_remote_new(lp, &raw mut remote).into()),
        ("fd", api::loop_fd(lp).into()),
        ("flush", api::loop_flush(lp).into()),
        ("metrics", api::loop_metrics(lp, &raw mut metrics).into()),
        ("set_slow_callback", api::loop_set_slow_callback(lp, 1, None, arg).into()),
    ];
    let is_quiet = !api::loop_is_pending(lp, 1 << 32)
        && !api::loop_is_running(lp)
        && !api::loop_is_alive(lp)
        && api::loop_current(lp) == 0
        && api::loop_data(lp).is_null()
        && api::loop_next_deadline(lp) == u64::MAX
        && api::loop_running().is_null()
        && number == 7
        && remote.is_null();
    api::loop_time(lp);
    results
        .iter()
        .find(|(_, result)| *result != i64::from(-libc::EPERM))
        .map(|(name, _)| *name)
        .or(if is_quiet { None } else { Some("a function that carries no error") })
}
