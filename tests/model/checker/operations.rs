//! Actions: operations, deadlines, and work on other threads.

use std::ops::Range;
use std::rc::Rc;

use libc::{E2BIG, EINVAL};

use super::api::{self, Sqe};
use super::io::Kind;
use super::language::{Action, End, Entry, Fault, Length, Link, Moment, Receiving, Sending};
use super::machine::{Lp, Machine, no};
use super::thing::{self, Role, State, Thing};

const NOP: u8 = 0;
const POLL_ADD: u8 = 6;
const TIMEOUT: u8 = 11;
const HARDLINK: u8 = 1 << 3;

/// The time for which an operation may hold up a virtual clock.
const REAL_LIMIT: u64 = 100_000;

impl Machine {
    /// Checks that a submitted thing is pending, or was refused as the rules demand.
    pub(crate) fn check_submitted(
        &self,
        function: &str,
        thing: &Rc<Thing>,
        handle: i64,
        demanded: i64,
    ) {
        let l = &thing.lp;
        self.check_call(function, handle.min(0), demanded);
        if handle <= 0 {
            thing.state.set(State::Refused);
            thing.io.settle(false);
            self.require(handle < 0, || "0 is no handle".into());
            return;
        }
        self.require(self.is_new_handle(l, handle), || {
            format!("the handle {handle:#x} was reused")
        });
        thing.handle.set(handle);
        thing.after_iteration.set(l.batch());
        l.has_entered.set(true);
        let is_right = api::loop_is_pending(l.ptr, handle)
            && api::loop_has_ref(l.ptr, handle) == thing.referenced.get();
        self.require(is_right, || format!("{thing} is not pending, or counts wrongly"));
        if thing.is_operation() && thing.role != Role::RealGuard && l.running.get() {
            self.guard_real_time(l);
        }
    }

    /// A virtual clock stands still while operations are in flight: adds an operation that ends a
    /// run nevertheless.
    pub(crate) fn guard_real_time(&self, l: &Rc<Lp>) {
        let is_guard = |thing: &Thing| thing.role == Role::RealGuard && thing.is_pending();
        if !l.is_virtual || self.any_of(l, is_guard).is_some() {
            return;
        }
        let thing = self.new_thing(l, Role::RealGuard, 0..0);
        let sqe = timeout(&thing, REAL_LIMIT);
        let handle = api::loop_submit(l.ptr, &raw const sqe, thing::IO, thing.arg());
        self.was_refused.set(false);
        self.check_submitted("loop_submit", &thing, handle, 0);
        thing.referenced.set(false);
        self.check("loop_unref", api::loop_unref(l.ptr, handle), 0);
    }

    /// Makes the entry of a thing.
    fn entry(&self, thing: &Thing, entry: Entry, end: End) -> Sqe {
        let (fd, io) = (self.fd_of(end), &thing.io);
        match entry {
            Entry::Timeout => return timeout(thing, 20_000),
            Entry::LongTimeout => return timeout(thing, 3_600_000_000_000),
            Entry::Poll | Entry::PollBoth if fd >= 0 => {
                io.kind.set(Kind::Poll);
                io.fd.set(fd);
                let is_both = entry == Entry::PollBoth;
                io.events.set((libc::POLLIN | if is_both { libc::POLLOUT } else { 0 }) as u32);
            }
            _ => return Sqe { opcode: NOP, fd: -1, ..Sqe::default() },
        }
        Sqe { opcode: POLL_ADD, fd, op_flags: io.events.get(), ..Sqe::default() }
    }

    pub(crate) fn submit(&self, l: &Rc<Lp>, entry: Entry, end: End, script: Range<usize>) {
        let thing = self.new_thing(l, Role::Operation, script);
        let sqe = self.entry(&thing, entry, end);
        let handle = self.call(|| api::loop_submit(l.ptr, &raw const sqe, thing::IO, thing.arg()));
        self.check_submitted("loop_submit", &thing, handle, l.if_open(0));
    }

    pub(crate) fn submit_chain(&self, l: &Rc<Lp>, action: Action, script: Range<usize>) {
        let Action::Chain { first, second, third, end, link, fault } = action else { return };
        let entries = [first, second, third].into_iter().filter(|entry| *entry != Entry::Nothing);
        let (things, mut sqes): (Vec<_>, Vec<_>) = entries
            .map(|entry| {
                let thing = self.new_thing(l, Role::Operation, script.clone());
                let sqe = self.entry(&thing, entry, end);
                (thing, sqe)
            })
            .unzip();
        let count = things.len();
        let args: Vec<_> = things.iter().map(|thing| thing.arg()).collect();
        things.iter().for_each(|thing| thing.io.is_chained.set(count > 1));
        let mut demanded = if count > l.sq_entries as usize { no(E2BIG) } else { 0 };
        if let Some((last, others)) = sqes.split_last_mut() {
            others
                .iter_mut()
                .for_each(|sqe| sqe.flags = if link == Link::Hard { HARDLINK } else { 0 });
            last.flags = match fault {
                Fault::None => 0,
                Fault::Skips => 1 << 6,
                Fault::Dangles => HARDLINK,
            };
            if fault != Fault::None && demanded == 0 {
                demanded = no(EINVAL);
            }
        }
        let mut handles = [0; 3];
        let result = self.call(|| {
            api::loop_submit_chain(
                l.ptr,
                sqes.as_ptr(),
                count,
                thing::IO,
                args.as_ptr(),
                handles.as_mut_ptr(),
            )
        });
        self.check_call("loop_submit_chain", result, l.if_open(demanded));
        for (thing, handle) in things.iter().zip(handles) {
            if result == 0 {
                self.was_refused.set(false);
                self.check_submitted("loop_submit_chain", thing, handle, 0);
            } else {
                thing.state.set(State::Refused);
                thing.io.settle(false);
            }
        }
        let is_quiet =
            handles.iter().skip(if result == 0 { count } else { 0 }).all(|handle| *handle == 0);
        self.require(is_quiet, || "loop_submit_chain() wrote handles that do not exist".into());
    }

    pub(crate) fn send(
        &self,
        l: &Rc<Lp>,
        end: End,
        length: Length,
        sending: Sending,
        script: Range<usize>,
    ) {
        let Some((direction, is_pipe)) = self.direction(end) else { return };
        if direction.has_sender.replace(true) {
            return;
        }
        let thing = self.new_thing(l, Role::Operation, script);
        let (io, fd, lp, arg) = (&thing.io, direction.from, l.ptr, thing.arg());
        let (buffer, length) = io.fill(direction.next_bytes(length.0 as usize));
        direction.in_flight.set(length as u64);
        *io.direction.borrow_mut() = Some(direction);
        io.fd.set(fd);
        let is_whole = matches!(sending, Sending::SendAll | Sending::WriteAll);
        let is_write = is_pipe || matches!(sending, Sending::Write | Sending::WriteAll);
        io.kind.set(if is_whole { Kind::SendAll } else { Kind::Send });
        let handle = self.call(|| match (is_whole, is_write) {
            (false, true) => api::loop_write(lp, fd, buffer, length, u64::MAX, thing::IO, arg),
            (true, true) => api::loop_write_all(lp, fd, buffer, length, u64::MAX, thing::IO, arg),
            (false, false) => api::loop_send(lp, fd, buffer, length, 0, thing::IO, arg),
            (true, false) => api::loop_send_all(lp, fd, buffer, length, 0, thing::IO, arg),
        });
        self.check_submitted("loop_send", &thing, handle, l.if_open(0));
    }

    pub(crate) fn receive(
        &self,
        l: &Rc<Lp>,
        end: End,
        length: Length,
        receiving: Receiving,
        script: Range<usize>,
    ) {
        let Some((direction, is_pipe)) = self.direction(end) else { return };
        if direction.has_receiver.replace(true) {
            return;
        }
        let thing = self.new_thing(l, Role::Operation, script);
        let (io, fd, lp, arg) = (&thing.io, direction.to, l.ptr, thing.arg());
        let (buffer, length) = io.fill(std::iter::repeat_n(0, length.0 as usize));
        *io.direction.borrow_mut() = Some(direction);
        io.fd.set(fd);
        io.kind.set(Kind::Receive);
        let handle = self.call(|| {
            if is_pipe || receiving == Receiving::Read {
                api::loop_read(lp, fd, buffer, length, u64::MAX, thing::IO, arg)
            } else {
                api::loop_recv(lp, fd, buffer, length, 0, thing::IO, arg)
            }
        });
        self.check_submitted("loop_recv", &thing, handle, l.if_open(0));
    }

    pub(crate) fn execute(&self, l: &Rc<Lp>, script: Range<usize>) {
        let thing = self.new_thing(l, Role::Work, script);
        let handle =
            self.call(|| api::loop_run_in_executor(l.ptr, thing::WORK, thing::DONE, thing.arg()));
        self.check_submitted("loop_run_in_executor", &thing, handle, l.if_open(0));
    }

    /// Gives an operation a deadline; checks the result that the rules demand.
    pub(crate) fn set_deadline(
        &self,
        l: &Lp,
        handle: i64,
        thing: Option<&Thing>,
        when: Moment,
    ) -> (i32, i64) {
        let when = when.at(l.now());
        let result = self.call(|| api::loop_set_deadline(l.ptr, handle, when));
        let is_operation =
            thing.is_some_and(|thing| thing.is_operation() && thing.role != Role::Work);
        if let (Some(thing), 0) = (thing, result) {
            thing.io.deadlines.borrow_mut().push(when);
        }
        (result, if is_operation { 0 } else { no(EINVAL) })
    }
}

fn timeout(thing: &Thing, nanos: u64) -> Sqe {
    thing.io.kind.set(Kind::Timeout);
    let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let (at, _) = thing.io.fill([seconds, nanos].into_iter().flat_map(u64::to_ne_bytes));
    Sqe { opcode: TIMEOUT, fd: -1, addr: at as u64, len: 1, ..Sqe::default() }
}
