//! What is known of the loops, and the checks that all operations share.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::AtomicI32;

use super::api;
use super::io::{Buffers, Io};
use super::memory::{self, Exempt};
use super::ops::Op;
use super::streams::Pair;
use super::thing::{self, Role, State, Thing};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Open,
    /// Inside loop_shutdown(): what has ended already is not known.
    ShuttingDown,
    ShutDown,
    Closing,
    Closed,
}

/// A loop.
pub(crate) struct Lp {
    pub(crate) number: usize,
    pub(crate) ptr: *mut api::Loop,
    pub(crate) is_virtual: bool,
    pub(crate) start: u64,
    pub(crate) phase: Cell<Phase>,
    pub(crate) running: Cell<bool>,
    pub(crate) has_run: Cell<bool>,
    /// How many release hooks and walks of this loop are on the stack.
    pub(crate) user_code: Cell<u32>,
    pub(crate) in_hook: Cell<bool>,
    pub(crate) fd: Cell<c_int>,
    pub(crate) data: Cell<usize>,
    /// loop_stop() was called since a run returned last, and if inside a run in which iteration.
    pub(crate) stop_asked: Cell<bool>,
    pub(crate) stopped_in: Cell<Option<u64>>,
    pub(crate) break_asked: Cell<bool>,
    /// How many callbacks have run in this run, and how many stops had before it.
    pub(crate) ran_now: Cell<u64>,
    pub(crate) stops_before: Cell<u64>,
    pub(crate) counts: Counts,
    /// Places given to what is to run soon, and the one that ran last.
    pub(crate) places: Cell<u64>,
    pub(crate) last_place: Cell<u64>,
    pub(crate) last_place_of_worker: Cell<u64>,
    pub(crate) slow: Cell<*const Thing>,
    /// What ran last, and whether its slowness is being reported: until then it has not quite
    /// ended.
    pub(crate) last: Cell<*const Thing>,
    pub(crate) in_report: Cell<bool>,
    /// The entries of its submission queue.
    pub(crate) sq_entries: u32,
    /// Something was asked of the kernel: the ring may be bound to the thread.
    pub(crate) has_entered: Cell<bool>,
    /// The descriptor that loop_forget_fd() is at.
    pub(crate) forgetting: Cell<c_int>,
}

/// What the metrics should say.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) callbacks: Cell<u64>,
    pub(crate) fired: Cell<u64>,
    pub(crate) cancelled: Cell<u64>,
    pub(crate) skipped: Cell<u64>,
    pub(crate) posts: Cell<u64>,
    /// loop_remote_stop() posts a callback that is not seen: how many at most, and how many have
    /// run.
    pub(crate) stops: Cell<u64>,
    pub(crate) stops_run: Cell<u64>,
    pub(crate) iterations: Cell<u64>,
}

/// One owner of a remote.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) remote: *mut api::Remote,
    pub(crate) lp: Rc<Lp>,
}

pub(crate) struct Machine {
    ops: RefCell<std::vec::IntoIter<Op>>,
    pub(crate) loops: [RefCell<Option<Rc<Lp>>>; 3],
    pub(crate) made: Cell<usize>,
    pub(crate) things: RefCell<Vec<Rc<Thing>>>,
    pub(crate) remotes: RefCell<Vec<Held>>,
    /// The loops that are running, the innermost last.
    pub(crate) runs: RefCell<Vec<*mut api::Loop>>,
    /// How many callbacks there may be before they do nothing but stop.
    pub(crate) fuel: Cell<u32>,
    depth: Cell<u32>,
    fault: RefCell<Option<String>>,
    /// How many allocations the next call may make that may be refused some.
    pub(crate) room: Cell<Option<u32>>,
    /// Whether the last such call was refused any.
    pub(crate) was_refused: Cell<bool>,
    /// What the worker is doing, and with which loop.
    pub(crate) job: RefCell<Option<Vec<Rc<Thing>>>>,
    pub(crate) job_loop: Cell<*mut api::Loop>,
    pub(crate) worker_live: Cell<i64>,
    /// The streams there are, and the three in use.
    pub(crate) pairs: RefCell<Vec<Rc<Pair>>>,
    pub(crate) pairs_in_use: [RefCell<Option<Rc<Pair>>>; 3],
    /// A socket that listens, the connections to it, how many there were and how many of these
    /// came.
    pub(crate) listener: Cell<c_int>,
    pub(crate) connections: RefCell<Vec<c_int>>,
    pub(crate) connected: Cell<u64>,
    pub(crate) accepted: Cell<u64>,
    pub(crate) buffers: RefCell<Vec<Rc<Buffers>>>,
}

/// What a handle names.
pub(crate) enum Named {
    Thing(Rc<Thing>),
    Nothing,
    /// Something that no operation is to touch.
    Taboo,
}

/// What one walk has shown.
pub(crate) struct Walk<'a> {
    machine: &'a Machine,
    lp: &'a Rc<Lp>,
    shown: RefCell<Vec<*const Thing>>,
    op: Option<Op>,
}

const CALLBACKS: u32 = 300;
const DEPTH: u32 = 6;

pub(crate) fn add(counter: &Cell<u64>, number: u64) {
    counter.set(counter.get().saturating_add(number));
}

impl Lp {
    pub(crate) fn now(&self) -> u64 {
        api::loop_time(self.ptr)
    }

    pub(crate) fn is(&self, phase: Phase) -> bool {
        self.phase.get() == phase
    }

    /// The error of what may not be done during close.
    pub(crate) fn unless_closing(&self, otherwise: i64) -> i64 {
        if self.is(Phase::Closing) { no(libc::ESHUTDOWN) } else { otherwise }
    }

    /// The error of what adds something.
    pub(crate) fn if_open(&self, otherwise: i64) -> i64 {
        if self.is(Phase::Open) { otherwise } else { no(libc::ESHUTDOWN) }
    }

    pub(crate) fn metrics(&self) -> api::Metrics {
        let mut metrics =
            api::Metrics { size: size_of::<api::Metrics>() as u32, ..api::Metrics::default() };
        api::loop_metrics(self.ptr, &raw mut metrics);
        metrics
    }

    /// The number of the iteration, if callbacks run now that what is scheduled must not join (S7).
    pub(crate) fn batch(&self) -> u64 {
        if self.running.get() && !self.in_hook.get() { self.metrics().iterations } else { 0 }
    }
}

/// Signals that do nothing to a program that does not handle them, and some that nobody can handle.
pub(crate) fn signal_of(op: Op) -> c_int {
    match op.which % 16 {
        0..=6 => libc::SIGWINCH,
        7..=11 => libc::SIGURG,
        12 => libc::SIGKILL,
        13 => libc::SIGSEGV,
        14 => 0,
        _ => 65,
    }
}

pub(crate) fn no(errno: c_int) -> i64 {
    (-errno).into()
}

impl Machine {
    pub(crate) fn new(ops: Vec<Op>) -> Machine {
        Machine {
            ops: RefCell::new(ops.into_iter()),
            loops: Default::default(),
            made: Cell::new(0),
            things: RefCell::default(),
            remotes: RefCell::default(),
            runs: RefCell::default(),
            fuel: Cell::new(CALLBACKS),
            depth: Cell::new(0),
            fault: RefCell::default(),
            room: Cell::new(None),
            was_refused: Cell::new(false),
            job: RefCell::default(),
            job_loop: Cell::new(ptr::null_mut()),
            worker_live: Cell::new(0),
            pairs: RefCell::default(),
            pairs_in_use: Default::default(),
            listener: Cell::new(-1),
            connections: RefCell::default(),
            connected: Cell::new(0),
            accepted: Cell::new(0),
            buffers: RefCell::default(),
        }
    }

    /// Does all operations, closes everything, and tells the first rule that was broken.
    pub(crate) fn play(&self, setup: u8) -> Option<String> {
        for n in 0..1 + setup % 3 {
            let time = setup >> 2;
            self.new_loop(
                n.into(),
                Op {
                    verb: super::ops::Verb::New,
                    lp: 0,
                    how: setup.rotate_left(n.into()),
                    which: n,
                    time,
                },
            );
        }
        while let Some(op) = self.next_op() {
            self.step(op);
        }
        self.end(setup & 0x80 != 0);
        self.fault.take()
    }

    fn next_op(&self) -> Option<Op> {
        if self.fault.borrow().is_some() { None } else { self.ops.borrow_mut().next() }
    }

    /// Does the next few operations, if it is not too deep for that.
    pub(crate) fn perform(&self, count: u8) {
        for _ in 0..count {
            if self.depth.get() >= DEPTH || self.fuel.get() == 0 {
                return;
            }
            let Some(op) = self.next_op() else { return };
            self.depth.set(self.depth.get() + 1);
            self.step(op);
            self.depth.set(self.depth.get() - 1);
        }
    }

    /// As `perform`, from what comes after a callback: if after that of a hook, what is scheduled
    /// may join the batch.
    pub(crate) fn perform_after(&self, is_hook: bool, l: &Lp, count: u8) {
        let was_in_hook = l.in_hook.replace(is_hook || l.in_hook.get());
        self.perform(count);
        l.in_hook.set(was_in_hook);
    }

    /// Remembers the first rule that was broken. From then on nothing is done but closing.
    #[cold]
    pub(crate) fn fail(&self, what: impl FnOnce() -> String) {
        let mut fault = self.fault.borrow_mut();
        if fault.is_none() {
            *fault = Some(what());
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.fault.borrow().is_some()
    }

    pub(crate) fn require(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(what);
        }
    }

    /// A function's result is the one that the rules demand, and an error has words.
    pub(crate) fn check(&self, function: &str, result: impl Into<i64>, demanded: i64) {
        let result = result.into();
        self.require(result == demanded, || {
            format!("{function}() returned {result}, not {demanded}")
        });
        if result < 0 {
            // SAFETY: the strings live for ever.
            let (sentence, name) = unsafe {
                (
                    CStr::from_ptr(api::loop_last_error()),
                    CStr::from_ptr(api::loop_strerror(result as c_int)),
                )
            };
            let is_named = !sentence.is_empty() && name.to_bytes().first() == Some(&b'E');
            self.require(is_named, || format!("the error {result} of {function}() has no words"));
        }
    }

    /// Calls a function of the library; if an operation has asked for it, memory is refused to it.
    pub(crate) fn call<R>(&self, function: impl FnOnce() -> R) -> R {
        let (result, was_refused) = match self.room.take() {
            Some(room) => memory::refuse_after(room, function),
            None => (function(), false),
        };
        self.was_refused.set(was_refused);
        result
    }

    /// Calls a function that needs no memory (S31).
    pub(crate) fn call_without_memory<R>(&self, name: &str, function: impl FnOnce() -> R) -> R {
        let (result, has_asked) = memory::refuse_after(0, function);
        self.require(!has_asked, || format!("{name}() has asked for memory"));
        result
    }

    /// As `check`, for what `call` has called: it may also say that there is no memory.
    pub(crate) fn check_call(&self, function: &str, result: impl Into<i64>, demanded: i64) {
        let result = result.into();
        let has_failed = self.was_refused.get() && result == no(libc::ENOMEM);
        self.check(function, result, if has_failed { result } else { demanded });
    }

    pub(crate) fn new_thing(
        &self,
        lp: &Rc<Lp>,
        role: Role,
        op: Op,
        posted_release: api::Release,
    ) -> Rc<Thing> {
        let mut things = self.things.borrow_mut();
        let thing = Rc::new(Thing {
            number: things.len(),
            machine: ptr::from_ref(self),
            lp: Rc::clone(lp),
            role,
            script: op.script(),
            release_script: u8::from(op.time & 0x40 != 0),
            state: Cell::new(State::Pending),
            handle: Cell::new(0),
            when: Cell::new(u64::MAX),
            period: if role == Role::Repeat { op.amount() } else { 0 },
            skipped: Cell::new(0),
            signal: signal_of(op),
            may_run: Cell::new(0),
            has_come: Cell::new(false),
            moves: Cell::new(0),
            referenced: Cell::new(!matches!(role, Role::Hook | Role::Signal)),
            place: Cell::new(0),
            after_iteration: Cell::new(0),
            on_stack: Cell::new(false),
            ran: Cell::new(0),
            release: Cell::new(None),
            released: Cell::new(0),
            posted_release,
            posted: AtomicI32::new(thing::NOT_YET),
            by_worker: Cell::new(false),
            is_unsure: Cell::new(false),
            io: Io::new(),
        });
        things.push(Rc::clone(&thing));
        thing
    }

    /// The thing that an address is of, if it is one: what came out of the library is not trusted.
    pub(crate) fn thing_at(&self, address: *const c_void) -> Option<Rc<Thing>> {
        let things = self.things.borrow();
        things.iter().find(|thing| ptr::eq(Rc::as_ptr(thing).cast(), address)).map(Rc::clone)
    }

    pub(crate) fn things_of(&self, lp: &Lp, wanted: impl Fn(&Thing) -> bool) -> Vec<Rc<Thing>> {
        let things = self.things.borrow();
        things
            .iter()
            .filter(|thing| ptr::eq(&raw const *thing.lp, lp) && wanted(thing))
            .map(Rc::clone)
            .collect()
    }

    pub(crate) fn any_of(&self, lp: &Lp, wanted: impl Fn(&Thing) -> bool) -> Option<Rc<Thing>> {
        let things = self.things.borrow();
        things
            .iter()
            .find(|thing| ptr::eq(&raw const *thing.lp, lp) && wanted(thing))
            .map(Rc::clone)
    }

    pub(crate) fn is_new_handle(&self, lp: &Lp, handle: i64) -> bool {
        self.any_of(lp, |thing| thing.handle.get() == handle).is_none()
    }

    /// What a handle names, on an open loop.
    pub(crate) fn named(&self, lp: &Rc<Lp>, handle: i64) -> Named {
        let find = || {
            self.any_of(lp, |thing| {
                handle != 0 && thing.is_pending() && thing.handle.get() == handle
            })
        };
        let is_learnt = |thing: &Thing| {
            thing.role == Role::PostLater && thing.is_pending() && thing.handle.get() == 0
        };
        let mut found = find();
        if found.is_none() && !lp.is(Phase::Closing) && self.any_of(lp, is_learnt).is_some() {
            self.walk(lp, None);
            found = find();
        }
        match found {
            Some(thing) if thing.is_guard() => Named::Taboo,
            Some(thing) => Named::Thing(thing),
            None => Named::Nothing,
        }
    }

    /// Walks. An operation says what the callback does.
    pub(crate) fn walk(&self, lp: &Rc<Lp>, op: Option<Op>) {
        let before = self.things_of(lp, |thing| thing.is_pending() && thing.handle.get() != 0);
        let walk = Walk { machine: self, lp, shown: RefCell::default(), op };
        let demanded = lp.unless_closing(0);
        lp.user_code.set(lp.user_code.get() + 1);
        let result = api::loop_walk(lp.ptr, Some(on_walk), ptr::from_ref(&walk).cast_mut().cast());
        lp.user_code.set(lp.user_code.get() - 1);
        self.check("loop_walk", result, demanded);
        if result == 0 && lp.is(Phase::Open) {
            let shown = walk.shown.borrow();
            let left_out = before
                .iter()
                .find(|thing| thing.is_pending() && !shown.contains(&Rc::as_ptr(thing)));
            if let Some(thing) = left_out {
                self.fail(|| format!("a walk did not show {thing}"));
            }
        }
    }

    fn shown(&self, walk: &Walk<'_>, info: &api::Info) {
        let _exempt = Exempt::begin();
        let l = walk.lp;
        let Some(thing) = self.thing_at(info.arg) else {
            self.fail(|| format!("a walk showed what there is not: {info:?}"));
            return;
        };
        let is_first = !walk.shown.borrow().contains(&Rc::as_ptr(&thing));
        walk.shown.borrow_mut().push(Rc::as_ptr(&thing));
        let is_pending = thing.is_pending() && ptr::eq(&raw const *thing.lp, &raw const **l);
        if thing.role == Role::PostLater
            && thing.handle.get() == 0
            && self.is_new_handle(l, info.handle)
        {
            thing.handle.set(info.handle);
            thing.when.set(thing.when.get().max(info.when_ns));
        }
        let right = is_first
            && is_pending
            && info.size as usize == size_of::<api::Info>()
            && info.kind == thing.kind()
            && info.handle == thing.handle.get()
            && (info.when_ns == thing.when.get() || thing.io.has_had_deadline(info.when_ns))
            && info.fd == thing.io.fd.get()
            && info.referenced == thing.referenced.get();
        self.require(right, || {
            format!("a walk showed {info:?} for {thing}, due at {}", thing.when.get())
        });
        let Some(op) = walk.op else { return };
        match op.time % 4 {
            0 if !thing.is_guard() => self.cancel(l, info.handle),
            1 => self.perform(1),
            _ => {}
        }
    }

    /// The metrics are what has been counted (S35).
    pub(crate) fn check_metrics(&self, lp: &Lp) {
        let (m, counts) = (lp.metrics(), &lp.counts);
        let stops = m.callbacks.wrapping_sub(counts.callbacks.get());
        let are_right = stops >= counts.stops_run.get()
            && stops <= counts.stops.get()
            && m.timers_fired == counts.fired.get()
            && m.timers_skipped == counts.skipped.get()
            && (m.timers_cancelled == counts.cancelled.get() || !lp.is(Phase::Open))
            && m.posts <= counts.posts.get() + counts.stops.get()
            && m.posts >= stops
            && m.iterations >= counts.iterations.get()
            && m.late.iter().sum::<u64>() >= m.timers_fired
            && (!lp.is_virtual || m.asleep_ns == lp.now() - lp.start);
        self.require(are_right, || {
            format!(
                "loop {}: {m:?} does not agree with callbacks {}, fired {}, cancelled {}, skipped {}, posts {}, stops {} to {}",
                lp.number,
                counts.callbacks.get(),
                counts.fired.get(),
                counts.cancelled.get(),
                counts.skipped.get(),
                counts.posts.get(),
                counts.stops_run.get(),
                counts.stops.get(),
            )
        });
        counts.stops_run.set(stops);
        counts.iterations.set(m.iterations);
    }
}

unsafe extern "C-unwind" fn on_walk(lp: *mut api::Loop, info: *const api::Info, arg: *mut c_void) {
    // SAFETY: the argument is that of `Machine::walk`, which waits.
    let walk = unsafe { &*arg.cast::<Walk<'_>>() };
    // SAFETY: the header says that it is valid during the call.
    let info = unsafe { *info };
    walk.machine.require(lp == walk.lp.ptr, || "a walk showed another loop".into());
    walk.machine.shown(walk, &info);
}
