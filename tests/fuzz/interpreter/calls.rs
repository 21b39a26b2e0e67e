//! Operations: which is which; scheduling, and what is done with handles.
//!
//! Each calls a function of the library and knows what that has to return.

use std::ptr;
use std::rc::Rc;

use libc::{EBUSY, EINVAL, ENOENT};

use super::api;
use super::machine::{Lp, Machine, Named, Phase, add, no, signal_of};
use super::ops::{Op, Verb};
use super::thing::{self, Role, State, Thing};

impl Machine {
    pub(crate) fn step(&self, op: Op) {
        match op.verb {
            Verb::New => return self.new_loop(usize::from(op.lp), op),
            Verb::NewRefused => return self.new_refused(op),
            Verb::RemoteRetain | Verb::RemoteRelease => return self.own_remote(op),
            Verb::RemoteSoon | Verb::RemoteLater | Verb::RemoteWakeup | Verb::RemoteStop => {
                return self.use_remote(op);
            }
            Verb::Worker => return self.begin_job(op),
            Verb::Raise => return self.raise(op),
            Verb::Feed => return self.feed(op),
            Verb::Drain => return self.drain(op),
            Verb::CloseEnd => return self.close_end(op),
            Verb::Connect => return self.connect(),
            Verb::BuffersFree => return self.free_buffers(op),
            Verb::BufferReturn => return self.return_buffer(op),
            Verb::Refuse => return self.room.set(Some(u32::from(op.time % 4))),
            _ => {}
        }
        let Some(l) = self.pick_loop(op.lp) else { return };
        let l = &l;
        match op.verb {
            Verb::Close => self.close(l, op),
            Verb::Shutdown => self.shutdown(l),
            Verb::Adopt => {
                let demanded =
                    if l.has_run.get() || l.fd.get() >= 0 { no(EBUSY) } else { l.if_open(0) };
                let result = self.call(|| api::loop_adopt(l.ptr));
                // What was submitted may have gone to the kernel already.
                let is_bound = l.has_entered.get() && i64::from(result) == no(EBUSY);
                self.check_call("loop_adopt", result, if is_bound { no(EBUSY) } else { demanded });
            }
            Verb::Data => {
                self.require(api::loop_data(l.ptr).addr() == l.data.get(), || {
                    "loop_data() is not what was set".into()
                });
                l.data.set(usize::from(op.which));
                api::loop_set_data(l.ptr, ptr::without_provenance_mut(l.data.get()));
            }
            Verb::CallSoon => drop(self.schedule(l, Role::Call, op)),
            Verb::CallLater | Verb::CallAt => drop(self.schedule(l, Role::Timer, op)),
            Verb::CallEvery => drop(self.schedule(l, Role::Repeat, op)),
            Verb::AddHook => drop(self.schedule(l, Role::Hook, op)),
            Verb::AddSignal => drop(self.schedule(l, Role::Signal, op)),
            Verb::Run => self.run(l, op, |l| api::loop_run(l.ptr)),
            Verb::RunForever => self.run(l, op, |l| api::loop_run_forever(l.ptr)),
            Verb::RunOnce => self.run_once(l, op),
            Verb::RunUntilWorker => self.run_until_worker(l, op),
            Verb::Stop => self.stop(l),
            Verb::Break => {
                let demanded = l.unless_closing(if l.running.get() { 0 } else { no(EINVAL) });
                l.break_asked.set(l.break_asked.get() || demanded == 0);
                self.check("loop_break", api::loop_break(l.ptr), demanded);
            }
            Verb::Threadsafe => {
                let thing = self.new_thing(l, Role::Post, op, None);
                let demanded = self.prepare_post(&thing, 0);
                let result =
                    self.call(|| api::loop_call_soon_threadsafe(l.ptr, thing::CALL, thing.arg()));
                self.check_post("loop_call_soon_threadsafe", &thing, result, demanded);
            }
            Verb::Wakeup => self.check("loop_wakeup", api::loop_wakeup(l.ptr), l.if_open(0)),
            Verb::RemoteNew => self.new_remote(l),
            Verb::Fd | Verb::Flush => self.embed(l, op),
            Verb::Metrics => self.small_metrics(l, op),
            Verb::Slow => self.watch_slow(l, op),
            Verb::Walk => self.walk(l, Some(op)),
            Verb::Null => self.pass_null(l),
            Verb::Look => self.look(l),
            Verb::Submit => self.submit(l, op),
            Verb::SubmitRefused => self.submit_refused(l, op),
            Verb::Chain => self.submit_chain(l, op),
            Verb::Send => self.send(l, op),
            Verb::Receive => self.receive(l, op),
            Verb::ReceiveMulti => self.receive_multi(l, op),
            Verb::BuffersNew => self.new_buffers(l, op),
            Verb::Accept => self.accept(l, op),
            Verb::Execute => self.execute(l, op),
            Verb::Watch => self.watch(l, op),
            Verb::Forget => self.forget_one(l, op),
            _ => self.use_handle(l, op),
        }
    }

    fn pick_loop(&self, lp: u8) -> Option<Rc<Lp>> {
        let open: Vec<_> = self.loops.iter().filter_map(|slot| slot.borrow().clone()).collect();
        if open.is_empty() {
            None
        } else {
            Some(Rc::clone(&open[usize::from(lp & 0x1f) % open.len()]))
        }
    }

    pub(crate) fn schedule(&self, l: &Rc<Lp>, role: Role, op: Op) -> Rc<Thing> {
        let thing = self.new_thing(l, role, op, None);
        let (lp, arg, before) = (l.ptr, thing.arg(), l.now());
        let mut due = u64::MAX;
        let mut demanded = l.if_open(0);
        let handle = self.call(|| match (role, op.verb) {
            (Role::Call, _) => api::loop_call_soon(lp, thing::CALL, arg),
            (Role::Hook, _) => {
                let point = u32::from(op.which % 5);
                if point != 1 && point != 2 {
                    demanded = no(EINVAL);
                }
                api::loop_add_hook(lp, point, thing::CALL, arg)
            }
            (Role::Signal, _) => {
                if !is_harmless(thing.signal) {
                    demanded = no(EINVAL);
                }
                api::loop_add_signal_handler(lp, thing.signal, thing::SIGNAL, arg)
            }
            (Role::Repeat, _) => {
                due = before.saturating_add(op.amount());
                if op.amount() == 0 {
                    demanded = no(EINVAL);
                }
                api::loop_call_every(lp, op.amount(), thing::CALL, arg)
            }
            (_, Verb::CallAt) => {
                due = op.moment(before);
                api::loop_call_at(lp, due, thing::CALL, arg)
            }
            _ => {
                due = before.saturating_add(op.amount());
                api::loop_call_later(lp, op.amount(), thing::CALL, arg)
            }
        });
        self.check_call("loop_call", handle.min(0), demanded);
        if handle <= 0 {
            thing.state.set(State::Refused);
            self.require(handle < 0, || "0 is no handle".into());
            return thing;
        }
        self.require(self.is_new_handle(l, handle), || {
            format!("the handle {handle:#x} was given out again")
        });
        thing.handle.set(handle);
        thing.after_iteration.set(l.batch());
        thing.place.set(if role == Role::Call { next_place(l) } else { 0 });
        if thing.is_timer() {
            self.check("loop_when", api::loop_when(lp, handle, thing.when.as_ptr()), 0);
            let (when, passed) = (thing.when.get(), l.now() - before);
            let latest = if op.verb == Verb::CallAt { due } else { due.saturating_add(passed) };
            self.require(when >= due && when <= latest, || {
                format!("{thing} is due at {when}, not {due}")
            });
        }
        let is_right = api::loop_is_pending(lp, handle)
            && api::loop_has_ref(lp, handle) == thing.referenced.get();
        self.require(is_right, || format!("{thing} is not pending, or counts wrongly"));
        thing
    }

    /// The next post to a loop from this thread; gives what the rules demand of it.
    pub(crate) fn prepare_post(&self, thing: &Thing, delay: u64) -> i64 {
        let l = &thing.lp;
        let demanded = l.if_open(0);
        if demanded != 0 {
            thing.state.set(State::Refused);
            return demanded;
        }
        add(&l.counts.posts, 1);
        if thing.role == Role::PostLater {
            thing.when.set(l.now().saturating_add(delay));
        } else {
            thing.place.set(next_place(l));
        }
        thing.after_iteration.set(l.batch());
        0
    }

    pub(crate) fn check_post(&self, function: &str, thing: &Thing, result: i32, demanded: i64) {
        self.check_call(function, result, demanded);
        if result != 0 {
            thing.state.set(State::Refused);
        }
    }

    pub(crate) fn pick_handle(&self, l: &Lp, op: Op) -> i64 {
        const NUMBERS: [i64; 8] =
            [0, -1, i64::MIN, i64::MAX, 1, 1 << 32, -1 << 32 | 1, 0x7fff_ffff_0000_0000];
        let which = usize::from(op.which);
        let newest = |things: &[Rc<Thing>]| match things.len() {
            0 => 0,
            len => things[len - 1 - which % len].handle.get(),
        };
        match op.how % 16 {
            0..=4 => newest(&self.things_of(l, |thing| thing.handle.get() != 0)),
            5..=9 => {
                newest(&self.things_of(l, |thing| thing.is_pending() && thing.handle.get() != 0))
            }
            10 => newest(&self.things.borrow()),
            11 if l.running.get() => api::loop_current(l.ptr),
            11 | 12 => {
                newest(&self.things_of(l, |thing| !thing.is_pending() && thing.handle.get() != 0))
            }
            13 => {
                self.things.borrow().last().map_or(0, |thing| thing.handle.get())
                    ^ 1 << (which % 64)
            }
            14 => newest(&self.things_of(l, |thing| thing.handle.get() != 0)) ^ 1 << (op.time % 64),
            _ => NUMBERS[which % NUMBERS.len()],
        }
    }

    pub(crate) fn cancel(&self, l: &Rc<Lp>, handle: i64) {
        let thing = match self.named(l, handle) {
            Named::Taboo => return,
            Named::Nothing => None,
            Named::Thing(thing) => Some(thing),
        };
        if l.is(Phase::ShuttingDown) {
            let result = api::loop_cancel(l.ptr, handle);
            self.require(matches!(result, 0 | 1) || result == -ENOENT, || {
                format!("loop_cancel() returned {result}")
            });
            return;
        }
        if let Some(thing) = thing.as_ref().filter(|thing| thing.is_operation()) {
            thing.io.asked.set(true);
            let result =
                self.call_without_memory("loop_cancel", || api::loop_cancel(l.ptr, handle));
            self.check("loop_cancel", result, l.unless_closing(1));
            let is_pending = api::loop_is_pending(l.ptr, handle) || l.is(Phase::Closing);
            return self
                .require(is_pending, || format!("{thing} has ended without a final callback"));
        }
        let demanded = l.unless_closing(if thing.is_some() { 0 } else { no(ENOENT) });
        if let (Some(thing), 0) = (&thing, demanded) {
            thing.state.set(State::Cancelled);
            add(&l.counts.cancelled, u64::from(thing.is_timer()));
        }
        let result = self.call_without_memory("loop_cancel", || api::loop_cancel(l.ptr, handle));
        self.check("loop_cancel", result, demanded);
        if let (Some(thing), 0) = (&thing, demanded) {
            self.require(!api::loop_is_pending(l.ptr, handle), || format!("{thing} is pending"));
            let is_running = thing.on_stack.get()
                || l.in_report.get() && ptr::eq(l.last.get(), Rc::as_ptr(thing));
            let is_released =
                thing.release.get().is_none() || is_running || thing.released.get() == 1;
            self.require(is_released, || format!("{thing} was not released by loop_cancel()"));
        }
    }

    pub(crate) fn use_handle(&self, l: &Rc<Lp>, op: Op) {
        let handle = self.pick_handle(l, op);
        if op.verb == Verb::Cancel {
            return self.cancel(l, handle);
        }
        let thing = match self.named(l, handle) {
            Named::Taboo => return,
            Named::Nothing => None,
            Named::Thing(thing) => Some(thing),
        };
        // What has ended is known only when shutdown has returned.
        let is_vague = l.is(Phase::ShuttingDown);
        let is_timer = thing.as_ref().is_some_and(|thing| thing.is_timer());
        let demand =
            |of_thing: i64| l.unless_closing(if thing.is_some() { of_thing } else { no(ENOENT) });
        let lp = l.ptr;
        self.was_refused.set(false);
        let mut number = 12345;
        let (function, result, demanded): (_, i64, i64) = match op.verb {
            Verb::Reschedule => {
                let when = op.moment(l.now());
                let result = self.call(|| api::loop_reschedule(lp, handle, when));
                if let (Some(thing), 0) = (&thing, result) {
                    thing.when.set(when);
                    thing.moves.set(thing.moves.get() + 1);
                    thing.after_iteration.set(l.batch());
                }
                (
                    "loop_reschedule",
                    result.into(),
                    l.if_open(demand(if is_timer { 0 } else { no(EINVAL) })),
                )
            }
            Verb::Deadline => {
                let (result, of_thing) = self.set_deadline(l, handle, thing.as_deref(), op);
                ("loop_set_deadline", result.into(), l.if_open(demand(of_thing)))
            }
            Verb::WatchUpdate => {
                let (result, of_thing) = self.update_watch(l, handle, thing.as_deref(), op);
                let is_wrong = op.how >= 248;
                let demanded = if is_wrong { no(EINVAL) } else { l.if_open(demand(of_thing)) };
                ("loop_watch_update", result.into(), demanded)
            }
            Verb::When => {
                let result = api::loop_when(lp, handle, &raw mut number);
                if let (Some(thing), 0) = (&thing, result) {
                    self.require(number == thing.when.get(), || {
                        format!("{thing} is due at {number}")
                    });
                }
                ("loop_when", result.into(), demand(if is_timer { 0 } else { no(EINVAL) }))
            }
            Verb::Skipped => {
                let result = api::loop_skipped(lp, handle, &raw mut number);
                if let (Some(thing), 0) = (&thing, result) {
                    self.require(number == thing.skipped.get(), || {
                        format!("{thing} has skipped {number}")
                    });
                }
                ("loop_skipped", result.into(), demand(if is_timer { 0 } else { no(EINVAL) }))
            }
            Verb::Ref | Verb::Unref => {
                let is_hook = thing
                    .as_ref()
                    .is_some_and(|thing| matches!(thing.role, Role::Hook | Role::Signal));
                let referenced = op.verb == Verb::Ref;
                let result = if referenced {
                    api::loop_ref(lp, handle)
                } else {
                    api::loop_unref(lp, handle)
                };
                if let (Some(thing), 0) = (&thing, result) {
                    thing.referenced.set(referenced);
                }
                ("loop_ref", result.into(), demand(if is_hook { no(EINVAL) } else { 0 }))
            }
            Verb::OnRelease => {
                let hook = if op.time.is_multiple_of(8) { None } else { Some(op.time % 2) };
                let release = hook.and_then(thing::release_hook);
                let result = self.call(|| api::loop_on_release(lp, handle, release));
                if let (Some(thing), 0) = (&thing, result) {
                    thing.release.set(hook);
                }
                ("loop_on_release", result.into(), l.if_open(demand(0)))
            }
            _ => {
                let (is_pending, has_ref) =
                    (api::loop_is_pending(lp, handle), api::loop_has_ref(lp, handle));
                let known = thing.as_ref().filter(|_| !l.is(Phase::Closing));
                let right = (known.is_some(), known.is_some_and(|thing| thing.referenced.get()));
                self.require(is_vague || (is_pending, has_ref) == right, || {
                    format!(
                        "of {handle:#x}, is_pending() and has_ref() are {is_pending} and {has_ref}"
                    )
                });
                return;
            }
        };
        if is_vague {
            let is_one = result == demanded || result == no(ENOENT);
            self.require(is_one, || {
                format!("{function}() returned {result} inside loop_shutdown()")
            });
        } else {
            self.check_call(function, result, demanded);
        }
        self.require(result == 0 || number == 12345, || {
            format!("{function}() failed and wrote {number}")
        });
    }

    /// A signal comes, on this thread.
    pub(crate) fn raise(&self, op: Op) {
        let signal = signal_of(op);
        if is_harmless(signal) {
            for thing in self.things.borrow().iter() {
                if thing.is_pending() && thing.signal == signal {
                    thing.has_come.set(true);
                    thing.may_run.set(2.min(thing.may_run.get() + 1));
                }
            }
            // SAFETY: the signal is handled by the library, or ignored.
            unsafe { libc::raise(signal) };
        }
    }
}

/// Whether it does nothing when it is not handled.
fn is_harmless(signal: i32) -> bool {
    matches!(signal, libc::SIGWINCH | libc::SIGURG)
}

pub(crate) fn next_place(l: &Lp) -> u64 {
    add(&l.places, 1);
    l.places.get()
}
