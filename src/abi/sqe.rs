//! A submission queue entry: what the kernel is asked to do.
//!
//! `unsafe` lives here because an [`Entry`] is a promise: what it points to lives until its last
//! completion. Safe functions make those alone that point at nothing, or at what lives for ever.

use std::mem::offset_of;
use std::ops::Deref;

use super::opcodes;

/// A submission queue entry, field by field as in the kernel's `struct io_uring_sqe`: for
/// [`Loop::submit`], which takes any operation that the kernel knows. io_uring_enter(2) says what
/// each operation makes of the fields.
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
    /// The priority of the request; for some operations, flags of their own.
    pub ioprio: u16,
    /// The descriptor that it is about.
    pub fd: i32,
    /// An offset in a file, or a second address.
    pub off: u64,
    /// The address of a buffer, a path, an array.
    pub addr: u64,
    /// The length of what `addr` points to, or the number of its elements.
    pub len: u32,
    /// Flags of the operation (`rw_flags`, `msg_flags`, `open_flags` and so on).
    pub op_flags: u32,
    /// Belongs to the loop, which writes it.
    pub user_data: u64,
    /// The index of a registered buffer, or the group of a provided one.
    pub buf_index: u16,
    /// The registered credentials to use, 0 for the process's own.
    pub personality: u16,
    /// A descriptor to splice from, or the place of a direct descriptor (`splice_fd_in`,
    /// `file_index`).
    pub file_index: u32,
    /// A third address.
    pub addr3: u64,
    /// Zero so far.
    pub pad: u64,
}

/// Where the fields stand in `struct io_uring_sqe` of linux/io_uring.h: the ring gives an entry to
/// the kernel as it is.
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

/// An entry for which somebody vouches: what it points to lives until its last completion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry(Sqe);

impl Entry {
    /// # Safety
    /// What the entry points to lives until the kernel has let go of it: until its last completion.
    #[allow(unsafe_code)]
    #[inline]
    pub(crate) unsafe fn new(sqe: Sqe) -> Entry {
        Entry(sqe)
    }

    /// An entry that points at nothing, by what is known of its operation.
    #[inline]
    pub(crate) fn pointless(sqe: Sqe) -> Entry {
        assert!(sqe.points_at_nothing(), "somebody has to vouch for what the entry points to");
        Entry(sqe)
    }

    /// One that is not submitted.
    #[cfg(test)]
    pub(crate) fn of_test(sqe: Sqe) -> Entry {
        Entry(sqe)
    }

    /// One that ends when `time` has passed.
    pub(crate) fn timeout(time: &'static Timespec) -> Entry {
        let addr = std::ptr::from_ref(time) as u64;
        Entry(Sqe { opcode: opcodes::TIMEOUT, fd: -1, addr, len: 1, ..Sqe::default() })
    }

    /// It begins the next one in a chain.
    pub(crate) fn linked(self) -> Entry {
        Entry(Sqe { flags: self.0.flags | flags::IO_LINK, ..self.0 })
    }

    /// A write or a send of what is left of its buffer when `count` bytes of it are through; with
    /// `moves`, they were so many of a file.
    pub(crate) fn rest(self, count: u32, moves: bool) -> Entry {
        let Sqe { opcode, addr, len, off, .. } = self.0;
        assert!(
            matches!(opcode, opcodes::WRITE | opcodes::SEND) && count <= len,
            "of others, `len` is not in bytes"
        );
        let off = off + if moves { u64::from(count) } else { 0 };
        Entry(Sqe { addr: addr + u64::from(count), len: len - count, off, ..self.0 })
    }

    /// The entry as the kernel gets it, which tells the number with each completion.
    #[inline]
    pub(crate) fn with_number(self, number: u64) -> Sqe {
        Sqe { user_data: number, ..self.0 }
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

/// `POLL*` as an entry of a poll has them: on big-endian machines its halves change places, since
/// the field once had 16 bits.
pub(crate) const fn poll_events(events: u32) -> u32 {
    if cfg!(target_endian = "big") { events.rotate_left(16) } else { events }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_of_a_poll_stand_where_the_kernel_looks_for_them() {
        // The kernel's field of 16 bits is the first half of the word, whatever the order of bytes.
        let events = poll_events(libc::POLLIN as u32).to_ne_bytes();
        assert_eq!(u16::from_ne_bytes([events[0], events[1]]), libc::POLLIN as u16);
    }
}
