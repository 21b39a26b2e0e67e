//! Operations: what is submitted to the kernel, cut short, and done on other threads.

use std::ptr;
use std::rc::Rc;

use libc::{E2BIG, EINVAL};

use super::api::{self, Sqe};
use super::io::Kind;
use super::machine::{Lp, Machine, no};
use super::ops::{Op, Verb};
use super::streams::length;
use super::thing::{self, Role, State, Thing};

const NOP: u8 = 0;
const POLL_ADD: u8 = 6;
const TIMEOUT: u8 = 11;
const HARDLINK: u8 = 1 << 3;

/// How long an operation may hold up a virtual clock.
const REAL_LIMIT: u64 = 100_000;

impl Machine {
    /// What was submitted is pending, or was refused as the rules demand.
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
            format!("the handle {handle:#x} was given out again")
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

    /// While operations are in flight a virtual clock stands still: something is to end a run all
    /// the same.
    pub(crate) fn guard_real_time(&self, l: &Rc<Lp>) {
        let is_guard = |thing: &Thing| thing.role == Role::RealGuard && thing.is_pending();
        if !l.is_virtual || self.any_of(l, is_guard).is_some() {
            return;
        }
        let op = Op { verb: Verb::Submit, lp: 0, how: 0, which: 0, time: 0 };
        let thing = self.new_thing(l, Role::RealGuard, op, None);
        let sqe = timeout(&thing, REAL_LIMIT);
        let handle = api::loop_submit(l.ptr, &raw const sqe, thing::IO, thing.arg());
        self.was_refused.set(false);
        self.check_submitted("loop_submit", &thing, handle, 0);
        thing.referenced.set(false);
        self.check("loop_unref", api::loop_unref(l.ptr, handle), 0);
    }

    /// An entry of any kind, for a thing.
    fn entry(&self, thing: &Thing, op: Op) -> Sqe {
        match op.how % 4 {
            0 | 1 => Sqe { opcode: NOP, fd: -1, ..Sqe::default() },
            2 => timeout(thing, if op.how & 4 == 0 { 20_000 } else { 3_600_000_000_000 }),
            _ => {
                let Some(pair) = self.pair(op.which) else {
                    return Sqe { fd: -1, ..Sqe::default() };
                };
                let io = &thing.io;
                io.kind.set(Kind::Poll);
                io.fd.set(pair.fds[usize::from(op.which >> 2 & 1)].get());
                io.events.set(if op.how & 4 == 0 {
                    libc::POLLIN
                } else {
                    libc::POLLIN | libc::POLLOUT
                } as u32);
                Sqe {
                    opcode: POLL_ADD,
                    fd: io.fd.get(),
                    op_flags: io.events.get(),
                    ..Sqe::default()
                }
            }
        }
    }

    pub(crate) fn submit(&self, l: &Rc<Lp>, op: Op) {
        let thing = self.new_thing(l, Role::Operation, op, None);
        let sqe = self.entry(&thing, op);
        let handle = self.call(|| api::loop_submit(l.ptr, &raw const sqe, thing::IO, thing.arg()));
        self.check_submitted("loop_submit", &thing, handle, l.if_open(0));
    }

    /// What would take an operation out of the loop's hands.
    pub(crate) fn submit_refused(&self, l: &Rc<Lp>, op: Op) {
        // Drain, link, hard link, skip, unknown; cancel, poll remove, timeout remove, link timeout,
        // 128 bytes.
        let flags = [1 << 1, 1 << 2, 1 << 3, 1 << 6, 1 << 7];
        let opcodes = [14, 7, 12, 15, 63];
        let thing = self.new_thing(l, Role::Operation, op, None);
        let which = usize::from(op.which % 5);
        let mut sqe = Sqe { fd: -1, ..Sqe::default() };
        if op.how.is_multiple_of(2) {
            sqe.flags = flags[which];
        } else {
            sqe.opcode = opcodes[which];
        }
        let handle = api::loop_submit(l.ptr, &raw const sqe, thing::IO, thing.arg());
        self.was_refused.set(false);
        self.check_submitted("loop_submit", &thing, handle, no(EINVAL));
        let handle = api::loop_recv(
            l.ptr,
            0,
            ptr::without_provenance_mut(1),
            1 << 31,
            0,
            thing::IO,
            thing.arg(),
        );
        self.check("loop_recv", handle, no(EINVAL));
    }

    pub(crate) fn submit_chain(&self, l: &Rc<Lp>, op: Op) {
        let count = usize::from(op.which % 5);
        let things: Vec<_> =
            (0..count).map(|_| self.new_thing(l, Role::Operation, op, None)).collect();
        let args: Vec<_> = things.iter().map(|thing| thing.arg()).collect();
        let mut sqes: Vec<_> = (0..count as u8)
            .map(|n| {
                let thing = &things[usize::from(n)];
                let entry =
                    self.entry(thing, Op { how: op.how.rotate_left(2 * u32::from(n)), ..op });
                thing.io.is_chained.set(count > 1);
                let is_hard = usize::from(n) + 1 < count && op.time >> n & 1 == 1;
                Sqe { flags: if is_hard { HARDLINK } else { 0 }, ..entry }
            })
            .collect();
        let mut demanded = if count > l.sq_entries as usize { no(E2BIG) } else { 0 };
        if op.time & 0x38 == 0x38 && count > 0 {
            // Skipped results, and a link that leads to nothing.
            sqes[count - 1].flags = if op.how & 1 == 0 { 1 << 6 } else { HARDLINK };
            demanded = if demanded == 0 { no(EINVAL) } else { demanded };
        }
        let mut handles = [0; 5];
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
        self.require(is_quiet, || "loop_submit_chain() wrote handles that there are not".into());
    }

    pub(crate) fn send(&self, l: &Rc<Lp>, op: Op) {
        let Some((direction, is_pipe)) = self.direction(op) else { return };
        if direction.has_sender.replace(true) {
            return;
        }
        let thing = self.new_thing(l, Role::Operation, op, None);
        let (io, fd, lp, arg) = (&thing.io, direction.from, l.ptr, thing.arg());
        let (buffer, length) = io.fill(direction.next_bytes(length(op)));
        direction.in_flight.set(length as u64);
        *io.direction.borrow_mut() = Some(direction);
        io.fd.set(fd);
        let is_whole = op.how & 1 == 1;
        io.kind.set(if is_whole { Kind::SendAll } else { Kind::Send });
        let handle = self.call(|| match (is_whole, is_pipe || op.how & 2 == 2) {
            (false, true) => api::loop_write(lp, fd, buffer, length, u64::MAX, thing::IO, arg),
            (true, true) => api::loop_write_all(lp, fd, buffer, length, u64::MAX, thing::IO, arg),
            (false, false) => api::loop_send(lp, fd, buffer, length, 0, thing::IO, arg),
            (true, false) => api::loop_send_all(lp, fd, buffer, length, 0, thing::IO, arg),
        });
        self.check_submitted("loop_send", &thing, handle, l.if_open(0));
    }

    pub(crate) fn receive(&self, l: &Rc<Lp>, op: Op) {
        let Some((direction, is_pipe)) = self.direction(op) else { return };
        if direction.has_receiver.replace(true) {
            return;
        }
        let thing = self.new_thing(l, Role::Operation, op, None);
        let (io, fd, lp, arg) = (&thing.io, direction.to, l.ptr, thing.arg());
        let (buffer, length) = io.fill(std::iter::repeat_n(0, length(op)));
        *io.direction.borrow_mut() = Some(direction);
        io.fd.set(fd);
        io.kind.set(Kind::Receive);
        let handle = self.call(|| {
            if is_pipe || op.how & 2 == 2 {
                api::loop_read(lp, fd, buffer, length, u64::MAX, thing::IO, arg)
            } else {
                api::loop_recv(lp, fd, buffer, length, 0, thing::IO, arg)
            }
        });
        self.check_submitted("loop_recv", &thing, handle, l.if_open(0));
    }

    pub(crate) fn execute(&self, l: &Rc<Lp>, op: Op) {
        let thing = self.new_thing(l, Role::Work, op, None);
        let handle =
            self.call(|| api::loop_run_in_executor(l.ptr, thing::WORK, thing::DONE, thing.arg()));
        self.check_submitted("loop_run_in_executor", &thing, handle, l.if_open(0));
    }

    /// Gives an operation a deadline; tells what the rules demand.
    pub(crate) fn set_deadline(
        &self,
        l: &Lp,
        handle: i64,
        thing: Option<&Thing>,
        op: Op,
    ) -> (i32, i64) {
        let when = op.moment(l.now());
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
