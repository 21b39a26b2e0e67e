//! The operations of io_uring, one line each: all that the loop has to know of an operation besides
//! how its entry is made.
//!
//! The numbers are those of linux/io_uring.h, from 0 to 64 (Linux 6.19). What holds for numbers
//! beyond is said in one place, `UNKNOWN`. Nothing here asks the kernel: it says itself which
//! operations it has, when a loop is made.

use super::sqe::{Sqe, flags};

/// A version of Linux.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Version(pub(crate) u16, pub(crate) u16);

impl Version {
    /// Comes after every version.
    pub(crate) const ANY: Version = Version(u16::MAX, u16::MAX);
}

/// What holds for every entry with an opcode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    /// The first version that has it.
    pub(crate) since: Version,
    /// The checks of an entry that a user submits.
    pub(crate) check: Check,
    target: Target,
    result: Gives,
    memory: Memory,
}

/// The checks of an entry that a user submits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Check {
    None,
    /// Some flags of a send let the kernel use the buffer after the final completion.
    SendFlags,
    /// A flag of a receive leaves the data in the memory of a device.
    RecvFlags,
    /// Refused: it ends or changes another operation without the loop's knowing.
    Cancels,
    /// Refused: so does this one, with timeouts.
    ChangesTimeout,
    /// Refused: its completion would be taken for one of an entry of the other ring's.
    Messages,
    /// Refused: its entry has 128 bytes, the ring's have 64.
    Has128Bytes,
}

/// What `fd` is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    Descriptor,
    /// Not looked at, or a family, a process, a number of buffers.
    Other,
    /// A descriptor, unless `file_index` names a place in the ring's table.
    DescriptorOrIndex,
    /// The descriptor that is written to; `file_index` is the one that is read from.
    Two,
}

/// The meaning of a result that is no error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gives {
    Number,
    /// A descriptor that belongs to whoever gets it.
    Descriptor,
    /// The same, unless `file_index` names a place in the ring's table for it.
    DescriptorOrPlace,
}

/// What the addresses in an entry point to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Memory {
    /// Nothing: numbers stand in their place.
    None,
    /// Nothing where they are zero: the kernel leaves a result out, or takes the buffer from a ring
    /// of them.
    NoneIfZero,
    /// Memory that the kernel has let go of when the thread that submitted the entry has exited.
    Process,
    /// Memory that may be in a device's hands even then: block devices do not stop, nor does a
    /// network card that sends without a copy (measured on 6.18: 60 of 64 direct reads went on).
    Device,
}

/// An operation of a kernel to come. Of each fact it has the one that does no harm when it is
/// wrong: `fd` is a descriptor (at worst `forget_fd` cancels it without need), the result is a
/// number (a descriptor that nobody has seen stays open), the memory may be in a device's hands (it
/// is never freed when the thread exits). A user may submit it, who vouches for the memory.
const UNKNOWN: Operation = since(u16::MAX, u16::MAX).on_device();

/// An operation on a descriptor that gives a number, and reads or writes memory.
const fn since(major: u16, minor: u16) -> Operation {
    Operation {
        since: Version(major, minor),
        check: Check::None,
        target: Target::Descriptor,
        result: Gives::Number,
        memory: Memory::Process,
    }
}

impl Operation {
    const fn on(self, target: Target) -> Operation {
        Operation { target, ..self }
    }

    const fn gives(self, result: Gives) -> Operation {
        Operation { result, ..self }
    }

    const fn uses(self, memory: Memory) -> Operation {
        Operation { memory, ..self }
    }

    const fn on_device(self) -> Operation {
        self.uses(Memory::Device)
    }

    const fn without_memory(self) -> Operation {
        self.uses(Memory::None)
    }

    const fn checks(self, check: Check) -> Operation {
        Operation { check, ..self }
    }
}

impl Sqe {
    /// What holds for its operation.
    #[inline]
    pub(crate) fn operation(&self) -> &'static Operation {
        of(self.opcode)
    }

    /// The descriptor that it is on, or -1 where it has something else in its place: a family, a
    /// process, a place in the ring's table.
    #[inline]
    pub(crate) fn descriptor(&self) -> i32 {
        let is_one = match self.operation().target {
            Target::Descriptor | Target::Two => true,
            Target::Other => false,
            Target::DescriptorOrIndex => self.file_index == 0,
        };
        if is_one && self.flags & flags::FIXED_FILE == 0 { self.fd } else { -1 }
    }

    /// The other descriptor that it is on, if there is one: what it splices from.
    #[inline]
    pub(crate) fn second_descriptor(&self) -> Option<i32> {
        /// `SPLICE_F_FD_IN_FIXED`: it is a place in the ring's table.
        const FROM_TABLE: u32 = 1 << 31;
        let has_one = self.operation().target == Target::Two && self.op_flags & FROM_TABLE == 0;
        has_one.then_some(self.file_index as i32)
    }

    /// Whether its result is a descriptor that belongs to whoever gets it, and not a place in the
    /// ring's table.
    #[inline]
    pub(crate) fn gives_descriptor(&self) -> bool {
        match self.operation().result {
            Gives::Number => false,
            Gives::Descriptor => true,
            Gives::DescriptorOrPlace => self.file_index == 0,
        }
    }

    /// Whether what the kernel reads or writes may be in its hands when the thread that submitted
    /// it has exited.
    #[inline]
    pub(crate) fn may_outlive_thread(&self) -> bool {
        self.operation().memory == Memory::Device
    }

    /// Whether the kernel reads or writes no memory by its addresses.
    #[inline]
    pub(crate) fn points_at_nothing(&self) -> bool {
        match self.operation().memory {
            Memory::None => true,
            Memory::NoneIfZero => self.addr == 0 && self.off == 0,
            Memory::Process | Memory::Device => false,
        }
    }
}

/// What is known of an operation, by its number.
#[inline]
pub(crate) fn of(opcode: u8) -> &'static Operation {
    &OPERATIONS[usize::from(opcode)]
}

/// Declares each operation as a constant and as a line of the table.
macro_rules! operations {
    ($($name:ident = $number:literal: $operation:expr;)*) => {
        $(pub(crate) const $name: u8 = $number;)*

        /// All operations, by their numbers.
        static OPERATIONS: [Operation; 256] = {
            let mut operations = [UNKNOWN; 256];
            $(operations[$name as usize] = $operation;)*
            operations
        };

        #[cfg(test)]
        const NAMES: &[(&str, u8)] = &[$((stringify!($name), $number),)*];
    };
}

use Check::{Cancels, ChangesTimeout, Has128Bytes, Messages, RecvFlags, SendFlags};
use Gives::{Descriptor, DescriptorOrPlace};
use Memory::NoneIfZero;
use Target::{DescriptorOrIndex, Other, Two};

operations! {
    NOP                =  0: since(5, 1).without_memory().on(Other);
    READV              =  1: since(5, 1).on_device();
    WRITEV             =  2: since(5, 1).on_device();
    FSYNC              =  3: since(5, 1).without_memory();
    READ_FIXED         =  4: since(5, 1).on_device();
    WRITE_FIXED        =  5: since(5, 1).on_device();
    POLL_ADD           =  6: since(5, 1).without_memory();
    POLL_REMOVE        =  7: since(5, 1).without_memory().on(Other).checks(Cancels);
    SYNC_FILE_RANGE    =  8: since(5, 2).without_memory();
    SENDMSG            =  9: since(5, 3).checks(SendFlags);
    RECVMSG            = 10: since(5, 3).checks(RecvFlags);
    TIMEOUT            = 11: since(5, 4).on(Other);
    TIMEOUT_REMOVE     = 12: since(5, 5).on(Other).checks(ChangesTimeout);
    ACCEPT             = 13: since(5, 5).uses(NoneIfZero).gives(DescriptorOrPlace);
    ASYNC_CANCEL       = 14: since(5, 5).without_memory().on(Other).checks(Cancels);
    LINK_TIMEOUT       = 15: since(5, 5).on(Other).checks(ChangesTimeout);
    CONNECT            = 16: since(5, 5);
    FALLOCATE          = 17: since(5, 6).without_memory();
    OPENAT             = 18: since(5, 6).gives(DescriptorOrPlace);
    CLOSE              = 19: since(5, 6).without_memory().on(DescriptorOrIndex);
    FILES_UPDATE       = 20: since(5, 6).on(Other);
    STATX              = 21: since(5, 6);
    READ               = 22: since(5, 6).on_device();
    WRITE              = 23: since(5, 6).on_device();
    FADVISE            = 24: since(5, 6).without_memory();
    MADVISE            = 25: since(5, 6).on(Other);
    SEND               = 26: since(5, 6).checks(SendFlags);
    RECV               = 27: since(5, 6).uses(NoneIfZero).checks(RecvFlags);
    OPENAT2            = 28: since(5, 6).gives(DescriptorOrPlace);
    EPOLL_CTL          = 29: since(5, 6);
    SPLICE             = 30: since(5, 7).without_memory().on(Two);
    PROVIDE_BUFFERS    = 31: since(5, 7).on(Other);
    REMOVE_BUFFERS     = 32: since(5, 7).without_memory().on(Other);
    TEE                = 33: since(5, 8).without_memory().on(Two);
    SHUTDOWN           = 34: since(5, 11).without_memory();
    RENAMEAT           = 35: since(5, 11);
    UNLINKAT           = 36: since(5, 11);
    MKDIRAT            = 37: since(5, 15);
    SYMLINKAT          = 38: since(5, 15);
    LINKAT             = 39: since(5, 15);
    MSG_RING           = 40: since(5, 18).checks(Messages);
    FSETXATTR          = 41: since(5, 19);
    SETXATTR           = 42: since(5, 19).on(Other);
    FGETXATTR          = 43: since(5, 19);
    GETXATTR           = 44: since(5, 19).on(Other);
    SOCKET             = 45: since(5, 19).without_memory().on(Other).gives(DescriptorOrPlace);
    URING_CMD          = 46: since(5, 19).on_device();
    SEND_ZC            = 47: since(6, 0).on_device();
    SENDMSG_ZC         = 48: since(6, 1).on_device();
    READ_MULTISHOT     = 49: since(6, 7).uses(NoneIfZero);
    WAITID             = 50: since(6, 7).uses(NoneIfZero).on(Other);
    FUTEX_WAIT         = 51: since(6, 7).on(Other);
    FUTEX_WAKE         = 52: since(6, 7).on(Other);
    FUTEX_WAITV        = 53: since(6, 7).on(Other);
    FIXED_FD_INSTALL   = 54: since(6, 8).without_memory().gives(Descriptor);
    FTRUNCATE          = 55: since(6, 9).without_memory();
    BIND               = 56: since(6, 11);
    LISTEN             = 57: since(6, 11).without_memory();
    RECV_ZC            = 58: since(6, 15);
    EPOLL_WAIT         = 59: since(6, 15);
    READV_FIXED        = 60: since(6, 15).on_device();
    WRITEV_FIXED       = 61: since(6, 15).on_device();
    PIPE               = 62: since(6, 16).on(Other);
    NOP128             = 63: since(6, 19).checks(Has128Bytes);
    URING_CMD128       = 64: since(6, 19).checks(Has128Bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table has the numbers one after the other, and no operation is older than one before it.
    #[test]
    fn operations_come_in_the_order_of_their_versions() {
        let versions = |&(_, number): &(&str, u8)| of(number).since;
        assert!(NAMES.iter().enumerate().all(|(at, &(_, number))| at == usize::from(number)));
        assert!(NAMES.is_sorted_by_key(versions) && of(NAMES.len() as u8).since == Version::ANY);
    }

    /// A receive into a ring of buffers points at nothing, and what nobody knows might.
    #[test]
    fn what_points_at_memory_needs_somebody_to_vouch_for_it() {
        let points = |opcode, addr| !Sqe { opcode, addr, ..Sqe::default() }.points_at_nothing();
        assert!(points(READ, 0) && points(CONNECT, 1) && points(RECV, 1) && points(u8::MAX, 0));
        assert!(!points(FALLOCATE, 1) && !points(RECV, 0) && !points(ASYNC_CANCEL, 1));
    }

    /// Names and numbers are those of the header of this machine, as far as that goes.
    #[test]
    fn operations_have_the_numbers_of_the_header() {
        let Ok(header) = std::fs::read_to_string("/usr/include/linux/io_uring.h") else { return };
        let names = header
            .lines()
            .filter_map(|line| line.trim().strip_prefix("IORING_OP_")?.strip_suffix(','));
        let names: Vec<&str> = names.take_while(|&name| name != "LAST").collect();
        assert!(names.len() > usize::from(SENDMSG_ZC));
        assert!(names.iter().zip(NAMES).all(|(theirs, (ours, _))| theirs == ours), "{names:?}");
    }
}
