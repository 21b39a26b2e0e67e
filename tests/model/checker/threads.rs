//! Actions: remotes, and jobs for the worker.

use std::ops::Range;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Acquire;

use super::api;
use super::calls::which_hook;
use super::language::{Action, Byte, Few};
use super::machine::{Held, Lp, Machine, Phase, add};
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

    pub(crate) fn retain_remote(&self, which: Few) {
        let Some(held) = self.pick_remote(which).filter(|_| self.remotes.borrow().len() < 16)
        else {
            let is_null = api::loop_remote_retain(ptr::null_mut()).is_null();
            return self.require(is_null, || "NULL is retained as a remote".into());
        };
        let remote = api::loop_remote_retain(held.remote);
        self.require(remote == held.remote, || "a remote is retained as another".into());
        self.remotes.borrow_mut().push(held);
    }

    pub(crate) fn release_remote(&self, which: Few) {
        let len = self.remotes.borrow().len();
        let at = which.0 as usize % len.max(1);
        let remote = if len == 0 {
            ptr::null_mut()
        } else {
            self.remotes.borrow_mut().swap_remove(at).remote
        };
        api::loop_remote_release(remote);
    }

    fn pick_remote(&self, which: Few) -> Option<Held> {
        let remotes = self.remotes.borrow();
        remotes.get(which.0 as usize % remotes.len().max(1)).cloned()
    }

    pub(crate) fn use_remote(&self, which: Few, action: Action, script: Range<usize>) {
        let Some(Held { remote, lp: l }) = self.pick_remote(which) else { return };
        l.is_plain.set(false);
        let (hook, delay) = match action {
            Action::RemoteWakeup { .. } => {
                self.check("loop_remote_wakeup", api::loop_remote_wakeup(remote), l.if_open(0));
                return self.check_host(&l);
            }
            Action::RemoteStop { .. } => {
                add(&l.counts.stops, u64::from(l.is(Phase::Open)));
                let result = self.call(|| api::loop_remote_stop(remote));
                self.check_call("loop_remote_stop", result, l.if_open(0));
                return self.check_host(&l);
            }
            Action::RemotePostLater { hook, delay, .. } => (hook, Some(delay.0)),
            Action::RemotePost { hook, .. } => (hook, None),
            _ => return,
        };
        let hook = which_hook(hook);
        let release = hook.and_then(thing::release_hook);
        let role = if delay.is_none() { Role::Post } else { Role::PostLater };
        let thing = self.new_thing(&l, role, script);
        thing.release.set(hook);
        let demanded = self.prepare_post(&thing, delay.unwrap_or(0));
        let arg = thing.arg();
        let result = self.call(|| match delay {
            None => api::loop_remote_call_soon(remote, thing::CALL, arg, release),
            Some(delay) => api::loop_remote_call_later(remote, delay, thing::CALL, arg, release),
        });
        self.check_post("loop_remote_call", &thing, result, demanded);
        self.check_host(&l);
    }

    pub(crate) fn begin_job(&self, which: Few, posts: Few, manner: Byte, script: Range<usize>) {
        let Some(held) = self.pick_remote(which) else { return };
        self.finish_job();
        self.ask_worker(&held, posts, manner, script, false);
    }

    /// Gives the worker a job: up to eight posts.
    pub(crate) fn ask_worker(
        &self,
        held: &Held,
        posts: Few,
        manner: Byte,
        script: Range<usize>,
        stops: bool,
    ) {
        let l = &held.lp;
        l.is_plain.set(false);
        let (mut things, mut releases) = ([ptr::null(); worker::MOST], [None; worker::MOST]);
        let posted: Vec<_> = (0..=posts.0 as usize % worker::MOST)
            .map(|n| {
                let thing = self.new_thing(l, Role::Post, script.clone());
                thing.release.set(if manner.0 >> n & 1 == 0 { None } else { Some(n as u8 % 2) });
                thing.is_unsure.set(true);
                thing.by_worker.set(true);
                things[n] = Rc::as_ptr(&thing);
                releases[n] = thing.release.get().and_then(thing::release_hook);
                thing
            })
            .collect();
        add(&l.counts.posts, posted.len() as u64);
        add(&l.counts.stops, u64::from(stops));
        let is_open = !matches!(l.phase.get(), Phase::Closing | Phase::Closed);
        self.job_loop.set((is_open && manner.0 & 0x10 != 0).then_some(l.number));
        let lp = self.job_loop.get().map_or(ptr::null_mut(), |_| l.ptr);
        *self.job.borrow_mut() = Some(posted);
        let remote = api::loop_remote_retain(held.remote);
        worker::begin(Job { remote, lp, things, releases, manner: manner.0, stops });
    }

    /// Waits for the worker, and checks the results of its posts.
    pub(crate) fn finish_job(&self) {
        let Some(things) = self.job.take() else { return };
        self.worker_live.set(self.worker_live.get() + worker::finish());
        self.job_loop.set(None);
        for thing in things {
            let l = &thing.lp;
            let (result, was_seen) =
                (thing.posted.load(Acquire), thing.ran.get() + thing.released.get() > 0);
            thing.is_unsure.set(false);
            if result == 0 {
                // Closing has ended posts that were accepted before.
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
