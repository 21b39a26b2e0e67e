//! Actions: dispatch; scheduling, and the use of handles.
//!
//! Each action calls a function of the library and knows the result that the rules demand.

use std::ops::Range;
use std::ptr;
use std::rc::Rc;

use libc::{EBUSY, EINVAL, ENOENT};

use super::api;
use super::face;
use super::language::{Action, Back, Events, Face, Hook, Line, Moment, Point, Signal, Time, Whose};
use super::machine::{Lp, Machine, Named, Phase, add, no};
use super::thing::{self, Role, State, Thing};

impl Machine {
    /// Runs a line; `script` has the lines below it.
    pub(crate) fn step(&self, line: Line, script: Range<usize>) {
        match line.action {
            Action::NewLoop { .. } => return self.new_loop(line.action),
            Action::RemoteRetain { which } => return self.retain_remote(which),
            Action::RemoteRelease { which } => return self.release_remote(which),
            Action::RemotePost { which, .. }
            | Action::RemotePostLater { which, .. }
            | Action::RemoteWakeup { which }
            | Action::RemoteStop { which } => return self.use_remote(which, line.action, script),
            Action::Worker { which, posts, manner } => {
                return self.begin_job(which, posts, manner, script);
            }
            Action::Raise { signal } => return self.raise(signal),
            Action::Feed { end, length } => return self.feed(end, length),
            Action::Drain { end, length } => return self.drain(end, length),
            Action::CloseEnd { end } => return self.close_end(end),
            Action::Connect {} => return self.connect(),
            Action::BuffersFree { which } => return self.free_buffers(which),
            Action::BufferReturn { which, at } => return self.return_buffer(which, at),
            Action::Refuse { after } => return self.room.set(Some(after.0 as u32)),
            _ => {}
        }
        let open: Vec<_> = self.loops.iter().filter_map(|slot| slot.borrow().clone()).collect();
        let Some(l) = open.get(line.on.0 as usize % open.len().max(1)) else { return };
        if !line.action.is_plain() {
            l.is_plain.set(false);
        }
        match line.action {
            Action::Close {} => self.close(l, None),
            Action::CloseWithin { limit } => self.close(l, Some(limit.0)),
            Action::Shutdown {} => self.shutdown(l),
            Action::Adopt {} => {
                let is_bound = l.has_run.get() || l.fd.get() >= 0;
                let demanded = if is_bound { no(EBUSY) } else { l.if_open(0) };
                let result = self.call(|| api::loop_adopt(l.ptr));
                // The kernel may have taken the submitted entry already.
                let is_bound = l.has_entered.get() && i64::from(result) == no(EBUSY);
                self.check_call("loop_adopt", result, if is_bound { no(EBUSY) } else { demanded });
            }
            Action::Flood { count, bits } => {
                for n in 0..count.0 {
                    let mixed = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    let delay =
                        Moment::In(Time(mixed.checked_shr(64 - bits.0 as u32).unwrap_or(0)));
                    self.schedule(l, Role::Timer, Action::CallAt { when: delay }, script.clone());
                }
            }
            Action::CallSoon {} => drop(self.schedule(l, Role::Call, line.action, script)),
            Action::CallLater { .. } | Action::CallAt { .. } => {
                drop(self.schedule(l, Role::Timer, line.action, script));
            }
            Action::CallEvery { .. } => drop(self.schedule(l, Role::Repeat, line.action, script)),
            Action::AddHook { .. } => drop(self.schedule(l, Role::Hook, line.action, script)),
            Action::AddSignal { .. } => drop(self.schedule(l, Role::Signal, line.action, script)),
            Action::Run { limit } => self.run(l, limit.0, true),
            Action::RunForever { limit } => self.run(l, limit.0, false),
            Action::RunOnce { limit } => self.run_once(l, limit.0),
            Action::RunUntilWorker { posts, manner } => {
                self.run_until_worker(l, posts, manner, script)
            }
            Action::Stop {} => self.stop(l),
            Action::Break {} => {
                let demanded = l.unless_closing(if l.running.get() { 0 } else { no(EINVAL) });
                if demanded == 0 {
                    l.break_asked.set(true);
                    l.is_broken_off.set(true);
                }
                self.check("loop_break", (self.face().break_)(l.ptr), demanded);
            }
            Action::Panic {} => self.panic(l),
            Action::Spawn {} => self.spawn(l, script),
            Action::Unpark { task }
            | Action::Disturb { task }
            | Action::Abort { task }
            | Action::Detach { task } => self.use_task(l, line.action, task),
            Action::Post {} => {
                let thing = self.new_thing(l, Role::Post, script);
                let demanded = self.prepare_post(&thing, 0);
                let result =
                    self.call(|| api::loop_call_soon_threadsafe(l.ptr, thing::CALL, thing.arg()));
                self.check_post("loop_call_soon_threadsafe", &thing, result, demanded);
            }
            Action::Wakeup {} => self.check("loop_wakeup", api::loop_wakeup(l.ptr), l.if_open(0)),
            Action::RemoteNew {} => self.new_remote(l),
            Action::Fd {} => self.embed(l),
            Action::Flush {} => {
                self.check("loop_flush", api::loop_flush(l.ptr), l.if_open(0));
                self.check_host(l);
            }
            Action::Slow { threshold } => self.watch_slow(l, Some(threshold.0), script),
            Action::SlowOff {} => self.watch_slow(l, None, script),
            Action::Walk { shown } => self.walk(l, Some((shown, script))),
            Action::Look {} => self.look(l),
            Action::Submit { entry, end } => self.submit(l, entry, end, script),
            Action::Chain { .. } => self.submit_chain(l, line.action, script),
            Action::Send { end, length, sending } => self.send(l, end, length, sending, script),
            Action::Receive { end, length, receiving } => {
                self.receive(l, end, length, receiving, script)
            }
            Action::ReceiveMulti { end, buffers, owner } => {
                self.receive_multi(l, end, buffers, owner, script)
            }
            Action::BuffersNew { count, size } => self.new_buffers(l, count, size),
            Action::Accept { many } => self.accept(l, many, script),
            Action::Execute {} => self.execute(l, script),
            Action::Watch { end, events, descriptor } => {
                self.watch(l, end, events, descriptor, script)
            }
            Action::Forget { end } => drop(self.forget(l, self.fd_of(end))),
            Action::Cancel { of, back } => self.cancel(l, self.pick_handle(l, of, back)),
            Action::Reschedule { of, back, .. }
            | Action::When { of, back }
            | Action::Skipped { of, back }
            | Action::IsPending { of, back }
            | Action::Ref { of, back }
            | Action::Unref { of, back }
            | Action::OnRelease { of, back, .. }
            | Action::Deadline { of, back, .. }
            | Action::WatchUpdate { of, back, .. } => {
                self.use_handle(l, self.pick_handle(l, of, back), line.action, script);
            }
            _ => {}
        }
    }

    /// The callback that is running panics when it ends, if it can.
    fn panic(&self, l: &Lp) {
        let innermost = self.stack.borrow().last().copied().unwrap_or(ptr::null());
        let Some(thing) = self.thing_at(innermost.cast()).filter(|thing| thing.is_rust) else {
            return;
        };
        if ptr::eq(&raw const *thing.lp, l)
            && (l.handles_panics || l.may_panic.get() || thing.role == Role::Task)
        {
            thing.panics.set(true);
        }
    }

    fn schedule(&self, l: &Rc<Lp>, role: Role, action: Action, script: Range<usize>) -> Rc<Thing> {
        let thing = self.new_thing(l, role, script);
        let (lp, arg, before, face) = (l.ptr, thing.arg(), l.now(), self.face());
        let mut due = u64::MAX;
        let mut demanded = l.if_open(0);
        let handle = self.call(|| match action {
            Action::CallLater { delay } => {
                due = before.saturating_add(delay.0);
                (face.call_later)(lp, delay.0, thing::CALL, arg)
            }
            Action::CallAt { when } => {
                due = when.at(before);
                (face.call_at)(lp, due, thing::CALL, arg)
            }
            Action::CallEvery { period } => {
                due = before.saturating_add(period.0);
                thing.period.set(period.0);
                if period.0 == 0 {
                    demanded = no(EINVAL);
                }
                (face.call_every)(lp, period.0, thing::CALL, arg)
            }
            Action::AddHook { point } => {
                thing.is_after_wait.set(point == Point::AfterWait);
                api::loop_add_hook(lp, 1 + u32::from(thing.is_after_wait.get()), thing::CALL, arg)
            }
            Action::AddSignal { signal } => {
                thing.signal.set(number_of(signal));
                if !is_harmless(signal) {
                    demanded = no(EINVAL);
                }
                api::loop_add_signal_handler(lp, thing.signal.get(), thing::SIGNAL, arg)
            }
            _ => (face.call_soon)(lp, thing::CALL, arg),
        });
        if !self.begin_thing(&thing, handle, demanded) {
            return thing;
        }
        if thing.is_timer() {
            self.check("loop_when", api::loop_when(lp, handle, thing.when.as_ptr()), 0);
            let (when, passed) = (thing.when.get(), l.now() - before);
            let latest = if matches!(action, Action::CallAt { .. }) {
                due
            } else {
                due.saturating_add(passed)
            };
            self.require(when >= due && when <= latest, || {
                format!("{thing} is due at {when}, not {due}")
            });
        }
        thing
    }

    /// Checks that a thing was scheduled, or refused as demanded; returns whether it was scheduled.
    pub(crate) fn begin_thing(&self, thing: &Rc<Thing>, handle: i64, demanded: i64) -> bool {
        let l = &thing.lp;
        self.check_call("loop_call", handle.min(0), demanded);
        if handle <= 0 {
            thing.state.set(State::Refused);
            self.require(handle < 0, || "0 is no handle".into());
            return false;
        }
        self.require(self.is_new_handle(l, handle), || {
            format!("the handle {handle:#x} was reused")
        });
        thing.handle.set(handle);
        thing.after_iteration.set(l.batch());
        l.scheduled(thing);
        let is_right = api::loop_is_pending(l.ptr, handle)
            && api::loop_has_ref(l.ptr, handle) == thing.referenced.get();
        self.require(is_right, || format!("{thing} is not pending, or counts wrongly"));
        true
    }

    /// Prepares the next post to a loop from this thread; returns the result that the rules demand.
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
        }
        l.scheduled(thing);
        thing.after_iteration.set(l.batch());
        0
    }

    pub(crate) fn check_post(&self, function: &str, thing: &Thing, result: i32, demanded: i64) {
        self.check_call(function, result, demanded);
        if result != 0 {
            thing.state.set(State::Refused);
            thing.lp.unscheduled(thing);
        }
    }

    /// The handle of the thing that is `back` places before the newest.
    fn pick_handle(&self, l: &Lp, of: Whose, back: Back) -> i64 {
        const NUMBERS: [i64; 8] =
            [0, -1, i64::MIN, i64::MAX, 1, 1 << 32, -1 << 32 | 1, 0x7fff_ffff_0000_0000];
        let back = back.0 as usize;
        let newest = |things: &[Rc<Thing>]| match things.len() {
            0 => 0,
            len => things[len - 1 - back % len].handle.get(),
        };
        let of_loop = |wanted: fn(&Thing) -> bool| {
            newest(&self.things_of(l, |thing| thing.handle.get() != 0 && wanted(thing)))
        };
        let handle = match of {
            Whose::Live => of_loop(Thing::is_pending),
            Whose::Any => of_loop(|_| true),
            Whose::Ended => of_loop(|thing| !thing.is_pending()),
            Whose::Foreign => newest(&self.things.borrow()),
            Whose::Current if l.running.get() => api::loop_current(l.ptr),
            Whose::Current => 0,
            Whose::Flipped => of_loop(|_| true) ^ 1 << (7 * back % 64),
            Whose::Number => NUMBERS[back % NUMBERS.len()],
        };
        if handle == 0 {
            // 0 is no handle in Rust.
            self.by.set(Face::C);
        }
        handle
    }

    pub(crate) fn cancel(&self, l: &Rc<Lp>, handle: i64) {
        let thing = match self.named(l, handle) {
            Named::Taboo => return,
            Named::Nothing => None,
            Named::Thing(thing) => Some(thing),
        };
        if l.is(Phase::ShuttingDown) {
            let result = (self.face().cancel)(l.ptr, handle);
            self.require(matches!(result, 0 | 1) || result == -ENOENT, || {
                format!("loop_cancel() returned {result}")
            });
            return;
        }
        if let Some(thing) = thing.as_ref().filter(|thing| thing.is_operation()) {
            thing.io.asked.set(true);
            let result =
                self.call_without_memory("loop_cancel", || (self.face().cancel)(l.ptr, handle));
            let demanded =
                if self.by.get() == Face::C { l.unless_closing(1) } else { l.unless_closing(0) };
            self.check("loop_cancel", result, demanded);
            let is_pending = api::loop_is_pending(l.ptr, handle) || l.is(Phase::Closing);
            return self
                .require(is_pending, || format!("{thing} has ended without a final callback"));
        }
        let demanded = l.unless_closing(if thing.is_some() { 0 } else { no(ENOENT) });
        if let (Some(thing), 0) = (&thing, demanded) {
            thing.state.set(State::Cancelled);
            l.unscheduled(thing);
            add(&l.counts.cancelled, u64::from(thing.is_timer()));
        }
        let result =
            self.call_without_memory("loop_cancel", || (self.face().cancel)(l.ptr, handle));
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

    fn use_handle(&self, l: &Rc<Lp>, handle: i64, action: Action, script: Range<usize>) {
        let thing = match self.named(l, handle) {
            Named::Taboo => return,
            Named::Nothing => None,
            Named::Thing(thing) => Some(thing),
        };
        // The model knows only after loop_shutdown() which things have ended.
        let is_vague = l.is(Phase::ShuttingDown);
        let is_timer = thing.as_ref().is_some_and(|thing| thing.is_timer());
        let demand =
            |of_thing: i64| l.unless_closing(if thing.is_some() { of_thing } else { no(ENOENT) });
        let lp = l.ptr;
        self.was_refused.set(false);
        let mut number = 12345;
        let face = self.face();
        let (function, result, demanded): (_, i64, i64) = match action {
            Action::Reschedule { when, .. } => {
                let when = when.at(l.now());
                let result = self.call(|| (face.reschedule)(lp, handle, when));
                if let (Some(thing), 0) = (&thing, result) {
                    l.scheduled(thing);
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
            Action::Deadline { when, .. } => {
                let (result, of_thing) = self.set_deadline(l, handle, thing.as_deref(), when);
                ("loop_set_deadline", result.into(), l.if_open(demand(of_thing)))
            }
            Action::WatchUpdate { events, .. } => {
                let (result, of_thing) = self.update_watch(l, handle, thing.as_deref(), events);
                let demanded = if events == Events::Unknown {
                    no(EINVAL)
                } else {
                    l.if_open(demand(of_thing))
                };
                ("loop_watch_update", result.into(), demanded)
            }
            Action::When { .. } => {
                let result = (face.when)(lp, handle, &raw mut number);
                if let (Some(thing), 0) = (&thing, result) {
                    self.require(number == thing.when.get(), || {
                        format!("{thing} is due at {number}")
                    });
                }
                ("loop_when", result.into(), demand(if is_timer { 0 } else { no(EINVAL) }))
            }
            Action::Skipped { .. } => {
                let result = (face.skipped)(lp, handle, &raw mut number);
                if let (Some(thing), 0) = (&thing, result) {
                    self.require(number == thing.skipped.get(), || {
                        format!("{thing} has skipped {number}")
                    });
                }
                ("loop_skipped", result.into(), demand(if is_timer { 0 } else { no(EINVAL) }))
            }
            Action::Ref { .. } | Action::Unref { .. } => {
                let is_hook = thing
                    .as_ref()
                    .is_some_and(|thing| matches!(thing.role, Role::Hook | Role::Signal));
                let referenced = matches!(action, Action::Ref { .. });
                let result = if referenced { face.ref_ } else { face.unref }(lp, handle);
                if let (Some(thing), 0) = (&thing, result) {
                    thing.referenced.set(referenced);
                }
                ("loop_ref", result.into(), demand(if is_hook { no(EINVAL) } else { 0 }))
            }
            Action::OnRelease { hook, .. } => {
                let hook = which_hook(hook);
                let release = hook.and_then(thing::release_hook);
                let result = self.call(|| match &thing {
                    Some(thing) if thing.is_rust => {
                        face::on_release(lp, handle, release, thing.arg())
                    }
                    _ => api::loop_on_release(lp, handle, release),
                });
                if let (Some(thing), 0) = (&thing, result) {
                    thing.release.set(hook);
                    thing.release_script.replace(script);
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

    /// Raises a signal on this thread.
    fn raise(&self, signal: Signal) {
        if is_harmless(signal) {
            for thing in self.things.borrow().iter() {
                if thing.is_pending() && thing.signal.get() == number_of(signal) {
                    thing.has_come.set(true);
                    thing.may_run.set(2.min(thing.may_run.get() + 1));
                }
            }
            // SAFETY: the library handles the signal, or its default action is to ignore it.
            unsafe { libc::raise(number_of(signal)) };
        }
    }
}

pub(crate) fn which_hook(hook: Hook) -> Option<u8> {
    match hook {
        Hook::First => Some(0),
        Hook::Second => Some(1),
        Hook::None => None,
    }
}

fn number_of(signal: Signal) -> i32 {
    match signal {
        Signal::Winch => libc::SIGWINCH,
        Signal::Urg => libc::SIGURG,
        Signal::Kill => libc::SIGKILL,
        Signal::Segv => libc::SIGSEGV,
        Signal::Zero => 0,
        Signal::TooHigh => 65,
    }
}

/// Whether a signal without a handler is ignored.
fn is_harmless(signal: Signal) -> bool {
    matches!(signal, Signal::Winch | Signal::Urg)
}
