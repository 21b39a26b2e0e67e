//! The operations of io_uring, one line each: all that the loop has to know of an operation besides
//! how its entry is made.
//!
//! The numbers are those of linux/io_uring.h, from 0 to 64 (Linux 6.19). What holds for numbers
//! beyond is said in one place, `UNKNOWN`. Nothing here asks the kernel: it says itself which
//! operations it has, when a loop is made.

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
    pub(super) target: Target,
    /// Whether its result is a descriptor that belongs to whoever gets it, unless `file_index`
    /// names a place in the ring's table for it.
    pub(super) gives_descriptor: bool,
    pub(super) memory: Memory,
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
pub(super) enum Target {
    Descriptor,
    /// Not looked at, or a family, a process, a number of buffers.
    Other,
    /// A descriptor, unless `file_index` names a place in the ring's table.
    DescriptorOrIndex,
    /// The descriptor that is written to; `file_index` is the one that is read from.
    Two,
}

/// What the addresses in an entry point to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Memory {
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

    /// The table has the numbers one after the other, and no operation is older than one before it.
    #[test]
    fn operations_come_in_the_order_of_their_versions() {
        let versions = |&(_, number): &(&str, u8)| of(number).since;
        assert!(NAMES.iter().enumerate().all(|(at, &(_, number))| at == usize::from(number)));
        assert!(NAMES.is_sorted_by_key(versions) && of(NAMES.len() as u8).since == Version::ANY);
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
