//! The ledger: each thing that was scheduled, and its state. The address of a thing is the `arg` of
//! all its callbacks.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicI32, Ordering::AcqRel};

use super::api;
use super::io::Io;
use super::machine::{Lp, Machine, Phase};
use super::memory::Exempt;
use super::tasks::Task;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Call,
    Timer,
    Repeat,
    Hook,
    Signal,
    /// A post, which has no handle.
    Post,
    /// A delayed post; the model learns its handle by walking.
    PostLater,
    /// Stops a run that would not end by itself. No operation touches it.
    Guard,
    /// A handler for slow callbacks.
    Slow,
    Operation,
    /// Work off the loop.
    Work,
    Watch,
    Task,
    /// An operation that ends after a while, and then stops a run that would wait for others.
    RealGuard,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Pending,
    /// The thing runs once, and its callback has begun.
    Ran,
    Cancelled,
    /// Was pending when its loop was shut down or closed.
    Closed,
    Refused,
}

pub(crate) struct Thing {
    pub(crate) number: usize,
    pub(crate) machine: *const Machine,
    pub(crate) lp: Rc<Lp>,
    pub(crate) role: Role,
    /// The lines that the callback runs, and the lines that the release hook runs.
    pub(crate) script: Range<usize>,
    pub(crate) release_script: RefCell<Range<usize>>,
    pub(crate) state: Cell<State>,
    /// 0 when the handle is not known.
    pub(crate) handle: Cell<i64>,
    /// The deadline; for a delayed post, a time before which it must not run.
    pub(crate) when: Cell<u64>,
    pub(crate) period: Cell<u64>,
    /// For a signal handler: its signal, how often it may run, and whether the signal has come
    /// since the last run. A signal that comes while the handler is queued is reported again.
    pub(crate) signal: Cell<c_int>,
    pub(crate) may_run: Cell<u32>,
    pub(crate) has_come: Cell<bool>,
    /// For a hook: its point.
    pub(crate) is_after_wait: Cell<bool>,
    pub(crate) skipped: Cell<u64>,
    pub(crate) referenced: Cell<bool>,
    /// The number of times that the thing was rescheduled.
    pub(crate) moves: Cell<u32>,
    /// The number of its last scheduling, and whether it is in the ready queue or the batch.
    pub(crate) order: Cell<u64>,
    pub(crate) is_queued: Cell<bool>,
    /// Whether it was scheduled through the Rust API; the number of drops of the value that its
    /// callback carries; whether its callback panics when it ends.
    pub(crate) is_rust: bool,
    pub(crate) dropped: Cell<u32>,
    pub(crate) panics: Cell<bool>,
    /// The iteration in whose callback the thing was scheduled: the thing runs in a later one.
    pub(crate) after_iteration: Cell<u64>,
    pub(crate) on_stack: Cell<bool>,
    pub(crate) ran: Cell<u32>,
    /// The release hook that is set.
    pub(crate) release: Cell<Option<u8>>,
    pub(crate) released: Cell<u32>,
    /// The result of posting in the worker; `NOT_YET` before.
    pub(crate) posted: AtomicI32,
    pub(crate) by_worker: Cell<bool>,
    /// The worker posts the thing: its acceptance is known only when the job is done.
    pub(crate) is_unsure: Cell<bool>,
    pub(crate) task: Task,
    /// The state of an operation, a watcher or work.
    pub(crate) io: Io,
}

pub(crate) const NOT_YET: i32 = i32::MIN;

pub(crate) const CALL: api::Callback = Some(on_call);
pub(crate) const SIGNAL: api::SignalCallback = Some(on_signal);
pub(crate) const IO: api::IoCallback = Some(on_io);
pub(crate) const RECV: api::RecvCallback = Some(on_recv);
pub(crate) const WATCH: api::FdCallback = Some(on_ready);
pub(crate) const WORK: api::Work = Some(work);
pub(crate) const DONE: api::Done = Some(on_done);
pub(crate) const SLOW: api::SlowCallback = Some(on_slow);

/// The release hooks; each passes its own number.
pub(crate) fn release_hook(which: u8) -> api::Release {
    Some(match which {
        0 => on_release::<0>,
        _ => on_release::<1>,
    })
}

impl Thing {
    pub(crate) fn arg(&self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.state.get() == State::Pending && self.role != Role::Slow
    }

    /// Whether the thing may run more than once.
    pub(crate) fn stays(&self) -> bool {
        matches!(self.role, Role::Repeat | Role::Hook | Role::Signal | Role::Watch | Role::Task)
            || self.role == Role::Operation && self.io.has_many()
    }

    pub(crate) fn is_timer(&self) -> bool {
        matches!(self.role, Role::Timer | Role::Repeat | Role::PostLater | Role::Guard)
    }

    /// Whether no operation may touch the thing.
    pub(crate) fn is_guard(&self) -> bool {
        matches!(self.role, Role::Guard | Role::RealGuard)
    }

    pub(crate) fn kind(&self) -> u32 {
        match self.role {
            Role::Call | Role::Post => api::KIND_CALL,
            Role::Timer | Role::PostLater | Role::Guard => api::KIND_TIMER,
            Role::Repeat => api::KIND_REPEAT,
            Role::Hook => api::KIND_HOOK,
            Role::Signal => api::KIND_SIGNAL,
            Role::Slow => 0,
            Role::Operation | Role::RealGuard => api::KIND_OPERATION,
            Role::Watch => api::KIND_WATCH,
            Role::Work => api::KIND_WORK,
            Role::Task => api::KIND_TASK,
        }
    }

    pub(crate) fn machine(&self) -> &Machine {
        // SAFETY: the machine outlives its things.
        unsafe { &*self.machine }
    }
}

impl Thing {
    /// The value that the callback carries is dropped.
    pub(crate) fn was_dropped(&self) {
        let _exempt = Exempt::begin();
        self.dropped.set(self.dropped.get() + 1);
        let is_due = self.state.get() != State::Pending
            || self.handle.get() == 0
            || matches!(self.lp.phase.get(), Phase::ShuttingDown | Phase::Closing);
        let is_right =
            is_due && !self.on_stack.get() && self.dropped.get() == 1 && self.released.get() == 0;
        self.machine().require(is_right, || format!("the value that {self} carries was dropped"));
        self.tell_joiner();
    }
}

impl std::fmt::Display for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (role, number, state, handle) =
            (self.role, self.number, self.state.get(), self.handle.get());
        write!(f, "{role:?} {number} of loop {} ({state:?}, handle {handle:#x})", self.lp.number)
    }
}

/// The thing at an address that the library passes.
fn of<'a>(arg: *mut c_void) -> &'a Thing {
    // SAFETY: the argument is that of a thing, which the machine keeps until all loops are closed.
    unsafe { &*arg.cast() }
}

extern "C-unwind" fn on_call(lp: *mut api::Loop, arg: *mut c_void) {
    of(arg).machine().called(of(arg), lp);
}

extern "C-unwind" fn on_signal(lp: *mut api::Loop, signal: c_int, arg: *mut c_void) {
    of(arg).machine().signalled(of(arg), lp, signal);
}

extern "C-unwind" fn on_io(lp: *mut api::Loop, result: i32, flags: u32, arg: *mut c_void) {
    of(arg).machine().arrived(of(arg), lp, result, flags, ptr::null());
}

extern "C-unwind" fn on_recv(
    lp: *mut api::Loop,
    result: i32,
    data: *const c_void,
    flags: u32,
    arg: *mut c_void,
) {
    of(arg).machine().arrived(of(arg), lp, result, flags, data.cast());
}

extern "C-unwind" fn on_ready(lp: *mut api::Loop, fd: c_int, events: u32, arg: *mut c_void) {
    of(arg).machine().ready(of(arg), lp, fd, events);
}

extern "C-unwind" fn work(arg: *mut c_void) {
    // The worker uses only atomic fields of the thing.
    of(arg).io.worked.fetch_add(1, AcqRel);
}

extern "C-unwind" fn on_done(lp: *mut api::Loop, status: c_int, arg: *mut c_void) {
    of(arg).machine().done(of(arg), lp, status);
}

extern "C-unwind" fn on_release<const WHICH: u8>(arg: *mut c_void) {
    of(arg).machine().released(of(arg), WHICH);
}

extern "C-unwind" fn on_slow(
    lp: *mut api::Loop,
    duration: u64,
    kind: u32,
    address: *mut c_void,
    arg: *mut c_void,
) {
    of(arg).machine().was_slow(of(arg), lp, duration, kind, address);
}
