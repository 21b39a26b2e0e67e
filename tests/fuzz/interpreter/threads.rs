//! Operations: remotes, and what the worker is asked to do.

use std::ptr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Acquire;

use libc::EINVAL;

use super::api;
use super::calls::next_place;
use super::machine::{Held, Lp, Machine, Phase, add, no};
use super::ops::{Op, Verb};
use super::thing::{self, Role, State};
use super::worker::{self, Job};

impl Machine {
    pub(crate) fn new_remote(&self, l: &Rc<Lp>) {
        if self.remotes.borrow().len() >= 16 {
            return;
        }
        let mut remote = ptr::null_mut();
        self.check("loop_remote_new", api::loop_remote_new(l.ptr, &raw mut remote), l.if_open(0));
        self.require(remote.is_null() != l.is(Phase::Open), || {
            "loop_remote_new() wrote wrongly".into()
        });
        if !remote.is_null() {
            self.remotes.borrow_mut().push(Held { remote, lp: Rc::clone(l) });
        }
    }

    pub(crate) fn own_remote(&self, op: Op) {
        let mut remotes = self.remotes.borrow_mut();
        let len = remotes.len();
        if len == 0 {
            self.require(api::loop_remote_retain(ptr::null_mut()).is_null(), || {
                "NULL is retained as a remote".into()
            });
            api::loop_remote_release(ptr::null_mut());
        } else if op.verb == Verb::RemoteRelease {
            let held = remotes.swap_remove(usize::from(op.which) % len);
            drop(remotes);
            api::loop_remote_release(held.remote);
        } else if len < 16 {
            let held = remotes[usize::from(op.which) % len].clone();
            let remote = api::loop_remote_retain(held.remote);
            self.require(remote == held.remote, || "a remote is retained as another".into());
            remotes.push(held);
        }
    }

    pub(crate) fn pick_remote(&self, op: Op) -> Option<Held> {
        let remotes = self.remotes.borrow();
        if remotes.is_empty() {
            None
        } else {
            Some(remotes[usize::from(op.which) % remotes.len()].clone())
        }
    }

    pub(crate) fn use_remote(&self, op: Op) {
        let Some(Held { remote, lp: l }) = self.pick_remote(op) else {
            self.check("loop_remote_wakeup", api::loop_remote_wakeup(ptr::null_mut()), no(EINVAL));
            self.check("loop_remote_stop", api::loop_remote_stop(ptr::null_mut()), no(EINVAL));
            return;
        };
        match op.verb {
            Verb::RemoteWakeup => {
                self.check("loop_remote_wakeup", api::loop_remote_wakeup(remote), l.if_open(0));
            }
            Verb::RemoteStop => {
                add(&l.counts.stops, u64::from(l.is(Phase::Open)));
                self.check_call(
                    "loop_remote_stop",
                    self.call(|| api::loop_remote_stop(remote)),
                    l.if_open(0),
                );
            }
            _ => {
                let role = if op.verb == Verb::RemoteSoon { Role::Post } else { Role::PostLater };
                let hook = if op.how.is_multiple_of(2) { None } else { Some(op.how / 2 % 2) };
                let (release, delay) = (hook.and_then(thing::release_hook), op.amount());
                let thing = self.new_thing(&l, role, op, release);
                thing.release.set(hook);
                let demanded = self.prepare_post(&thing, delay);
                let result = self.call(|| match role {
                    Role::Post => {
                        api::loop_remote_call_soon(remote, thing::CALL, thing.arg(), release)
                    }
                    _ => api::loop_remote_call_later(
                        remote,
                        delay,
                        thing::CALL,
                        thing.arg(),
                        release,
                    ),
                });
                self.check_post("loop_remote_call", &thing, result, demanded);
                let result = api::loop_remote_call_soon(remote, None, thing.arg(), release);
                self.check("loop_remote_call_soon", result, no(EINVAL));
            }
        }
        self.check_host(&l);
    }

    pub(crate) fn begin_job(&self, op: Op) {
        let Some(held) = self.pick_remote(op) else { return };
        self.finish_job();
        self.ask_worker(&held, op, false);
    }

    /// Gives the worker a job: up to eight posts.
    pub(crate) fn ask_worker(&self, held: &Held, op: Op, stops: bool) {
        let l = &held.lp;
        let mut things = [ptr::null(); worker::MOST];
        let posted: Vec<_> = (0..=op.how % 8)
            .map(|n| {
                let hook = if op.how & 1 << n == 0 { None } else { Some(n % 2) };
                let thing = self.new_thing(l, Role::Post, op, hook.and_then(thing::release_hook));
                thing.release.set(hook);
                thing.is_unsure.set(true);
                thing.by_worker.set(true);
                thing.place.set(next_place(l));
                thing
            })
            .collect();
        for (place, thing) in things.iter_mut().zip(&posted) {
            *place = Rc::as_ptr(thing);
        }
        add(&l.counts.posts, posted.len() as u64);
        add(&l.counts.stops, u64::from(stops));
        let is_usable = !matches!(l.phase.get(), Phase::Closing | Phase::Closed);
        let lp = if is_usable && op.time & 0x10 != 0 { l.ptr } else { ptr::null_mut() };
        *self.job.borrow_mut() = Some(posted);
        self.job_loop.set(lp);
        let remote = api::loop_remote_retain(held.remote);
        worker::begin(Job { remote, lp, things, flags: op.time, stops });
    }

    /// Waits for the worker, and sees what has become of its posts.
    pub(crate) fn finish_job(&self) {
        let Some(things) = self.job.take() else { return };
        let outcome = worker::finish();
        self.job_loop.set(ptr::null_mut());
        self.worker_live.set(self.worker_live.get() + outcome.live);
        if let Some(function) = outcome.not_refused {
            self.fail(|| format!("{function} was not refused to another thread"));
        }
        for thing in things {
            let l = &thing.lp;
            let (result, was_seen) =
                (thing.posted.load(Acquire), thing.ran.get() + thing.released.get() > 0);
            thing.is_unsure.set(false);
            if result == 0 {
                // Closing has ended what it accepted before.
                if thing.is_pending()
                    && matches!(l.phase.get(), Phase::ShutDown | Phase::Closing | Phase::Closed)
                {
                    thing.state.set(State::Closed);
                    let is_lost = l.is(Phase::Closed)
                        && thing.release.get().is_some()
                        && thing.released.get() == 0;
                    self.require(!is_lost, || format!("{thing} was accepted and is lost"));
                }
            } else {
                let is_ended = !l.is(Phase::Open);
                let right =
                    result == -libc::ESHUTDOWN && is_ended && !was_seen && thing.is_pending();
                self.require(right, || format!("posting {thing} returned {result}"));
                thing.state.set(State::Refused);
            }
        }
    }
}
