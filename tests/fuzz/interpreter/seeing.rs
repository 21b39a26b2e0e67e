//! Operations: the loop inside another one, metrics, slow callbacks, questions; NULL where
//! something must be.

use std::ffi::c_void;
use std::ptr;
use std::rc::Rc;

use libc::EINVAL;

use super::api;
use super::machine::{Lp, Machine, Phase, no};
use super::ops::{Op, Verb};
use super::running::is_due;
use super::thing::{self, Role, Thing};

impl Machine {
    pub(crate) fn embed(&self, l: &Rc<Lp>, op: Op) {
        if op.verb == Verb::Fd {
            let fd = api::loop_fd(l.ptr);
            let is_same = l.fd.get() == -1 || !l.is(Phase::Open) || fd == l.fd.get();
            self.require(is_same, || format!("loop_fd() returned {fd}, and {} before", l.fd.get()));
            self.check("loop_fd", fd.min(0), l.if_open(0));
            l.fd.set(l.fd.get().max(fd));
        } else {
            self.check("loop_flush", api::loop_flush(l.ptr), l.if_open(0));
        }
        self.check_host(l);
    }

    /// After a flush, and after a post, a host loop learns of what there is to do.
    pub(crate) fn check_host(&self, l: &Rc<Lp>) {
        if l.fd.get() < 0 || l.running.get() || !l.is(Phase::Open) {
            return;
        }
        let now = l.now();
        // After a post no flush is needed; for what else was scheduled, it is.
        self.check("loop_flush", api::loop_flush(l.ptr), 0);
        if let Some(thing) = self.things_of(l, |thing| is_due(thing, now)).first() {
            let mut poll = libc::pollfd { fd: l.fd.get(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd is there.
            let ready = unsafe { libc::poll(&raw mut poll, 1, 1000) };
            self.require(ready == 1, || format!("the descriptor does not tell of {thing}"));
        }
    }

    /// Nothing is written beyond the size that is asked for.
    pub(crate) fn small_metrics(&self, l: &Lp, op: Op) {
        const CANARY: u64 = 0x5a5a_5a5a_5a5a_5a5a;
        let mut bytes = [CANARY; size_of::<api::Metrics>() / 8 + 2];
        let size = usize::from(op.which) % (size_of::<api::Metrics>() + 8);
        bytes[0] = CANARY << 32 | size as u64;
        let before = bytes;
        let demanded = if size < 4 { no(EINVAL) } else { l.unless_closing(0) };
        let result = api::loop_metrics(l.ptr, bytes.as_mut_ptr().cast());
        self.check("loop_metrics", result, demanded);
        let written = if result == 0 { size.min(size_of::<api::Metrics>()) } else { 0 };
        let byte = |words: &[u64], at: usize| words[at / 8].to_ne_bytes()[at % 8];
        let is_kept = (written..8 * bytes.len()).all(|at| byte(&bytes, at) == byte(&before, at));
        self.require(is_kept, || format!("loop_metrics() wrote more than {size} bytes"));
        if matches!(l.phase.get(), Phase::Open | Phase::ShutDown) {
            self.check_metrics(l);
        }
    }

    pub(crate) fn watch_slow(&self, l: &Rc<Lp>, op: Op) {
        let threshold = op.amount();
        let is_off = threshold == 0 || op.how.is_multiple_of(4);
        let thing = self.new_thing(l, Role::Slow, op, None);
        thing.when.set(threshold);
        let callback = if op.how.is_multiple_of(4) { None } else { thing::SLOW };
        let demanded = if callback.is_none() { l.unless_closing(0) } else { l.if_open(0) };
        let result =
            self.call(|| api::loop_set_slow_callback(l.ptr, threshold, callback, thing.arg()));
        self.check_call("loop_set_slow_callback", result, demanded);
        if result == 0 {
            l.slow.set(if is_off { ptr::null() } else { Rc::as_ptr(&thing) });
        }
    }

    /// NULL where something must be is said first, whatever state the loop is in.
    pub(crate) fn pass_null(&self, l: &Lp) {
        let (lp, null) = (l.ptr, ptr::null_mut::<api::Loop>());
        let arg = ptr::null_mut::<c_void>();
        let mut number = 12345;
        let results: [i64; 20] = [
            api::loop_call_soon(lp, None, arg),
            api::loop_call_later(lp, 1, None, arg),
            api::loop_call_every(lp, 0, thing::CALL, arg),
            api::loop_add_hook(lp, 3, thing::CALL, arg),
            api::loop_call_soon_threadsafe(lp, None, arg).into(),
            api::loop_when(lp, 1, ptr::null_mut()).into(),
            api::loop_skipped(lp, 1, ptr::null_mut()).into(),
            api::loop_walk(lp, None, arg).into(),
            api::loop_metrics(lp, ptr::null_mut()).into(),
            api::loop_remote_new(lp, ptr::null_mut()).into(),
            api::loop_remote_call_soon(ptr::null_mut(), thing::CALL, arg, None).into(),
            api::loop_remote_call_later(ptr::null_mut(), 1, thing::CALL, arg, None).into(),
            api::loop_call_at(null, 1, thing::CALL, arg),
            api::loop_cancel(null, 1).into(),
            api::loop_when(null, 1, &raw mut number).into(),
            api::loop_run(null).into(),
            api::loop_shutdown(null).into(),
            api::loop_wakeup(null).into(),
            api::loop_on_release(null, 1, None).into(),
            api::loop_fd(null).into(),
        ];
        for (index, result) in results.into_iter().enumerate() {
            self.check(
                ["a function given NULL", "a function of NULL"][index / 12],
                result,
                no(EINVAL),
            );
        }
        self.check("loop_close", api::loop_close(null), 0);
        let is_quiet = number == 12345
            && !api::loop_is_pending(null, 1)
            && !api::loop_is_alive(null)
            && api::loop_current(null) == 0
            && api::loop_data(null).is_null()
            && api::loop_time(null) > 0;
        self.require(is_quiet, || "a function of NULL does not answer as it should".into());
    }

    /// What can be asked without a handle.
    pub(crate) fn look(&self, l: &Lp) {
        let is_open = l.is(Phase::Open);
        let is_right = api::loop_is_running(l.ptr) == l.running.get();
        self.require(is_right, || "loop_is_running() is wrong".into());
        let innermost = self.runs.borrow().last().copied().unwrap_or(ptr::null_mut());
        self.require(api::loop_running() == innermost, || "loop_running() is wrong".into());
        let counts =
            |thing: &Thing| thing.is_pending() && thing.referenced.get() && !thing.is_unsure.get();
        let has_some = !self.things_of(l, counts).is_empty();
        // A signal that has come brings an iteration, whether its handler is still there or not.
        let may_have = self.job.borrow().is_some()
            || l.counts.stops.get() > l.counts.stops_run.get()
            || self
                .any_of(l, |thing| thing.may_run.get() > 0 || thing.role == Role::Work)
                .is_some();
        let is_alive = api::loop_is_alive(l.ptr);
        self.require(!is_open || is_alive == has_some || is_alive && may_have, || {
            format!("is it alive? {is_alive}")
        });
        // Timers that are due may stand in the ready queue; the others are to be thought of.
        let (deadline, now) = (api::loop_next_deadline(l.ptr), l.now());
        let timers = self.things_of(l, |thing| {
            thing.is_pending() && thing.is_timer() && thing.handle.get() != 0
        });
        let is_of_operation =
            |thing: &Thing| thing.is_operation() && thing.io.has_had_deadline(deadline);
        let is_one = deadline == u64::MAX
            || l.counts.posts.get() > 0
            || timers.iter().any(|t| t.when.get() == deadline)
            || self.any_of(l, is_of_operation).is_some();
        let is_first =
            timers.iter().all(|timer| timer.when.get() >= deadline || timer.when.get() <= now);
        self.require(!is_open || is_one && is_first, || format!("the next deadline is {deadline}"));
    }
}
