//! Actions: making, shutting down and closing loops.

use std::cell::Cell;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Acquire;

use libc::EBUSY;

use super::api;
use super::face;
use super::language::{Action, Clock, Panics};
use super::machine::{Counts, Lp, Machine, Phase, add, no};
use super::memory;
use super::order::Order;
use super::thing::{Role, State, Thing};

/// The number of loops that a program makes at most.
const MOST_LOOPS: usize = 8;

impl Machine {
    pub(crate) fn new_loop(&self, action: Action) {
        let Action::NewLoop { slot, clock, sq, cq, spin, slack, start, panics } = action else {
            return;
        };
        let slot = &self.loops[slot.0 as usize % 3];
        if slot.borrow().is_some() || self.made.get() == MOST_LOOPS {
            return;
        }
        let is_virtual = clock == Clock::Virtual;
        let options = api::Options {
            size: size_of::<api::Options>() as u32,
            flags: if is_virtual { api::VIRTUAL_TIME } else { 0 },
            sq_entries: sq.0 as u32,
            cq_entries: if cq.0 == 0 { 0 } else { 8 },
            spin_ns: spin.0,
            slack_ns: slack.0,
            trace: ptr::null(),
            start_ns: if is_virtual { start.0 } else { 0 },
            executor_threads: 0,
            reserved: 0,
        };
        let is_default = !is_virtual && (sq.0, cq.0, spin.0, slack.0) == (0, 0, 0, 0);
        let mut lp = ptr::null_mut();
        let options_or_null = if is_default { ptr::null() } else { &raw const options };
        if std::env::var_os("RINGLOOP_KERNEL").is_some() {
            // The library allocates to read the variable.
            self.room.set(None);
        }
        let result = self.call(|| api::loop_new(options_or_null, &raw mut lp));
        self.check_call("loop_new", result, 0);
        self.require(result != 0 || !lp.is_null(), || "loop_new() wrote nothing".into());
        if lp.is_null() {
            return;
        }
        self.made.set(self.made.get() + 1);
        let handled = Rc::new(Cell::new(0));
        if panics == Panics::Handled {
            let handled = Rc::clone(&handled);
            let handler = move |_: &ringloop::Loop, _| add(&handled, 1);
            let result = face::rust(lp).set_exception_handler(handler);
            self.require(result.is_ok(), || "there is no exception handler".into());
        }
        *slot.borrow_mut() = Some(Rc::new(Lp {
            number: self.made.get(),
            ptr: lp,
            is_virtual,
            start: if is_virtual { options.start_ns } else { 0 },
            phase: Cell::new(Phase::Open),
            running: false.into(),
            has_run: false.into(),
            user_code: 0.into(),
            in_hook: false.into(),
            fd: (-1).into(),
            stop_asked: false.into(),
            stopped_in: None.into(),
            break_asked: false.into(),
            ran_now: 0.into(),
            stops_before: 0.into(),
            counts: Counts::default(),
            // 1 is LOOP_EXACT.
            slack: if slack.0 == 1 { 0 } else { slack.0 },
            order: Order::begin(api::loop_time(lp)),
            worker_number: 0.into(),
            is_plain: true.into(),
            run_until: u64::MAX.into(),
            is_broken_off: false.into(),
            handles_panics: panics == Panics::Handled,
            may_panic: false.into(),
            has_panicked_task: false.into(),
            panics: 0.into(),
            panics_handled: handled,
            slow: Cell::new(ptr::null()),
            last: Cell::new(ptr::null()),
            in_report: false.into(),
            sq_entries: match (options.sq_entries, options.cq_entries) {
                _ if is_default => 128,
                (0, 0) => 128,
                (0, few) => few,
                (few, _) => few,
            },
            has_entered: false.into(),
            forgetting: (-1).into(),
        }));
    }

    pub(crate) fn end_all(&self, lp: &Rc<Lp>, state: State) {
        for thing in self.things_of(lp, Thing::is_pending) {
            if !thing.is_unsure.get() {
                lp.unscheduled(&thing);
                thing.state.set(state);
            }
        }
    }

    pub(crate) fn shutdown(&self, l: &Rc<Lp>) {
        let is_busy = l.running.get() || l.user_code.get() > 0;
        let demanded = l.unless_closing(if is_busy { no(EBUSY) } else { 0 });
        if demanded == 0 {
            l.phase.set(Phase::ShuttingDown);
            l.lose_order();
            self.ask_all(l);
        }
        self.check("loop_shutdown", api::loop_shutdown(l.ptr), demanded);
        if demanded == 0 {
            if l.running.replace(false) {
                self.runs.borrow_mut().pop();
            }
            l.stop_asked.set(false);
            l.stopped_in.set(None);
            l.break_asked.set(false);
            if let Some(thing) = self.any_of(l, |thing| thing.is_pending() && thing.is_operation())
            {
                self.fail(|| format!("after shutdown, {thing} has not had its final callback"));
            }
            self.end_all(l, State::Closed);
            l.phase.set(Phase::ShutDown);
            self.check_owed(l);
            self.check_metrics(l);
            self.require(!api::loop_is_alive(l.ptr), || "a loop is alive after shutdown".into());
        }
    }

    pub(crate) fn close(&self, l: &Rc<Lp>, limit: Option<u64>) {
        let is_busy = l.running.get() || l.user_code.get() > 0;
        let demanded = l.unless_closing(if is_busy { no(EBUSY) } else { 0 });
        if demanded == 0 {
            if self.job_loop.get() == Some(l.number) {
                self.finish_job();
            }
            self.check_kept();
        }
        let former = l.phase.get();
        // The kernel and other threads may not finish within the limit.
        let may_fail = demanded == 0 && l.has_entered.get();
        if demanded == 0 {
            self.ask_all(l);
            l.phase.set(Phase::Closing);
        }
        // Results of operations use memory if there is any.
        let (result, has_asked) = memory::refuse_after(0, || match limit {
            None => api::loop_close(l.ptr),
            Some(limit) => api::loop_close_within(l.ptr, limit),
        });
        self.require(!has_asked || may_fail, || "loop_close() has asked for memory".into());
        if may_fail && limit.is_some() && matches!(-result, libc::ETIMEDOUT | libc::ENOMEM) {
            return l.phase.set(former);
        }
        self.check("loop_close", result, demanded);
        if result == 0 {
            self.forget_buffers(l);
            for thing in self.things_of(l, |thing| thing.is_pending() && !thing.is_unsure.get()) {
                self.settle_closed(&thing);
            }
            self.end_all(l, State::Closed);
            l.phase.set(Phase::Closed);
            for slot in &self.loops {
                let is_this = slot.borrow().as_ref().is_some_and(|other| Rc::ptr_eq(other, l));
                if is_this {
                    slot.take();
                }
            }
            self.check_owed(l);
        }
    }

    /// Closes the loops that are left, and checks that nothing is owed.
    pub(crate) fn end(&self) {
        // A release hook may make another loop.
        for _ in 0..2 * MOST_LOOPS {
            let Some(l) = self.loops.iter().find_map(|slot| slot.borrow().clone()) else { break };
            if l.is(Phase::Open) {
                self.check_metrics(&l);
            }
            self.close(&l, None);
        }
        self.finish_job();
        self.end_streams();
        self.end_connections();
        for held in self.remotes.take() {
            self.check(
                "loop_remote_wakeup",
                api::loop_remote_wakeup(held.remote),
                no(libc::ESHUTDOWN),
            );
            api::loop_remote_release(held.remote);
        }
        for thing in self.things.borrow().iter().filter(|thing| thing.role != Role::Slow) {
            let (ran, released) = (thing.ran.get(), thing.released.get());
            let was_accepted = thing.state.get() != State::Refused;
            let right = released == u32::from(was_accepted && thing.release.get().is_some())
                && thing.state.get() != State::Pending
                && (was_accepted || ran == 0)
                && (ran <= 1 || thing.stays())
                && thing.dropped.get() == u32::from(thing.is_rust)
                && thing.io.worked.load(Acquire) <= 1;
            self.require(right, || {
                format!("in the end {thing} has run {ran} times and was released {released} times")
            });
            self.require(thing.io.is_untouched(), || {
                format!("the memory of {thing} was written to after its end")
            });
        }
    }
}
