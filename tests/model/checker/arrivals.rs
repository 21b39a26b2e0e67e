//! Callbacks of operations, watchers and work, and the checks in them.

use std::cell::Cell;
use std::sync::atomic::Ordering::Acquire;

use libc::{ECANCELED, ETIME, ETIMEDOUT};

use super::api;
use super::io::{Kept, Kind};
use super::machine::{Machine, add};
use super::memory::Exempt;
use super::streams::close;
use super::thing::{Role, Thing};

const MORE: u32 = 2;
const TIMED_OUT: u32 = 8192;
const ALWAYS: u32 = (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) as u32;

impl Machine {
    /// Checks a result of an operation.
    pub(crate) fn arrived(
        &self,
        thing: &Thing,
        lp: *mut api::Loop,
        result: i32,
        flags: u32,
        data: *const u8,
    ) {
        let _exempt = Exempt::begin();
        let io = &thing.io;
        io.is_final.set(flags & MORE == 0);
        self.require(!io.is_settled.get(), || format!("{thing} had a result after its final one"));
        self.require(io.is_final.get() || io.has_many(), || {
            format!("{thing} is to have more results")
        });
        self.check_ending(thing, result, flags);
        let direction = io.direction.borrow().clone();
        let is_cut = direction.as_ref().is_some_and(|direction| direction.is_cut.get());
        let is_short = io.asked.get() || flags & TIMED_OUT != 0 || is_cut;
        let length = io.room.borrow().len();
        let is_right = match io.kind.get() {
            Kind::Nop => result == 0 || result < 0 && is_short || io.is_chained.get(),
            Kind::Timeout => result == -ETIME || result < 0 && (is_short || io.is_chained.get()),
            Kind::Poll => {
                // The kernel may report more events than were asked for.
                let is_asked_for = result > 0 && result as u32 & (io.events.get() | ALWAYS) != 0;
                is_asked_for || result < 0 && (is_short || io.is_chained.get())
            }
            Kind::Send => result > 0 && result as usize <= length || result < 0 && is_short,
            Kind::SendAll => {
                result as usize == length || is_short && (result < 0 || result as usize <= length)
            }
            Kind::Receive => {
                result > 0 && result as usize <= length
                    || result < 0 && is_short
                    || result == 0 && is_cut
            }
            Kind::Accept => result >= 0 || is_short,
            Kind::AcceptMulti => (result >= 0) != io.is_final.get() && (result >= 0 || is_short),
            Kind::ReceiveMulti => {
                (result > 0) != io.is_final.get()
                    && (result > 0 || is_short)
                    && (result > 0) != data.is_null()
            }
        };
        self.require(is_right, || {
            format!("{thing}, {:?}, had the result {result} with {flags:#x}", io.kind.get())
        });
        match (io.kind.get(), &direction) {
            (Kind::Send | Kind::SendAll, Some(direction)) => {
                let is_right = direction.send(result.max(0) as u64);
                self.require(is_right, || format!("{thing} says {result}, and more was received"));
            }
            (Kind::Receive, Some(direction)) => {
                let room = io.room.borrow();
                let bytes = room.iter().take(result.max(0) as usize).map(Cell::get);
                self.require(direction.receive(bytes), || {
                    format!("{thing} received what is not next")
                });
            }
            (Kind::ReceiveMulti, Some(direction)) if result > 0 => {
                // SAFETY: the header promises this number of bytes until the callback returns.
                let bytes = unsafe { std::slice::from_raw_parts(data, result as usize) };
                self.require(direction.receive(bytes.iter().copied()), || {
                    format!("{thing} received wrong bytes")
                });
                self.keep(thing, bytes);
            }
            (Kind::Accept | Kind::AcceptMulti, _) if result >= 0 => {
                add(&self.accepted, 1);
                close(&Cell::new(result));
            }
            _ => {}
        }
        if io.is_final.get() {
            io.settle(false);
        }
        self.called(thing, lp);
    }

    /// Cancels a watcher or a multishot operation after several callbacks: callbacks use fuel.
    pub(crate) fn end_soon(&self, thing: &Thing) {
        let most = match thing.role {
            Role::Watch => 4,
            Role::Operation if thing.io.has_many() => 12,
            _ => return,
        };
        if thing.ran.get() >= most && thing.is_pending() && !thing.io.asked.get() {
            self.cancel(&thing.lp, thing.handle.get());
        }
    }

    /// Checks that an end without a kernel cause was requested, or had a deadline (S13).
    fn check_ending(&self, thing: &Thing, result: i32, flags: u32) {
        let io = &thing.io;
        let has_cause = io.asked.get() || io.is_chained.get();
        self.require(result != -ECANCELED || has_cause, || {
            format!("{thing} was cancelled without a request")
        });
        if flags & TIMED_OUT != 0 {
            let deadlines = io.deadlines.borrow();
            let is_late = deadlines.iter().any(|when| *when <= thing.lp.now()) && io.is_final.get();
            self.require(is_late && result != -ECANCELED, || {
                format!("{thing} timed out with {result}, its deadlines were {deadlines:?}")
            });
        } else {
            self.require(result != -ETIMEDOUT, || format!("{thing} timed out and does not say so"));
        }
    }

    /// Keeps the received data, in some callbacks.
    fn keep(&self, thing: &Thing, bytes: &[u8]) {
        let Some(buffers) = thing.io.buffers.borrow().clone() else { return };
        if !(thing.number + thing.ran.get() as usize).is_multiple_of(3) {
            return;
        }
        let result = api::loop_buffer_keep(buffers.ptr, bytes.as_ptr().cast());
        self.check("loop_buffer_keep", result, 0);
        if result == 0 {
            buffers.kept.borrow_mut().push(Kept { data: bytes.as_ptr(), copy: bytes.to_vec() });
        }
    }

    /// Checks a call of a watcher.
    pub(crate) fn ready(&self, thing: &Thing, lp: *mut api::Loop, fd: i32, events: u32) {
        let _exempt = Exempt::begin();
        let io = &thing.io;
        let is_right =
            fd == io.fd.get() && events != 0 && events & !(io.events.get() | ALWAYS) == 0;
        self.require(is_right, || {
            format!(
                "{thing} was told {events:#x} of {fd}, and asks for {:#x} of {}",
                io.events.get(),
                io.fd.get()
            )
        });
        self.require(events & libc::POLLNVAL as u32 == 0, || format!("{thing}: {fd} is open"));
        self.called(thing, lp);
    }

    /// Checks the end of work.
    pub(crate) fn done(&self, thing: &Thing, lp: *mut api::Loop, status: i32) {
        let _exempt = Exempt::begin();
        let io = &thing.io;
        io.is_final.set(true);
        let worked = io.worked.load(Acquire);
        let is_right =
            (status, worked) == (0, 1) || (status, worked, io.asked.get()) == (-ECANCELED, 0, true);
        self.require(is_right, || {
            format!("{thing} is done with {status}, and has run {worked} times")
        });
        self.called(thing, lp);
    }
}
