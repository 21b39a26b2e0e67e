//! The ledger for descriptors: the arguments of each operation, and its possible results.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::rc::Rc;
use std::sync::atomic::AtomicU32;

use super::api;
use super::machine::{Lp, Machine};
use super::streams::Direction;
use super::thing::{Role, Thing};

/// The kind of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Kind {
    #[default]
    Nop,
    Poll,
    Timeout,
    /// Sends some of the bytes, or all of them.
    Send,
    SendAll,
    Receive,
    Accept,
    AcceptMulti,
    ReceiveMulti,
}

/// The state of a thing that is an operation, a watcher or work.
#[derive(Default)]
pub(crate) struct Io {
    pub(crate) kind: Cell<Kind>,
    pub(crate) fd: Cell<i32>,
    /// The events of a watcher or a poll.
    pub(crate) events: Cell<u32>,
    /// The memory that the kernel uses.
    pub(crate) room: RefCell<Vec<Cell<u8>>>,
    pub(crate) direction: RefCell<Option<Rc<Direction>>>,
    pub(crate) buffers: RefCell<Option<Rc<Buffers>>>,
    /// The operation was asked to end, or may have been.
    pub(crate) asked: Cell<bool>,
    pub(crate) is_chained: Cell<bool>,
    /// All deadlines that the operation has had. An operation that has ended takes no new deadline.
    pub(crate) deadlines: RefCell<Vec<u64>>,
    /// The callback that begins is the final one.
    pub(crate) is_final: Cell<bool>,
    /// The kernel no longer uses the memory, which holds `POISON` from then on.
    pub(crate) is_settled: Cell<bool>,
    /// The number of times that the work has run, on another thread.
    pub(crate) worked: AtomicU32,
}

/// A ring of buffers.
pub(crate) struct Buffers {
    pub(crate) ptr: *mut api::Buffers,
    pub(crate) lp: Rc<Lp>,
    pub(crate) kept: RefCell<Vec<Kept>>,
}

/// A part of a buffer that is kept, and a copy of its data.
pub(crate) struct Kept {
    pub(crate) data: *const u8,
    pub(crate) copy: Vec<u8>,
}

const POISON: u8 = 0xa5;

impl Io {
    pub(crate) fn new() -> Io {
        Io { fd: Cell::new(-1), ..Io::default() }
    }

    /// Allocates memory for the kernel, filled with these bytes.
    pub(crate) fn fill(&self, bytes: impl Iterator<Item = u8>) -> (*mut c_void, usize) {
        let mut room = self.room.borrow_mut();
        *room = bytes.map(Cell::new).collect();
        (room.as_ptr().cast_mut().cast(), room.len())
    }

    pub(crate) fn has_had_deadline(&self, when: u64) -> bool {
        self.deadlines.borrow().contains(&when)
    }

    pub(crate) fn has_many(&self) -> bool {
        matches!(self.kind.get(), Kind::AcceptMulti | Kind::ReceiveMulti)
    }

    /// Ends the use of the direction, which has at most one sender and one receiver.
    pub(crate) fn leave_direction(&self, is_lost: bool) {
        if let Some(direction) = self.direction.take() {
            let is_sender = matches!(self.kind.get(), Kind::Send | Kind::SendAll);
            if is_sender { &direction.has_sender } else { &direction.has_receiver }.set(false);
            if is_sender {
                direction.in_flight.set(0);
            }
            if is_lost {
                direction.is_lost.set(true);
            }
        }
    }

    /// The kernel no longer uses the operation's memory.
    pub(crate) fn settle(&self, is_lost: bool) {
        if !self.is_settled.replace(true) {
            self.leave_direction(is_lost);
            self.room.borrow().iter().for_each(|byte| byte.set(POISON));
        }
    }

    pub(crate) fn is_untouched(&self) -> bool {
        !self.is_settled.get() || self.room.borrow().iter().all(|byte| byte.get() == POISON)
    }
}

impl Buffers {
    /// Whether the kept data is unchanged.
    pub(crate) fn is_intact(&self) -> bool {
        self.kept.borrow().iter().all(|kept| kept.is_intact())
    }
}

impl Kept {
    pub(crate) fn is_intact(&self) -> bool {
        // SAFETY: the library keeps the data valid until it is returned, and the loop is open.
        (0..self.copy.len()).all(|at| unsafe { self.data.add(at).read_volatile() } == self.copy[at])
    }
}

impl Thing {
    /// Whether the thing ends by itself after it was asked to end (S13).
    pub(crate) fn is_operation(&self) -> bool {
        matches!(self.role, Role::Operation | Role::RealGuard | Role::Work)
    }

    /// Whether the thing ends in the next iteration. With small queues, other entries may come
    /// before its own.
    pub(crate) fn completes_at_once(&self) -> bool {
        let is_alone = !self.io.is_chained.get() && self.lp.sq_entries >= 128;
        self.role == Role::Operation && self.io.kind.get() == Kind::Nop && is_alone
    }
}

impl Machine {
    /// A thing has ended without a final callback, because its loop was closed.
    pub(crate) fn settle_closed(&self, thing: &Thing) {
        if thing.ran.get() == 0 || thing.stays() {
            thing.io.settle(true);
        }
    }

    /// Whether operations are in flight, which may keep a virtual clock from moving.
    pub(crate) fn has_operations(&self, lp: &Lp) -> bool {
        self.any_of(lp, |thing| {
            thing.is_pending() && thing.is_operation() && thing.role != Role::RealGuard
        })
        .is_some()
    }

    /// All operations of a loop have been asked to end.
    pub(crate) fn ask_all(&self, lp: &Lp) {
        for thing in self.things_of(lp, |thing| thing.is_pending() && thing.is_operation()) {
            thing.io.asked.set(true);
        }
    }

    /// The kept data of a loop's buffers was valid until now; the buffers are dead from now on.
    pub(crate) fn forget_buffers(&self, lp: &Lp) {
        let is_other = |buffers: &Rc<Buffers>| !std::ptr::eq(&raw const *buffers.lp, lp);
        self.buffers.borrow_mut().retain(is_other);
    }

    pub(crate) fn check_kept(&self) {
        for buffers in self.buffers.borrow().iter() {
            self.require(buffers.is_intact(), || "kept data has changed".into());
        }
    }
}
