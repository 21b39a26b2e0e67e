//! Operations: making, shutting down, closing.

use std::cell::Cell;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Acquire;

use libc::{E2BIG, EBUSY, EINVAL};

use super::api;
use super::machine::{Counts, Lp, Machine, Phase, no};
use super::memory;
use super::ops::{Op, Verb};
use super::thing::{Role, State, Thing};

impl Machine {
    pub(crate) fn new_loop(&self, slot: usize, op: Op) {
        const FEW: [u32; 4] = [0, 1, 2, 8];
        let slot = &self.loops[slot % 3];
        if slot.borrow().is_some() || self.made.get() == 8 {
            return;
        }
        let is_virtual = !op.how.is_multiple_of(8);
        let slacks = if is_virtual { [0, 10, 1000, u64::MAX] } else { [0, 10, 1000, 50_000] };
        let options = api::Options {
            size: size_of::<api::Options>() as u32,
            flags: if is_virtual { api::VIRTUAL_TIME } else { 0 },
            sq_entries: FEW[usize::from(op.which % 4)],
            cq_entries: if op.which & 4 == 0 { 0 } else { 8 },
            spin_ns: u64::from(op.which & 8) * 500,
            slack_ns: if op.how & 0x30 == 0 { slacks[usize::from(op.which >> 6)] } else { 0 },
            trace: ptr::null(),
            start_ns: [1_000_000, 1_000_000, 0, op.moment(u64::MAX / 2)][usize::from(op.how >> 6)],
            executor_threads: 0,
            reserved: 0,
        };
        let is_default = op.how == 0;
        let mut lp = ptr::null_mut();
        let options_or_null = if is_default { ptr::null() } else { &raw const options };
        if std::env::var_os("RINGLOOP_KERNEL").is_some() {
            // Reading the variable needs memory.
            self.room.set(None);
        }
        let result = self.call(|| api::loop_new(options_or_null, &raw mut lp));
        self.check_call("loop_new", result, 0);
        self.require(result != 0 || !lp.is_null(), || "loop_new() wrote nothing".into());
        if lp.is_null() {
            return;
        }
        self.made.set(self.made.get() + 1);
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
            data: 0.into(),
            stop_asked: false.into(),
            stopped_in: None.into(),
            break_asked: false.into(),
            ran_now: 0.into(),
            stops_before: 0.into(),
            counts: Counts::default(),
            places: 0.into(),
            last_place: 0.into(),
            last_place_of_worker: 0.into(),
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

    /// Options that there are not.
    pub(crate) fn new_refused(&self, op: Op) {
        let mut bytes = [0u64; 9];
        let size = size_of::<api::Options>();
        let small = [0, 3, 4];
        let (size, flags, demanded) = match op.which % 5 {
            0 => (small[usize::from(op.how % 2)], 0, no(EINVAL)),
            1 => (size + 8, 0, no(E2BIG)),
            2 => (size, u32::from(op.how) << 1 | 2, no(EINVAL)),
            3 => (4097, 0, no(E2BIG)),
            _ => (size, 1, no(EINVAL)),
        };
        bytes[0] = size as u64 | u64::from(flags) << 32;
        // More entries than there may be, or fewer completions than submissions.
        bytes[1] = if op.which % 5 == 4 {
            [40_000, 70_000 << 32, 16 | 8 << 32][usize::from(op.how % 3)]
        } else {
            0
        };
        // Beyond what there is.
        bytes[size_of::<api::Options>() / 8] = 1;
        let mut lp = ptr::null_mut();
        let result = api::loop_new(bytes.as_ptr().cast(), &raw mut lp);
        self.check("loop_new", result, demanded);
        self.require(lp.is_null(), || "loop_new() failed and wrote".into());
        self.check("loop_new", api::loop_new(ptr::null(), ptr::null_mut()), no(EINVAL));
    }

    pub(crate) fn end_all(&self, lp: &Rc<Lp>, state: State) {
        for thing in self.things_of(lp, Thing::is_pending) {
            if !thing.is_unsure.get() {
                thing.state.set(state);
            }
        }
    }

    pub(crate) fn shutdown(&self, l: &Rc<Lp>) {
        let is_busy = l.running.get() || l.user_code.get() > 0;
        let demanded = l.unless_closing(if is_busy { no(EBUSY) } else { 0 });
        if demanded == 0 {
            l.phase.set(Phase::ShuttingDown);
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

    pub(crate) fn close(&self, l: &Rc<Lp>, op: Op) {
        let is_busy = l.running.get() || l.user_code.get() > 0;
        let demanded = l.unless_closing(if is_busy { no(EBUSY) } else { 0 });
        if demanded == 0 {
            if self.job_loop.get() == l.ptr {
                self.finish_job();
            }
            self.check_kept();
        }
        let former = l.phase.get();
        // The kernel and other threads may not let go in time.
        let may_fail = demanded == 0 && l.has_entered.get();
        if demanded == 0 {
            self.ask_all(l);
            l.phase.set(Phase::Closing);
        }
        // Results of operations take what memory they can have.
        let (result, has_asked) = memory::refuse_after(0, || match op.which % 2 {
            0 => api::loop_close(l.ptr),
            _ => api::loop_close_within(l.ptr, op.amount()),
        });
        self.require(!has_asked || may_fail, || "loop_close() has asked for memory".into());
        if may_fail && op.which % 2 == 1 && matches!(-result, libc::ETIMEDOUT | libc::ENOMEM) {
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

    /// Ends what is left, and sees whether every account is settled.
    pub(crate) fn end(&self, run_first: bool) {
        for slot in &self.loops {
            let Some(l) = slot.borrow().clone() else { continue };
            let op = Op { verb: Verb::Close, lp: 0, how: 0, which: 0, time: 12 };
            if run_first {
                self.run(&l, op, |l| api::loop_run(l.ptr));
            }
            if l.is(Phase::Open) {
                self.check_metrics(&l);
            }
            self.close(&l, op);
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
