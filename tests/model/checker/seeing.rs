//! Actions: embedding, slow callbacks, and queries.

use std::ops::Range;
use std::ptr;
use std::rc::Rc;

use super::api;
use super::machine::{Lp, Machine, Phase};
use super::running::is_due;
use super::thing::{self, Role, Thing};

impl Machine {
    pub(crate) fn embed(&self, l: &Rc<Lp>) {
        let fd = api::loop_fd(l.ptr);
        let is_same = l.fd.get() == -1 || !l.is(Phase::Open) || fd == l.fd.get();
        self.require(is_same, || format!("loop_fd() returned {fd}, and {} before", l.fd.get()));
        self.check("loop_fd", fd.min(0), l.if_open(0));
        l.fd.set(l.fd.get().max(fd));
        self.check_host(l);
    }

    /// After a flush or a post, loop_fd() is readable if there is work.
    pub(crate) fn check_host(&self, l: &Rc<Lp>) {
        if l.fd.get() < 0 || l.running.get() || !l.is(Phase::Open) {
            return;
        }
        let now = l.now();
        // A post needs no flush; other scheduling does.
        self.check("loop_flush", api::loop_flush(l.ptr), 0);
        if let Some(thing) = self.things_of(l, |thing| is_due(thing, now)).first() {
            let mut poll = libc::pollfd { fd: l.fd.get(), events: libc::POLLIN, revents: 0 };
            // SAFETY: `poll` is one pollfd.
            let ready = unsafe { libc::poll(&raw mut poll, 1, 1000) };
            self.require(ready == 1, || format!("the descriptor is not readable for {thing}"));
        }
    }

    pub(crate) fn watch_slow(&self, l: &Rc<Lp>, threshold: Option<u64>, script: Range<usize>) {
        let thing = self.new_thing(l, Role::Slow, script);
        let (callback, threshold) = (threshold.and(thing::SLOW), threshold.unwrap_or(0));
        thing.when.set(threshold);
        let demanded = if callback.is_none() { l.unless_closing(0) } else { l.if_open(0) };
        let result =
            self.call(|| api::loop_set_slow_callback(l.ptr, threshold, callback, thing.arg()));
        self.check_call("loop_set_slow_callback", result, demanded);
        if result == 0 {
            l.slow.set(if threshold == 0 { ptr::null() } else { Rc::as_ptr(&thing) });
        }
    }

    /// Checks the queries that need no handle.
    pub(crate) fn look(&self, l: &Lp) {
        let is_open = l.is(Phase::Open);
        let is_right = api::loop_is_running(l.ptr) == l.running.get();
        self.require(is_right, || "loop_is_running() is wrong".into());
        let innermost = self.runs.borrow().last().copied().unwrap_or(ptr::null_mut());
        self.require(api::loop_running() == innermost, || "loop_running() is wrong".into());
        let counts =
            |thing: &Thing| thing.is_pending() && thing.referenced.get() && !thing.is_unsure.get();
        let has_some = !self.things_of(l, counts).is_empty();
        // A signal that has arrived causes an iteration, even if its handler has been removed.
        let may_have = self.job.borrow().is_some()
            || l.counts.stops.get() > l.counts.stops_run.get()
            || self
                .any_of(l, |thing| thing.may_run.get() > 0 || thing.role == Role::Work)
                .is_some();
        let is_alive = api::loop_is_alive(l.ptr);
        self.require(!is_open || is_alive == has_some || is_alive && may_have, || {
            format!("loop_is_alive() returned {is_alive}")
        });
        // Due timers may be in the ready queue; the next deadline must cover the others.
        let (deadline, now) = (api::loop_next_deadline(l.ptr), l.now());
        let timers = self.things_of(l, |thing| {
            let is_one =
                thing.is_timer() || thing.role == Role::Task && thing.when.get() != u64::MAX;
            thing.is_pending() && is_one && thing.handle.get() != 0
        });
        let is_of_operation =
            |thing: &Thing| thing.is_operation() && thing.io.has_had_deadline(deadline);
        let is_one = deadline == u64::MAX
            || l.counts.posts.get() > 0
            || timers.iter().any(|t| t.when.get() == deadline)
            || self.any_of(l, is_of_operation).is_some();
        let is_first =
            timers.iter().all(|timer| timer.when.get() >= deadline || timer.when.get() <= now);
        let is_right = !l.is_known() || deadline == self.next_deadline(l);
        self.require(!is_open || is_one && is_first && is_right, || {
            format!("the next deadline is {deadline}")
        });
    }
}
