//! Actions: running and stopping.

use std::ops::Range;
use std::ptr;
use std::rc::Rc;

use libc::{EBUSY, EINTR, ENOMEM};

use super::api;
use super::language::{Byte, Face, Few};
use super::machine::{Lp, Machine, add, no};
use super::thing::{self, Role, State, Thing};

/// The time that a run may take on the real clock.
const REAL_LIMIT: u64 = 100_000;

impl Machine {
    pub(crate) fn stop(&self, l: &Lp) {
        let demanded = l.unless_closing(0);
        if demanded == 0 {
            l.stop_asked.set(true);
            if l.running.get() && l.stopped_in.get().is_none() {
                let mut metrics = api::Metrics { size: 16, ..api::Metrics::default() };
                api::loop_metrics(l.ptr, &raw mut metrics);
                l.stopped_in.set(Some(metrics.iterations));
            }
        }
        let result = self.call_without_memory("loop_stop", || (self.face().stop)(l.ptr));
        self.check("loop_stop", result, demanded);
    }

    /// The error that a run on this loop returns now, if any.
    pub(crate) fn refusal(l: &Lp) -> Option<i64> {
        let demanded = l.if_open(if l.running.get() { no(EBUSY) } else { 0 });
        if demanded == 0 { None } else { Some(demanded) }
    }

    /// Runs, with a timer that stops the run after `limit` if nothing else ends it.
    pub(crate) fn run(&self, l: &Rc<Lp>, limit: u64, may_be_done: bool) {
        let face = self.face();
        let run = if may_be_done { face.run } else { face.run_forever };
        if let Some(demanded) = Machine::refusal(l) {
            return self.check("loop_run", run(l.ptr), demanded);
        }
        let delay = if l.is_virtual { limit.max(1) } else { REAL_LIMIT };
        if l.now().checked_add(delay).is_none_or(|when| when == u64::MAX) {
            // Such a timer would never be due.
            return self.run_once(l, 0);
        }
        if self.has_operations(l) {
            self.guard_real_time(l);
        }
        let guard = self.schedule_guard(l, delay);
        self.run_unguarded(l, may_be_done, run);
        self.end_guard(l, &guard);
    }

    pub(crate) fn schedule_guard(&self, l: &Rc<Lp>, delay: u64) -> Rc<Thing> {
        let guard = self.new_thing(l, Role::Guard, 0..0);
        guard.handle.set(api::loop_call_later(l.ptr, delay, thing::CALL, guard.arg()));
        self.require(guard.handle.get() > 0, || format!("there is no {guard}"));
        l.scheduled(&guard);
        let result = api::loop_when(l.ptr, guard.handle.get(), guard.when.as_ptr());
        self.check("loop_when", result, 0);
        guard.referenced.set(false);
        self.check("loop_unref", api::loop_unref(l.ptr, guard.handle.get()), 0);
        guard
    }

    pub(crate) fn end_guard(&self, l: &Lp, guard: &Thing) {
        if guard.is_pending() {
            guard.state.set(State::Cancelled);
            l.unscheduled(guard);
            add(&l.counts.cancelled, 1);
            self.check("loop_cancel", api::loop_cancel(l.ptr, guard.handle.get()), 0);
        }
    }

    pub(crate) fn begin_run(&self, l: &Lp) {
        l.running.set(true);
        l.has_run.set(true);
        if self.room.get().is_some() {
            l.lose_order();
        }
        l.may_panic.set(self.by.get() == Face::Rust);
        l.ran_now.set(0);
        l.stops_before.set(l.counts.stops_run.get());
        self.runs.borrow_mut().push(l.ptr);
    }

    /// Returns whether a stop was requested. The request survives a run that has failed.
    pub(crate) fn end_run(&self, l: &Lp, has_failed: bool) -> bool {
        l.running.set(false);
        self.runs.borrow_mut().pop();
        self.check_owed(l);
        self.check_batch_ended(l);
        self.check_metrics(l);
        l.may_panic.set(false);
        l.run_until.set(u64::MAX);
        let was_asked = l.stop_asked.get() || l.counts.stops_run.get() > l.stops_before.get();
        l.stop_asked.set(has_failed && was_asked);
        l.stopped_in.set(None);
        l.break_asked.set(false);
        let outer = self.runs.borrow().last().copied().unwrap_or(ptr::null_mut());
        self.require(api::loop_running() == outer, || "loop_running() is wrong after a run".into());
        was_asked
    }

    pub(crate) fn run_unguarded(
        &self,
        l: &Rc<Lp>,
        may_be_done: bool,
        run: extern "C" fn(*mut api::Loop) -> i32,
    ) {
        self.begin_run(l);
        let panics = l.panics.get();
        let result: i64 = self.call(|| run(l.ptr)).into();
        let has_panicked =
            result == api::PANICKED.into() && !l.handles_panics && l.panics.get() > panics;
        let has_failed = has_panicked || self.was_refused.get() && result == no(ENOMEM);
        let (stopped_inside, break_asked) = (l.stopped_in.get().is_some(), l.break_asked.get());
        let stop_asked = self.end_run(l, has_failed);
        let right = match result {
            api::BROKEN => break_asked,
            api::STOPPED => stop_asked && !break_asked,
            api::DONE => may_be_done && !stopped_inside && !break_asked,
            _ => has_failed,
        };
        self.require(right, || {
            format!(
                "a run returned {result}: stop asked {stop_asked}, inside {stopped_inside}, break asked {break_asked}"
            )
        });
        if result == api::DONE {
            let is_left = |thing: &Thing| {
                thing.is_pending() && thing.referenced.get() && !thing.is_unsure.get()
            };
            if let Some(thing) = self.things_of(l, is_left).first() {
                self.fail(|| format!("a run ended as done with pending {thing}"));
            }
        }
    }

    pub(crate) fn run_once(&self, l: &Rc<Lp>, limit: u64) {
        let is_timeless = l.is_virtual && !self.has_operations(l);
        let limit = if is_timeless { limit } else { limit.min(REAL_LIMIT) };
        let run_once = self.face().run_once;
        if let Some(demanded) = Machine::refusal(l) {
            return self.check("loop_run_once", run_once(l.ptr, limit), demanded);
        }
        let limit = if limit == u64::MAX { u64::MAX - 1 } else { limit };
        let before = l.now();
        let due: Vec<_> =
            self.things_of(l, |thing| is_due(thing, before)).iter().map(Due::new).collect();
        self.begin_run(l);
        l.run_until.set(before.saturating_add(limit));
        let (wake_up, is_stopped, panics) = (self.wake_up(l), l.stop_asked.get(), l.panics.get());
        let result: i64 = self.call(|| run_once(l.ptr, limit)).into();
        let has_panicked =
            result == api::PANICKED.into() && !l.handles_panics && l.panics.get() > panics;
        let has_failed = has_panicked || self.was_refused.get() && result == no(ENOMEM);
        let ran = l.ran_now.get() as i64;
        // After a refused allocation, a due thing stays due.
        let is_whole =
            !has_panicked && !l.break_asked.get() && !self.was_refused.get() && result >= 0;
        self.end_run(l, has_failed);
        if let Some(due) = due.iter().find(|due| is_whole && due.is_left()) {
            self.fail(|| format!("{} was due, and one iteration has not run it", due.thing));
        }
        let stops = (l.counts.stops_run.get() - l.stops_before.get()) as i64;
        let was_interrupted = result == no(EINTR) && ran == 0 && !l.is_virtual;
        self.require(result == ran + stops || was_interrupted || has_failed, || {
            format!("loop_run_once() returned {result} after {ran} callbacks and {stops} stops")
        });
        let slept = l.now() - before;
        // Only scheduling was done, so nothing else can cut a sleep short.
        let is_cut = l.is_plain.get() && result == 0 && !is_stopped && !self.was_refused.get();
        let least = limit.min(wake_up.saturating_sub(before));
        self.require((!l.is_virtual || slept <= limit) && (!is_cut || slept >= least), || {
            format!("loop_run_once({limit}) slept {slept} ns")
        });
    }

    /// A run that another thread ends; it may sleep in the kernel.
    pub(crate) fn run_until_worker(
        &self,
        l: &Rc<Lp>,
        posts: Few,
        manner: Byte,
        script: Range<usize>,
    ) {
        if Machine::refusal(l).is_some() || self.remotes.borrow().len() >= 16 {
            return;
        }
        self.finish_job();
        self.new_remote(l);
        let Some(held) = self.remotes.borrow().last().cloned() else { return };
        self.ask_worker(&held, posts, manner, script, true);
        self.run_unguarded(l, false, self.face().run_forever);
    }
}

/// Whether the thing must run in the next iteration.
pub(crate) fn is_due(thing: &Thing, now: u64) -> bool {
    thing.is_pending()
        && !thing.is_unsure.get()
        && match thing.role {
            Role::Call | Role::Post => true,
            Role::Timer | Role::Repeat | Role::Guard => {
                thing.when.get() <= now && thing.when.get() != u64::MAX
            }
            Role::Signal => thing.has_come.get(),
            Role::Operation => thing.completes_at_once(),
            // The delay of a post begins when the loop has taken the post.
            Role::PostLater
            | Role::Hook
            | Role::Slow
            | Role::Work
            | Role::Watch
            | Role::Task
            | Role::RealGuard => false,
        }
}

/// A thing that was due before a run, with its counts at that time.
struct Due {
    thing: Rc<Thing>,
    ran: u32,
    moves: u32,
}

impl Due {
    fn new(thing: &Rc<Thing>) -> Due {
        Due { thing: Rc::clone(thing), ran: thing.ran.get(), moves: thing.moves.get() }
    }

    /// Whether the thing is unchanged: it has not begun, and was neither cancelled nor moved.
    fn is_left(&self) -> bool {
        let thing = &self.thing;
        thing.is_pending() && thing.ran.get() == self.ran && thing.moves.get() == self.moves
    }
}
