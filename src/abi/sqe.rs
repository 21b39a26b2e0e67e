//! A submission queue entry: what the kernel is asked to do.

use std::mem::offset_of;

/// A submission queue entry, field by field as in the kernel's `struct io_uring_sqe`: for [`Loop::submit`], which takes
/// any operation that the kernel knows. io_uring_enter(2) says what each operation makes of the fields.
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
    /// A descriptor to splice from, or the place of a direct descriptor (`splice_fd_in`, `file_index`).
    pub file_index: u32,
    /// A third address.
    pub addr3: u64,
    /// Zero so far.
    pub pad: u64,
}

/// Where the fields stand in `struct io_uring_sqe` of linux/io_uring.h: the ring gives an entry to the kernel as it is.
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

    /// The entry as the kernel gets it, which tells the number with each completion.
    #[inline]
    pub(crate) fn with_number(self, number: u64) -> Sqe {
        Sqe { user_data: number, ..self.0 }
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
        Timespec { seconds: (nanos / 1_000_000_000) as i64, nanoseconds: (nanos % 1_000_000_000) as i64 }
    }
}

/// `POLL*` as an entry of a poll has them: on big-endian machines its halves change places, since the field once had 16 bits.
pub(crate) const fn poll_events(events: u32) -> u32 {
    if cfg!(target_endian = "big") { events.rotate_left(16) } else { events }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::{opcode, squeue, types};
    use std::ptr;

    #[allow(unsafe_code)]
    fn bytes_of_theirs(entry: squeue::Entry) -> [u8; 64] {
        // SAFETY: it is the kernel's structure, which has no padding.
        unsafe { std::mem::transmute(entry) }
    }

    #[allow(unsafe_code)]
    fn bytes_of_ours(sqe: Sqe) -> [u8; 64] {
        // SAFETY: its fields fill it, as is asserted above.
        unsafe { std::mem::transmute(sqe) }
    }

    /// The entries of the io-uring crate, which the ring takes, have each field where ours has it.
    #[test]
    fn s13_an_entry_is_what_the_crate_would_make() {
        let address = |number: usize| ptr::without_provenance_mut::<u8>(number);
        let common = |entry: squeue::Entry| {
            entry.user_data(0x3132_3334_3536_3738).personality(0x4142).flags(squeue::Flags::ASYNC)
        };
        let ours = Sqe { flags: flags::ASYNC, user_data: 0x3132_3334_3536_3738, personality: 0x4142, ..Sqe::default() };
        let slot = types::DestinationSlot::try_from_slot_target(0x5152).unwrap();
        let open = opcode::OpenAt::new(types::Fd(0x1112), address(0x2122_2324).cast());
        let pairs = [
            (
                common(open.flags(0x6162).mode(0x7172).file_index(Some(slot)).build()),
                Sqe {
                    opcode: opcode::OpenAt::CODE,
                    fd: 0x1112,
                    addr: 0x2122_2324,
                    len: 0x7172,
                    op_flags: 0x6162,
                    file_index: 0x5153,
                    ..ours
                },
            ),
            (
                common(
                    opcode::ReadFixed::new(types::Fixed(0x1112), address(0x2122), 0x3132, 0x4142)
                        .offset(0x5152_5354)
                        .ioprio(0x6162)
                        .rw_flags(0x7172)
                        .build(),
                ),
                Sqe {
                    opcode: opcode::ReadFixed::CODE,
                    // To set flags leaves those that are set: it is a registered file.
                    flags: flags::ASYNC | flags::FIXED_FILE,
                    ioprio: 0x6162,
                    fd: 0x1112,
                    off: 0x5152_5354,
                    addr: 0x2122,
                    len: 0x3132,
                    op_flags: 0x7172,
                    buf_index: 0x4142,
                    ..ours
                },
            ),
            (
                common(opcode::Splice::new(types::Fd(1), 0x2122, types::Fd(3), 0x4142, 0x5152).flags(0x62).build()),
                Sqe {
                    opcode: opcode::Splice::CODE,
                    fd: 3,
                    off: 0x4142,
                    addr: 0x2122,
                    len: 0x5152,
                    op_flags: 0x62,
                    file_index: 1,
                    ..ours
                },
            ),
            (
                common(opcode::FutexWait::new(address(0x1112).cast_const().cast(), 0x2122, 0x3132, 0x42).build()),
                Sqe { opcode: opcode::FutexWait::CODE, fd: 0x42, off: 0x2122, addr: 0x1112, addr3: 0x3132, ..ours },
            ),
        ];
        for (theirs, ours) in pairs {
            assert_eq!(bytes_of_theirs(theirs), bytes_of_ours(ours), "{ours:?}");
        }
    }

    #[test]
    fn the_events_of_a_poll_stand_where_the_kernel_looks_for_them() {
        // The kernel's field of 16 bits is the first half of the word, whatever the order of bytes.
        let events = poll_events(libc::POLLIN as u32).to_ne_bytes();
        assert_eq!(u16::from_ne_bytes([events[0], events[1]]), libc::POLLIN as u16);
    }
}
