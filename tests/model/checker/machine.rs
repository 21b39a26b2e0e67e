//! The state of the loops in the model, and the checks that all operations share.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::AtomicI32;

use super::api;
use super::face;
use super::io::{Buffers, Io};
use super::language::{Face, Line, Program, Shown};
use super::memory::{self, Exempt};
use super::order::Order;
use super::streams::Pair;
use super::tasks::Task;
use super::thing::{self, Role, State, Thing};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Open,
    /// Inside loop_shutdown(): the model does not know which things have ended.
    ShuttingDown,
    ShutDown,
    Closing,
    Closed,
}

/// The state of a loop.
pub(crate) struct Lp {
    pub(crate) number: usize,
    pub(crate) ptr: *mut api::Loop,
    pub(crate) is_virtual: bool,
    pub(crate) start: u64,
    pub(crate) phase: Cell<Phase>,
    pub(crate) running: Cell<bool>,
    pub(crate) has_run: Cell<bool>,
    /// The number of release hooks and walks of this loop on the stack.
    pub(crate) user_code: Cell<u32>,
    pub(crate) in_hook: Cell<bool>,
    pub(crate) fd: Cell<c_int>,
    /// Whether loop_stop() was called since the last run returned, and in which iteration of a run.
    pub(crate) stop_asked: Cell<bool>,
    pub(crate) stopped_in: Cell<Option<u64>>,
    pub(crate) break_asked: Cell<bool>,
    /// The number of callbacks in this run, and the number of stops that had run before it.
    pub(crate) ran_now: Cell<u64>,
    pub(crate) stops_before: Cell<u64>,
    pub(crate) counts: Counts,
    pub(crate) slack: u64,
    pub(crate) order: Order,
    /// The lowest number that the next post of the worker may have.
    pub(crate) worker_number: Cell<usize>,
    /// Only scheduling was done with the loop: the model knows all that happens on it.
    pub(crate) is_plain: Cell<bool>,
    /// The latest end of the run, and whether the run ended before its batch did.
    pub(crate) run_until: Cell<u64>,
    pub(crate) is_broken_off: Cell<bool>,
    /// Exception handler; whether a panic may leave the run; panics, and handled panics.
    pub(crate) handles_panics: bool,
    pub(crate) may_panic: Cell<bool>,
    /// A task has panicked: its panic goes to the handler, or to the code that joins it.
    pub(crate) has_panicked_task: Cell<bool>,
    pub(crate) panics: Cell<u64>,
    pub(crate) panics_handled: Rc<Cell<u64>>,
    pub(crate) slow: Cell<*const Thing>,
    /// The callback that ran last, and whether its slowness is being reported: the callback ends
    /// only after the report.
    pub(crate) last: Cell<*const Thing>,
    pub(crate) in_report: Cell<bool>,
    /// The size of the submission queue.
    pub(crate) sq_entries: u32,
    /// An entry was submitted: the ring may be bound to the thread.
    pub(crate) has_entered: Cell<bool>,
    /// The descriptor that loop_forget_fd() is processing.
    pub(crate) forgetting: Cell<c_int>,
}

/// The expected values of the metrics.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) callbacks: Cell<u64>,
    pub(crate) fired: Cell<u64>,
    pub(crate) cancelled: Cell<u64>,
    pub(crate) skipped: Cell<u64>,
    pub(crate) posts: Cell<u64>,
    /// loop_remote_stop() posts a callback that the model does not see: the highest possible number
    /// of these, and the number that has run.
    pub(crate) stops: Cell<u64>,
    pub(crate) stops_run: Cell<u64>,
    pub(crate) iterations: Cell<u64>,
}

/// An owner of a remote.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) remote: *mut api::Remote,
    pub(crate) lp: Rc<Lp>,
}

#[derive(Default)]
pub(crate) struct Machine {
    program: Program,
    /// The number of lines that may still run.
    lines_left: Cell<u32>,
    /// The face of the line that is running.
    pub(crate) by: Cell<Face>,
    /// The callbacks on the stack, the innermost last.
    pub(crate) stack: RefCell<Vec<*const Thing>>,
    pub(crate) loops: [RefCell<Option<Rc<Lp>>>; 3],
    pub(crate) made: Cell<usize>,
    pub(crate) things: RefCell<Vec<Rc<Thing>>>,
    pub(crate) remotes: RefCell<Vec<Held>>,
    /// The loops that are running, the innermost last.
    pub(crate) runs: RefCell<Vec<*mut api::Loop>>,
    /// The number of callbacks after which all further ones only stop the loop.
    pub(crate) fuel: Cell<u32>,
    depth: Cell<u32>,
    fault: RefCell<Option<String>>,
    /// The number of allocations after which the next call is refused memory, if any.
    pub(crate) room: Cell<Option<u32>>,
    /// Whether the last such call was refused memory.
    pub(crate) was_refused: Cell<bool>,
    /// The posts that the worker makes, and their loop if it stays open meanwhile.
    pub(crate) job: RefCell<Option<Vec<Rc<Thing>>>>,
    pub(crate) job_loop: Cell<Option<usize>>,
    pub(crate) worker_live: Cell<i64>,
    /// All streams, and the three in use.
    pub(crate) pairs: RefCell<Vec<Rc<Pair>>>,
    pub(crate) pairs_in_use: [RefCell<Option<Rc<Pair>>>; 3],
    /// The listening socket, the connections to it, the number of all connections, and the number
    /// of accepted ones.
    pub(crate) listener: Cell<c_int>,
    pub(crate) connections: RefCell<Vec<c_int>>,
    pub(crate) connected: Cell<u64>,
    pub(crate) accepted: Cell<u64>,
    pub(crate) buffers: RefCell<Vec<Rc<Buffers>>>,
}

/// The object that a handle names.
pub(crate) enum Named {
    Thing(Rc<Thing>),
    Nothing,
    /// A thing that no operation may touch.
    Taboo,
}

/// The things that one walk has shown.
pub(crate) struct Walk<'a> {
    machine: &'a Machine,
    lp: &'a Rc<Lp>,
    shown: RefCell<Vec<*const Thing>>,
    shows: Option<(Shown, Range<usize>)>,
}

const CALLBACKS: u32 = 300;
const LINES: u32 = 600;
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

    /// The result of a call that is not allowed during close.
    pub(crate) fn unless_closing(&self, otherwise: i64) -> i64 {
        if self.is(Phase::Closing) { no(libc::ESHUTDOWN) } else { otherwise }
    }

    /// The result of a call that adds something.
    pub(crate) fn if_open(&self, otherwise: i64) -> i64 {
        if self.is(Phase::Open) { otherwise } else { no(libc::ESHUTDOWN) }
    }

    pub(crate) fn metrics(&self) -> api::Metrics {
        let mut metrics =
            api::Metrics { size: size_of::<api::Metrics>() as u32, ..api::Metrics::default() };
        api::loop_metrics(self.ptr, &raw mut metrics);
        metrics
    }

    /// The current iteration, or 0 if things that are scheduled now may join the batch (S7).
    pub(crate) fn batch(&self) -> u64 {
        if self.running.get() && !self.in_hook.get() { self.metrics().iterations } else { 0 }
    }
}

pub(crate) fn no(errno: c_int) -> i64 {
    (-errno).into()
}

impl Machine {
    pub(crate) fn new(program: Program) -> Machine {
        Machine {
            program,
            lines_left: Cell::new(LINES),
            fuel: Cell::new(CALLBACKS),
            listener: Cell::new(-1),
            ..Machine::default()
        }
    }

    /// Runs the program, closes everything, and returns the first rule that was broken.
    pub(crate) fn play(&self) -> Option<String> {
        self.perform(0..self.program.0.len());
        self.end();
        self.fault.take()
    }

    /// Runs these lines, each with those below it, up to a maximum depth.
    pub(crate) fn perform(&self, mut lines: Range<usize>) {
        while self.depth.get() < DEPTH
            && let Some((line, below)) = self.next_line(&mut lines)
        {
            self.do_line(line, below);
        }
    }

    /// Takes the first of these lines, and those below it, if one more line may run.
    pub(crate) fn next_line(&self, lines: &mut Range<usize>) -> Option<(Line, Range<usize>)> {
        if lines.start >= lines.end || self.fuel.get() == 0 || self.has_failed() {
            return None;
        }
        self.lines_left.set(self.lines_left.get().checked_sub(1)?);
        let (line, below) = (self.program.0[lines.start], self.program.below(lines.start));
        lines.start = below.end;
        Some((line, below))
    }

    pub(crate) fn do_line(&self, line: Line, below: Range<usize>) {
        self.depth.set(self.depth.get() + 1);
        let by = self.by.replace(line.by);
        self.step(line, below);
        self.by.set(by);
        self.depth.set(self.depth.get() - 1);
    }

    /// The functions of the face that the line names.
    pub(crate) fn face(&self) -> &'static face::Face {
        face::of(self.by.get())
    }

    /// Runs lines as `perform` does, after a callback has returned. After a hook, a thing that is
    /// scheduled may join the batch.
    pub(crate) fn perform_after(&self, is_hook: bool, l: &Lp, lines: Range<usize>) {
        let was_in_hook = l.in_hook.replace(is_hook || l.in_hook.get());
        self.perform(lines);
        l.in_hook.set(was_in_hook);
    }

    /// Stores the first rule that was broken. After that, the program only closes its loops.
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

    /// Checks that a function returned the demanded result, and that an error has a sentence.
    pub(crate) fn check(&self, function: &str, result: impl Into<i64>, demanded: i64) {
        let result = result.into();
        self.require(result == demanded, || {
            format!("{function}() returned {result}, not {demanded}")
        });
        // A function for signal handlers does not change the sentence.
        let has_words = !matches!(function, "loop_wakeup" | "loop_remote_wakeup");
        if result < 0 && has_words && self.by.get() == Face::C {
            // SAFETY: the strings are never freed.
            let (sentence, name) = unsafe {
                (
                    CStr::from_ptr(api::loop_last_error()),
                    CStr::from_ptr(api::loop_strerror(result as c_int)),
                )
            };
            let is_named = !sentence.is_empty() && name.to_bytes().first() == Some(&b'E');
            self.require(is_named, || format!("the error {result} of {function}() has no text"));
        }
    }

    /// Calls a function of the library, with memory refused if an action has asked for this.
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

    /// Checks a result of `call` as `check` does; the result may also be ENOMEM.
    pub(crate) fn check_call(&self, function: &str, result: impl Into<i64>, demanded: i64) {
        let result = result.into();
        let has_failed = self.was_refused.get() && result == no(libc::ENOMEM);
        self.check(function, result, if has_failed { result } else { demanded });
    }

    pub(crate) fn new_thing(&self, lp: &Rc<Lp>, role: Role, script: Range<usize>) -> Rc<Thing> {
        let mut things = self.things.borrow_mut();
        let can_be_rust = matches!(role, Role::Call | Role::Timer | Role::Repeat);
        let thing = Rc::new(Thing {
            number: things.len(),
            machine: ptr::from_ref(self),
            lp: Rc::clone(lp),
            role,
            script,
            release_script: RefCell::default(),
            state: Cell::new(State::Pending),
            handle: Cell::new(0),
            when: Cell::new(u64::MAX),
            period: Cell::new(0),
            is_after_wait: Cell::new(false),
            skipped: Cell::new(0),
            signal: Cell::new(0),
            may_run: Cell::new(0),
            has_come: Cell::new(false),
            moves: Cell::new(0),
            referenced: Cell::new(!matches!(role, Role::Hook | Role::Signal)),
            order: Cell::new(0),
            is_queued: Cell::new(false),
            is_rust: can_be_rust && self.by.get() == Face::Rust || role == Role::Task,
            dropped: Cell::new(0),
            panics: Cell::new(false),
            after_iteration: Cell::new(0),
            on_stack: Cell::new(false),
            ran: Cell::new(0),
            release: Cell::new(None),
            released: Cell::new(0),
            posted: AtomicI32::new(thing::NOT_YET),
            by_worker: Cell::new(false),
            is_unsure: Cell::new(false),
            task: Task::default(),
            io: Io::new(),
        });
        things.push(Rc::clone(&thing));
        thing
    }

    /// The thing at an address, if there is one: addresses from the library are not trusted.
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

    /// The object that a handle names, on an open loop.
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

    /// Walks; `shows` has the lines that the walk's callback runs.
    pub(crate) fn walk(&self, lp: &Rc<Lp>, shows: Option<(Shown, Range<usize>)>) {
        let before = self.things_of(lp, |thing| thing.is_pending() && thing.handle.get() != 0);
        let walk = Walk { machine: self, lp, shown: RefCell::default(), shows };
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
        let is_shown = |thing: &Thing| {
            thing.is_rust && thing.is_pending() && thing.handle.get() == info.handle
        };
        let Some(thing) = self.thing_at(info.arg).or_else(|| self.any_of(l, is_shown)) else {
            self.fail(|| format!("a walk showed a thing that does not exist: {info:?}"));
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
        let is_only = walk.shown.borrow().len() == 1;
        match &walk.shows {
            Some((Shown::Cancelled, _)) if is_only && !thing.is_guard() => {
                self.cancel(l, info.handle)
            }
            Some((_, script)) if is_only => self.perform(script.clone()),
            _ => {}
        }
    }

    /// The metrics equal the model's counts (S35).
    pub(crate) fn check_metrics(&self, lp: &Lp) {
        let (m, counts) = (lp.metrics(), &lp.counts);
        let stops = m.callbacks.wrapping_sub(counts.callbacks.get());
        let are_right = stops >= counts.stops_run.get()
            && stops <= counts.stops.get()
            && (m.timers_fired == counts.fired.get() || lp.has_lost_order())
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
    // SAFETY: the argument is that of `Machine::walk`, which is still running.
    let walk = unsafe { &*arg.cast::<Walk<'_>>() };
    // SAFETY: the header promises that `info` is valid during the call.
    let info = unsafe { *info };
    walk.machine.require(lp == walk.lp.ptr, || "a walk showed another loop".into());
    walk.machine.shown(walk, &info);
}
