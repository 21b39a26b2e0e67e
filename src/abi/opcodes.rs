//! The properties of each io_uring operation, one line each.
//!
//! The numbers are those of linux/io_uring.h, from 0 to 64 (Linux 6.19). `UNKNOWN` has the
//! properties of greater numbers. A loop probes the kernel for the operations that it supports;
//! nothing here does.

/// A version of Linux.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Version(pub(crate) u16, pub(crate) u16);

impl Version {
    /// Greater than every version.
    pub(crate) const ANY: Version = Version(u16::MAX, u16::MAX);
}

/// The properties of an opcode. (`task::operation` has its own `Operation`, a future.)
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    /// The first kernel version that has it.
    pub(crate) since: Version,
    /// The check of an entry that a user submits.
    pub(crate) check: Check,
    pub(super) target: Target,
    /// Whether its result is a descriptor that belongs to the receiver, unless `file_index` selects
    /// a place in the ring's table for it.
    pub(super) gives_descriptor: bool,
    pub(super) memory: Memory,
}

/// The check of an entry that a user submits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Check {
    None,
    /// Some flags of a send let the kernel use the buffer after the final completion.
    SendFlags,
    /// A flag of a receive leaves the data in the memory of a device.
    RecvFlags,
    /// Refused: it would end or change another operation without notice to the loop.
    Cancels,
    /// Refused for the same reason, with timeouts.
    ChangesTimeout,
    /// Refused: the receiving ring would take its completion for one of its own entries.
    Messages,
    /// Refused: its entry has 128 bytes, those of the ring have 64.
    Has128Bytes,
}

/// The meaning of `fd`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Descriptor,
    /// Ignored, or a family, a process, a number of buffers.
    Other,
    /// A descriptor, unless `file_index` selects a place in the ring's table.
    DescriptorOrIndex,
    /// The descriptor that is written to; `file_index` is the descriptor that is read from.
    Two,
}

/// The memory that the addresses of an entry point to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Memory {
    /// None: the fields contain numbers.
    None,
    /// None if they are zero: the kernel omits a result, or takes a buffer from a ring.
    NoneIfZero,
    /// Memory that the kernel has released once the submitting thread has exited.
    Process,
    /// Memory that a device may still use then: block devices do not stop, nor does a network card
    /// that sends without a copy (measured on 6.18: 60 of 64 direct reads continued).
    Device,
}

/// An operation of a future kernel. Each property is the one that does no harm if it is wrong: `fd`
/// is a descriptor (at worst `forget_fd` cancels the operation needlessly), the result is a number
/// (a descriptor that was never delivered stays open), a device may use the memory (it is never
/// freed when the thread exits). The user who submits it is responsible for the memory.
const UNKNOWN: Operation = since(u16::MAX, u16::MAX).on_device();

/// An operation on a descriptor that returns a number, and reads or writes memory.
const fn since(major: u16, minor: u16) -> Operation {
    Operation {
        since: Version(major, minor),
        check: Check::None,
        target: Target::Descriptor,
        gives_descriptor: false,
        memory: Memory::Process,
    }
}

impl Operation {
    const fn on(self, target: Target) -> Operation {
        Operation { target, ..self }
    }

    const fn gives_descriptor(self) -> Operation {
        Operation { gives_descriptor: true, ..self }
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

/// The properties of an operation, by its number.
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
    ACCEPT             = 13: since(5, 5).uses(NoneIfZero).gives_descriptor();
    ASYNC_CANCEL       = 14: since(5, 5).without_memory().on(Other).checks(Cancels);
    LINK_TIMEOUT       = 15: since(5, 5).on(Other).checks(ChangesTimeout);
    CONNECT            = 16: since(5, 5);
    FALLOCATE          = 17: since(5, 6).without_memory();
    OPENAT             = 18: since(5, 6).gives_descriptor();
    CLOSE              = 19: since(5, 6).without_memory().on(DescriptorOrIndex);
    FILES_UPDATE       = 20: since(5, 6).on(Other);
    STATX              = 21: since(5, 6);
    READ               = 22: since(5, 6).on_device();
    WRITE              = 23: since(5, 6).on_device();
    FADVISE            = 24: since(5, 6).without_memory();
    MADVISE            = 25: since(5, 6).on(Other);
    SEND               = 26: since(5, 6).checks(SendFlags);
    RECV               = 27: since(5, 6).uses(NoneIfZero).checks(RecvFlags);
    OPENAT2            = 28: since(5, 6).gives_descriptor();
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
    SOCKET             = 45: since(5, 19).without_memory().on(Other).gives_descriptor();
    URING_CMD          = 46: since(5, 19).on_device();
    SEND_ZC            = 47: since(6, 0).on_device();
    SENDMSG_ZC         = 48: since(6, 1).on_device();
    READ_MULTISHOT     = 49: since(6, 7).uses(NoneIfZero);
    WAITID             = 50: since(6, 7).uses(NoneIfZero).on(Other);
    FUTEX_WAIT         = 51: since(6, 7).on(Other);
    FUTEX_WAKE         = 52: since(6, 7).on(Other);
    FUTEX_WAITV        = 53: since(6, 7).on(Other);
    FIXED_FD_INSTALL   = 54: since(6, 8).without_memory().gives_descriptor();
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

    /// The table is in the order of numbers, and no operation is older than its predecessor.
    #[test]
    fn operations_come_in_the_order_of_their_versions() {
        let versions = |&(_, number): &(&str, u8)| of(number).since;
        assert!(NAMES.iter().enumerate().all(|(at, &(_, number))| at == usize::from(number)));
        assert!(NAMES.is_sorted_by_key(versions) && of(NAMES.len() as u8).since == Version::ANY);
    }

    /// Names and numbers match the header of this machine, up to its last operation.
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
