//! Callbacks and release hooks that the library calls, and the checks in them.

use std::ffi::{c_int, c_void};
use std::ptr;

use super::api;
use super::io::Kind;
use super::language::Face;
use super::machine::{Lp, Machine, Phase, add};
use super::memory::Exempt;
use super::thing::{self, Role, State, Thing};
use super::worker;

impl Machine {
    /// A callback begins, and runs the lines below its own line.
    pub(crate) fn called(&self, thing: &Thing, lp: *mut api::Loop) {
        self.called_to(thing, lp, || self.perform(thing.script.clone()));
    }

    /// A callback begins, and runs `act`.
    pub(crate) fn called_to(&self, thing: &Thing, lp: *mut api::Loop, act: impl FnOnce()) {
        let _exempt = Exempt::begin();
        assert!(!worker::is_this_thread(), "a callback on another thread");
        let (l, is_hook) = (&*thing.lp, thing.role == Role::Hook);
        self.require(lp == l.ptr, || format!("{thing} got another loop"));
        self.require(thing.state.get() == State::Pending, || {
            format!("the callback of {thing} began")
        });
        self.require(!thing.on_stack.get(), || {
            format!("the callback of {thing} began inside itself")
        });
        let is_ending = l.is(Phase::ShuttingDown) && thing.is_operation();
        let may_run = l.is(Phase::Open) || is_ending;
        self.require(may_run, || {
            format!("the callback of {thing} began in phase {:?}", l.phase.get())
        });
        if is_ending && !l.running.replace(true) {
            // loop_shutdown() runs the loop now.
            l.has_run.set(true);
            self.runs.borrow_mut().push(l.ptr);
        }
        self.require(l.running.get() && api::loop_is_running(lp), || {
            format!("{thing} began without a run")
        });
        self.require(!l.break_asked.get() || is_ending, || format!("{thing} began after a break"));
        self.require(api::loop_running() == lp, || {
            format!("loop_running() in {thing} is another loop")
        });
        if self.has_failed() {
            api::loop_stop(lp);
            return;
        }
        thing.on_stack.set(true);
        thing.ran.set(thing.ran.get() + 1);
        let iteration = l.metrics().iterations;
        let after = thing.after_iteration.get();
        self.require(iteration > after, || {
            format!("{thing} began in the iteration that scheduled it")
        });
        if let Some(stopped_in) = l.stopped_in.get().filter(|_| !is_ending) {
            self.require(iteration == stopped_in, || {
                format!("{thing} began in an iteration after a stop")
            });
        }
        let (current, handle) = (api::loop_current(lp), thing.handle.get());
        let is_learnt = thing.role == Role::PostLater && handle == 0;
        let is_right = if is_learnt {
            current > 0 && self.is_new_handle(l, current)
        } else {
            current == handle
        };
        self.require(is_right, || format!("loop_current() in {thing} is {current:#x}"));
        thing.handle.set(current);
        if !is_hook {
            add(&l.counts.callbacks, 1);
            l.ran_now.set(l.ran_now.get() + 1);
        }
        if thing.is_timer() {
            add(&l.counts.fired, 1);
            let (now, when) = (l.now(), thing.when.get());
            self.require(now >= when && when != u64::MAX, || {
                format!("{thing} ran at {now}, is due at {when}")
            });
        }
        if thing.role != Role::Hook {
            self.check_turn(l, thing, iteration);
        } else if thing.is_after_wait.get() {
            self.collect(l, iteration);
        }
        self.check_place(thing);
        self.check_owed(l);
        if thing.role == Role::Repeat {
            self.check_next_call(thing, iteration);
        } else if !thing.stays() || thing.is_operation() && thing.io.is_final.get() {
            thing.state.set(State::Ran);
        }
        let is_pending = api::loop_is_pending(lp, thing.handle.get());
        self.require(is_pending == thing.is_pending(), || {
            format!("in its callback, loop_is_pending() of {thing} is wrong")
        });

        let was_in_hook = l.in_hook.replace(is_hook);
        let ends_run = match thing.role {
            Role::Guard => true,
            // Operations in flight may stay there at shutdown.
            Role::RealGuard => self.has_operations(l) && !is_ending,
            _ => self.fuel.get() == 0,
        };
        if ends_run {
            let by = self.by.replace(Face::C);
            self.stop(l);
            self.by.set(by);
        } else if !thing.is_guard() {
            self.fuel.set(self.fuel.get().saturating_sub(1));
            self.stack.borrow_mut().push(thing);
            act();
            self.stack.borrow_mut().pop();
        }
        self.end_soon(thing);
        l.in_hook.set(was_in_hook);
        l.last.set(ptr::from_ref(thing));
        thing.on_stack.set(false);
        if thing.panics.get() && thing.role == Role::Task {
            l.has_panicked_task.set(true);
        } else if thing.panics.get() {
            add(&l.panics, 1);
            l.is_broken_off.set(l.is_broken_off.get() || !l.handles_panics);
        }
    }

    /// A signal handler begins.
    pub(crate) fn signalled(&self, thing: &Thing, lp: *mut api::Loop, signal: c_int) {
        let _exempt = Exempt::begin();
        thing.has_come.set(false);
        let may_run = thing.may_run.get();
        thing.may_run.set(may_run.saturating_sub(1));
        self.require(may_run > 0 && signal == thing.signal.get(), || {
            format!("{thing} got signal {signal}")
        });
        self.called(thing, lp);
    }

    /// Posts of another thread run in the order of posting (S26).
    fn check_place(&self, thing: &Thing) {
        if thing.by_worker.get() {
            let earliest = thing.lp.worker_number.replace(thing.number + 1);
            self.require(thing.number >= earliest, || format!("{thing} ran after a later post"));
        }
    }

    /// A repeating timer keeps its phase, and counts the calls that it skips (S16).
    fn check_next_call(&self, thing: &Thing, iteration: u64) {
        let (lp, handle) = (thing.lp.ptr, thing.handle.get());
        let (mut next, mut skipped) = (0, 0);
        self.check("loop_when", api::loop_when(lp, handle, &raw mut next), 0);
        self.check("loop_skipped", api::loop_skipped(lp, handle, &raw mut skipped), 0);
        let missed = skipped - thing.skipped.replace(skipped);
        let when = thing.when.replace(next);
        let period = thing.period.get();
        let right = when.saturating_add(period.saturating_mul(missed.saturating_add(1)));
        let is_known = thing.lp.is_virtual;
        let are_missed = !is_known || missed == (thing.lp.now() - when) / period;
        self.require(next == right && are_missed, || {
            format!("{thing} was due at {when}, {missed} left out, and is next at {next}")
        });
        add(&thing.lp.counts.skipped, missed);
        thing.after_iteration.set(iteration);
        thing.lp.scheduled(thing);
    }

    /// A thing that has ended has been released before the next callback begins (S14).
    pub(crate) fn check_owed(&self, lp: &Lp) {
        let is_owed = |thing: &Thing| {
            !matches!(thing.state.get(), State::Pending | State::Refused)
                && thing.release.get().is_some()
                && !thing.on_stack.get()
                && thing.released.get() == 0
        };
        if let Some(thing) = self.any_of(lp, is_owed) {
            self.fail(|| format!("{thing} has not been released"));
        }
        let is_kept = |thing: &Thing| {
            thing.is_rust
                && !thing.is_pending()
                && !thing.on_stack.get()
                && thing.dropped.get() == 0
        };
        if let Some(thing) = self.any_of(lp, is_kept) {
            self.fail(|| format!("the value that {thing} carries has not been dropped"));
        }
        let (came, handled) = (lp.panics.get(), lp.panics_handled.get());
        self.require(!lp.handles_panics || came == handled || lp.has_panicked_task.get(), || {
            format!("of {came} panics {handled} were handled")
        });
    }

    /// A release hook begins.
    pub(crate) fn released(&self, thing: &Thing, which: u8) {
        let _exempt = Exempt::begin();
        assert!(!worker::is_this_thread(), "a release hook on another thread");
        let l = &*thing.lp;
        thing.released.set(thing.released.get() + 1);
        self.require(thing.released.get() == 1, || format!("{thing} was released twice"));
        self.require(!thing.on_stack.get(), || {
            format!("{thing} was released while its callback was on the stack")
        });
        self.require(!thing.is_rust || thing.dropped.get() == 1, || {
            format!("{thing} was released before the value that it carries was dropped")
        });
        let hook = thing.release.get();
        self.require(hook == Some(which), || {
            format!("{thing} was released by hook {which}, not {hook:?}")
        });
        let is_ending = matches!(l.phase.get(), Phase::ShuttingDown | Phase::Closing);
        self.require(!l.is(Phase::Closed), || format!("{thing} was released after close"));
        match thing.state.get() {
            State::Pending if thing.is_operation() && !l.is(Phase::Closing) => {
                self.fail(|| format!("{thing} was released before its final callback"));
            }
            State::Pending if is_ending => {
                thing.state.set(State::Closed);
                self.settle_closed(thing);
            }
            // The release hook of another watcher has added this watcher.
            State::Pending
                if thing.role == Role::Watch && l.forgetting.get() == thing.io.fd.get() =>
            {
                thing.state.set(State::Cancelled);
            }
            State::Pending | State::Refused => self.fail(|| format!("{thing} was released")),
            State::Ran | State::Cancelled | State::Closed => {}
        }
        l.user_code.set(l.user_code.get() + 1);
        self.perform_after(thing.role == Role::Hook, l, thing.release_script.borrow().clone());
        l.user_code.set(l.user_code.get() - 1);
    }

    /// A callback is reported as slow.
    pub(crate) fn was_slow(
        &self,
        thing: &Thing,
        lp: *mut api::Loop,
        duration: u64,
        kind: u32,
        address: *mut c_void,
    ) {
        let _exempt = Exempt::begin();
        let l = &*thing.lp;
        self.require(lp == l.ptr && l.running.get(), || format!("{thing} got another loop"));
        self.require(ptr::eq(l.slow.get(), thing), || {
            format!("{thing} got a report after it was replaced")
        });
        self.require(duration >= thing.when.get(), || {
            format!("{duration} ns was reported as slow")
        });
        let last = self.thing_at(l.last.get().cast());
        let call = thing::CALL.map(|call| call as *mut c_void);
        let right = match kind {
            api::KIND_SIGNAL => thing::SIGNAL.map(|call| call as *mut c_void),
            api::KIND_OPERATION => match last.as_ref().map(|last| last.io.kind.get()) {
                Some(Kind::ReceiveMulti) => thing::RECV.map(|call| call as *mut c_void),
                _ => thing::IO.map(|call| call as *mut c_void),
            },
            api::KIND_WATCH => thing::WATCH.map(|call| call as *mut c_void),
            api::KIND_WORK => thing::DONE.map(|call| call as *mut c_void),
            _ => call,
        };
        // A posted stop has no address, nor has a closure.
        let is_stop = address.is_null() && kind == api::KIND_CALL;
        let is_last = last
            .as_ref()
            .is_some_and(|last| last.kind() == kind && (last.is_rust || right == Some(address)));
        self.require(is_stop || is_last, || format!("{kind} at {address:?} was reported as slow"));
        if kind != api::KIND_HOOK {
            // The model sees this report first if the batch begins with a posted stop.
            self.begin_batch(l, l.metrics().iterations);
        }
        if self.fuel.get() > 0 {
            l.in_report.set(true);
            self.perform_after(kind == api::KIND_HOOK, l, thing.script.clone());
            l.in_report.set(false);
        }
    }
}
