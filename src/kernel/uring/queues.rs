//! The two queues and the system calls, as far as they are `unsafe`.
//!
//! An entry comes in as an `Entry`, for which somebody vouches; so whatever stands in the queue may
//! be submitted. The ring is unmapped and closed in the process that it was made in, and nowhere
//! else.

use std::io;
use std::mem::ManuallyDrop;

use io_uring::{EnterFlags, IoUring, squeue};

use super::Kernel;
use super::setup::uninterrupted;
use super::timeout::UPDATE;
use crate::abi::opcodes;
use crate::abi::sqe::{Entry, Sqe, Timespec};
use crate::error::{Error, Result, Sentence};
use crate::sys::fork::Process;
use crate::sys::memory::try_box;

const _: () = assert!(size_of::<squeue::Entry>() == size_of::<Sqe>());

pub(super) struct Queues {
    pub(super) uring: ManuallyDrop<IoUring>,
    pub(super) process: Process,
    /// How many entries have been queued.
    pushed: u64,
    /// The numbers of the last ones, as many as the queue holds: a power of two. The n-th since the
    /// beginning stands in the place n modulo their count.
    numbers: Box<[u64]>,
    /// When the ring's own timeout comes. The kernel reads it when it takes the entry.
    time: Box<Timespec>,
}

impl Queues {
    pub(super) fn new(uring: IoUring, process: Process) -> Result<Queues> {
        let capacity = uring.params().sq_entries() as usize;
        let mut numbers = Vec::new();
        numbers.try_reserve_exact(capacity)?;
        numbers.resize(capacity, 0);
        let (time, numbers) = (try_box(Timespec::default())?, numbers.into_boxed_slice());
        Ok(Queues { uring: ManuallyDrop::new(uring), process, pushed: 0, numbers, time })
    }

    /// How many entries have been queued since the beginning, and how many of these has the kernel
    /// taken.
    #[inline]
    pub(super) fn counts(&mut self) -> (u64, u64) {
        (self.pushed, self.pushed - self.uring.submission().len() as u64)
    }

    /// The numbers of the entries that are queued and that the kernel has not taken.
    pub(super) fn untaken(&mut self) -> impl Iterator<Item = u64> {
        let (pushed, taken) = self.counts();
        (taken..pushed).map(|at| self.numbers[at as usize % self.numbers.len()])
    }

    /// Queues an entry. There is room for it.
    #[inline]
    pub(super) fn push(&mut self, entry: Entry, number: u64) {
        let sqe = Sqe { user_data: number, ..*entry };
        let at = self.pushed as usize & (self.numbers.len() - 1);
        self.numbers[at] = number;
        self.pushed += 1;
        // SAFETY: both types are the kernel's structure, of 64 bytes (asserted above) in which any
        // bits are valid; what the entry points to lives as long as `Entry` says.
        let pushed = unsafe {
            self.uring.submission().push(&std::mem::transmute::<Sqe, squeue::Entry>(sqe))
        };
        debug_assert!(pushed.is_ok(), "reserve() made room");
    }

    /// Says to the timeouts that are pushed, and that the kernel has not taken, when they come.
    pub(super) fn set_time(&mut self, time: Timespec) {
        *self.time = time;
    }

    /// Queues what arms, updates or removes the ring's own timeout; where the time is, it says
    /// here. There is room for it.
    pub(super) fn push_timed(&mut self, sqe: Sqe, number: u64) {
        let time = &raw const *self.time as u64;
        let sqe = match sqe.opcode {
            opcodes::TIMEOUT => Sqe { addr: time, ..sqe },
            opcodes::TIMEOUT_REMOVE if sqe.op_flags & UPDATE != 0 => Sqe { off: time, ..sqe },
            _ => sqe,
        };
        assert!(matches!(sqe.opcode, opcodes::TIMEOUT | opcodes::TIMEOUT_REMOVE));
        // SAFETY: such an entry points at nothing but the time, which is boxed, and is read by an
        // enter of these queues.
        self.push(unsafe { Entry::new(sqe) }, number);
    }

    /// Submits `queued` entries, waits for `wanted` completions, and has the kernel post what it
    /// holds back.
    #[inline]
    pub(super) fn enter(&mut self, queued: usize, wanted: u32) -> io::Result<usize> {
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument is passed, and only `push` has queued entries.
        unsafe { self.uring.submitter().enter::<()>(queued as u32, wanted, flags, None) }
    }
}

impl Kernel {
    /// Shows the kernel a ring of buffers as `group`; it fills each bit by bit where it can.
    ///
    /// # Safety
    /// The ring, and the buffers whose addresses are put into it, live until they are unregistered
    /// or this ring is dropped.
    pub(in crate::kernel) unsafe fn register_buffers(
        &self,
        ring: u64,
        count: u16,
        group: u16,
    ) -> Result<()> {
        const IOU_PBUF_RING_INC: u16 = 2;
        let register = |flags| {
            // SAFETY: the caller keeps the ring and its buffers.
            uninterrupted(|| unsafe {
                self.queues
                    .uring
                    .submitter()
                    .register_buf_ring_with_flags(ring, count, group, flags)
            })
        };
        if self.abilities.fills_buffers_in_parts && register(IOU_PBUF_RING_INC).is_ok() {
            return Ok(());
        }
        register(0).map_err(|errno| Error::new(errno, Sentence::BuffersRefused))
    }

    pub(in crate::kernel) fn unregister_buffers(&self, group: u16) -> Result<()> {
        uninterrupted(|| self.queues.uring.submitter().unregister_buf_ring(group))
            .map_err(|errno| Error::new(errno, Sentence::BuffersRefused))
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        // In a forked child the ring is the parent's, its addresses may hold the child's own memory
        // by now, and the descriptor may be another one: nothing is unmapped and nothing is closed
        // there (S33).
        if self.process.is_current() {
            // SAFETY: it is dropped once, here, and not used again.
            unsafe { ManuallyDrop::drop(&mut self.uring) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::sqe::flags;
    use io_uring::{opcode, types};
    use std::ptr;

    /// The entries of the io-uring crate, which the ring takes, have each field where ours has it.
    #[test]
    fn s13_an_entry_is_what_the_crate_would_make() {
        let address = ptr::without_provenance_mut(0x1112_1314_1516_1718);
        let theirs = opcode::ReadFixed::new(types::Fd(0x2122_2324), address, 0x3132_3334, 0x4142)
            .offset(0x5152_5354_5556_5758)
            .ioprio(0x6162)
            .rw_flags(0x7172_7374)
            .build()
            .user_data(0x8182_8384_8586_8788)
            .personality(0x9192)
            .flags(squeue::Flags::ASYNC);
        let ours = Sqe {
            opcode: opcodes::READ_FIXED,
            flags: flags::ASYNC,
            ioprio: 0x6162,
            fd: 0x2122_2324,
            off: 0x5152_5354_5556_5758,
            addr: 0x1112_1314_1516_1718,
            len: 0x3132_3334,
            op_flags: 0x7172_7374,
            user_data: 0x8182_8384_8586_8788,
            buf_index: 0x4142,
            personality: 0x9192,
            ..Sqe::default()
        };
        // SAFETY: both are the kernel's structure, of 64 bytes (asserted above) in which any bits
        // are valid.
        assert_eq!(unsafe { std::mem::transmute::<squeue::Entry, Sqe>(theirs) }, ours);
    }
}
