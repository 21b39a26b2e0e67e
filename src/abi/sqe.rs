//! A submission queue entry: a request to the kernel.
//!
//! `unsafe` is here because an [`Entry`] carries a guarantee: the memory that it points to lives
//! until its last completion. Safe functions only make entries that point at nothing or at static
//! memory.

use std::mem::offset_of;
use std::ops::Deref;

use super::opcodes::{self, Memory, Operation, Target};

/// A submission queue entry, field by field as the kernel's `struct io_uring_sqe`, for
/// [`Loop::submit`], which takes any operation of the kernel. io_uring_enter(2) documents the
/// meaning of the fields for each operation.
///
/// ```
/// let nop = ringloop::Sqe { opcode: 0, ..ringloop::Sqe::default() };
/// assert_eq!(size_of_val(&nop), 64);
/// ```
///
/// [`Loop::submit`]: crate::Loop::submit
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Sqe {
    /// The operation, an `IORING_OP_*`.
    pub opcode: u8,
    /// `IOSQE_*`.
    pub flags: u8,
    /// The priority of the request; for some operations, flags.
    pub ioprio: u16,
    /// The descriptor.
    pub fd: i32,
    /// An offset in a file, or a second address.
    pub off: u64,
    /// The address of a buffer, a path, an array.
    pub addr: u64,
    /// The length of the memory at `addr`, or the number of its elements.
    pub len: u32,
    /// Flags of the operation (`rw_flags`, `msg_flags`, `open_flags` and so on).
    pub op_flags: u32,
    /// Reserved for the loop, which writes it.
    pub user_data: u64,
    /// The index of a registered buffer, or the group of a provided one.
    pub buf_index: u16,
    /// The registered credentials to use, 0 for those of the process.
    pub personality: u16,
    /// A descriptor to splice from, or the index of a direct descriptor (`splice_fd_in`,
    /// `file_index`).
    pub file_index: u32,
    /// A third address.
    pub addr3: u64,
    /// Must be zero.
    pub pad: u64,
}

/// The offsets of `struct io_uring_sqe` of linux/io_uring.h: the kernel reads an entry as it is.
const _: () = {
    assert!(size_of::<Sqe>() == 64 && align_of::<Sqe>() == 8);
    assert!(offset_of!(Sqe, opcode) == 0);
    assert!(offset_of!(Sqe, flags) == 1);
    assert!(offset_of!(Sqe, ioprio) == 2);
    assert!(offset_of!(Sqe, fd) == 4);
    assert!(offset_of!(Sqe, off) == 8);
    assert!(offset_of!(Sqe, addr) == 16);
    assert!(offset_of!(Sqe, len) == 24);
    assert!(offset_of!(Sqe, op_flags) == 28);
    assert!(offset_of!(Sqe, user_data) == 32);
    assert!(offset_of!(Sqe, buf_index) == 40);
    assert!(offset_of!(Sqe, personality) == 42);
    assert!(offset_of!(Sqe, file_index) == 44);
    assert!(offset_of!(Sqe, addr3) == 48);
    assert!(offset_of!(Sqe, pad) == 56);
};

impl Sqe {
    /// The properties of its operation.
    #[inline]
    pub(crate) fn operation(&self) -> &'static Operation {
        opcodes::of(self.opcode)
    }

    /// Its descriptor, or -1 if `fd` is something else: a family, a process, a place in the ring's
    /// table.
    #[inline]
    pub(crate) fn descriptor(&self) -> i32 {
        let is_one = match self.operation().target {
            Target::Descriptor | Target::Two => true,
            Target::Other => false,
            Target::DescriptorOrIndex => self.file_index == 0,
        };
        if is_one && self.flags & flags::FIXED_FILE == 0 { self.fd } else { -1 }
    }

    /// The second descriptor, if any: the one that a splice reads from.
    #[inline]
    pub(crate) fn second_descriptor(&self) -> Option<i32> {
        /// `SPLICE_F_FD_IN_FIXED`: a place in the ring's table.
        const FROM_TABLE: u32 = 1 << 31;
        let has_one = self.operation().target == Target::Two && self.op_flags & FROM_TABLE == 0;
        has_one.then_some(self.file_index as i32)
    }

    /// Whether its result is a descriptor that belongs to the receiver, and not a place in the
    /// ring's table.
    #[inline]
    pub(crate) fn gives_descriptor(&self) -> bool {
        self.operation().gives_descriptor && self.file_index == 0
    }

    /// Whether the kernel may use its memory after the submitting thread has exited.
    #[inline]
    pub(crate) fn may_outlive_thread(&self) -> bool {
        self.operation().memory == Memory::Device
    }

    /// Whether the kernel reads or writes no memory through its addresses.
    #[inline]
    pub(crate) fn points_at_nothing(&self) -> bool {
        match self.operation().memory {
            Memory::None => true,
            Memory::NoneIfZero => self.addr == 0 && self.off == 0,
            Memory::Process | Memory::Device => false,
        }
    }
}

/// A submission queue entry whose maker guarantees that the memory it points to lives until its
/// last completion. (`pending::timers` has its own `Entry`, of a timer.)
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry(Sqe);

impl Entry {
    /// # Safety
    /// The memory that the entry points to lives until its last completion.
    #[allow(unsafe_code)]
    #[inline]
    pub(crate) unsafe fn new(sqe: Sqe) -> Entry {
        Entry(sqe)
    }

    /// An entry whose operation, by its properties, uses no memory.
    #[inline]
    pub(crate) fn without_pointers(sqe: Sqe) -> Entry {
        assert!(sqe.points_at_nothing(), "somebody has to vouch for what the entry points to");
        Entry(sqe)
    }

    /// An entry that is never submitted.
    #[cfg(test)]
    pub(crate) fn of_test(sqe: Sqe) -> Entry {
        Entry(sqe)
    }

    /// A timeout that expires after `time`.
    pub(crate) fn timeout(time: &'static Timespec) -> Entry {
        let addr = std::ptr::from_ref(time) as u64;
        Entry(Sqe { opcode: opcodes::TIMEOUT, fd: -1, addr, len: 1, ..Sqe::default() })
    }

    /// Links the entry to the next one, which begins after it.
    pub(crate) fn linked(self) -> Entry {
        Entry(Sqe { flags: self.0.flags | flags::IO_LINK, ..self.0 })
    }

    /// A send that the kernel continues until everything is sent.
    pub(crate) fn waiting_for_all(self) -> Entry {
        assert!(self.0.opcode == opcodes::SEND, "others have other flags");
        Entry(Sqe { op_flags: self.0.op_flags | libc::MSG_WAITALL as u32, ..self.0 })
    }

    /// A write or a send of the rest of its buffer after `count` bytes; with `moves`, the file
    /// offset advances too.
    pub(crate) fn rest(self, count: u32, moves: bool) -> Entry {
        let Sqe { opcode, addr, len, off, .. } = self.0;
        assert!(
            matches!(opcode, opcodes::WRITE | opcodes::SEND) && count <= len,
            "of others, `len` is not in bytes"
        );
        let off = off + if moves { u64::from(count) } else { 0 };
        Entry(Sqe { addr: addr + u64::from(count), len: len - count, off, ..self.0 })
    }
}

impl Deref for Entry {
    type Target = Sqe;

    #[inline]
    fn deref(&self) -> &Sqe {
        &self.0
    }
}

/// `IOSQE_*`.
pub(crate) mod flags {
    pub(crate) const FIXED_FILE: u8 = 1 << 0;
    pub(crate) const IO_DRAIN: u8 = 1 << 1;
    pub(crate) const IO_LINK: u8 = 1 << 2;
    pub(crate) const IO_HARDLINK: u8 = 1 << 3;
    pub(crate) const ASYNC: u8 = 1 << 4;
    pub(crate) const BUFFER_SELECT: u8 = 1 << 5;
    pub(crate) const CQE_SKIP_SUCCESS: u8 = 1 << 6;
    pub(crate) const KNOWN: u8 = (1 << 7) - 1;
}

/// A time as the kernel takes it: `struct __kernel_timespec`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

impl Timespec {
    pub(crate) const fn from_nanos(nanos: u64) -> Timespec {
        Timespec {
            seconds: (nanos / 1_000_000_000) as i64,
            nanoseconds: (nanos % 1_000_000_000) as i64,
        }
    }
}

/// `POLL*` in the form of a poll entry: big-endian machines swap the halves, because the field once
/// had 16 bits.
pub(crate) const fn poll_events(events: u32) -> u32 {
    if cfg!(target_endian = "big") { events.rotate_left(16) } else { events }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A receive into a buffer ring points at nothing; an unknown operation might point at memory.
    #[test]
    fn what_points_at_memory_needs_somebody_to_vouch_for_it() {
        let points = |opcode, addr| !Sqe { opcode, addr, ..Sqe::default() }.points_at_nothing();
        assert!(
            points(opcodes::READ, 0)
                && points(opcodes::CONNECT, 1)
                && points(opcodes::RECV, 1)
                && points(u8::MAX, 0)
        );
        assert!(
            !points(opcodes::FALLOCATE, 1)
                && !points(opcodes::RECV, 0)
                && !points(opcodes::ASYNC_CANCEL, 1)
        );
    }
}
