//! The two queues and the system calls, as far as they are `unsafe`.
//!
//! Only an `Entry` can be queued, whose maker guarantees its memory; so everything in the queue may
//! be submitted. The ring is unmapped and closed only in the process that made it.

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
    pushed: u64,
    /// The numbers of the last entries, as many as the queue holds, a power of two. The n-th entry
    /// is at index n modulo this count.
    numbers: Box<[u64]>,
    /// The time of the ring's own timeout. The kernel reads it when it takes the entry.
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

    /// The number of entries queued since the beginning, and the number of those that the kernel
    /// has taken.
    #[inline]
    pub(super) fn counts(&mut self) -> (u64, u64) {
        (self.pushed, self.pushed - self.uring.submission().len() as u64)
    }

    /// The numbers of the queued entries that the kernel has not taken.
    pub(super) fn untaken(&mut self) -> impl Iterator<Item = u64> {
        let (pushed, taken) = self.counts();
        (taken..pushed).map(|at| self.numbers[at as usize % self.numbers.len()])
    }

    /// Queues an entry. Needs space in the queue.
    #[inline]
    pub(super) fn push(&mut self, entry: Entry, number: u64) {
        let sqe = Sqe { user_data: number, ..*entry };
        let at = self.pushed as usize & (self.numbers.len() - 1);
        self.numbers[at] = number;
        self.pushed += 1;
        // SAFETY: the assertion above shows that both types are the kernel's 64-byte structure, in
        // which all bits are valid, and the maker of the `Entry` guarantees its memory.
        let pushed = unsafe {
            self.uring.submission().push(&std::mem::transmute::<Sqe, squeue::Entry>(sqe))
        };
        debug_assert!(pushed.is_ok(), "reserve() made room");
    }

    /// Changes the time of queued timeouts that the kernel has not taken.
    pub(super) fn set_time(&mut self, time: Timespec) {
        *self.time = time;
    }

    /// Queues an entry that arms, updates or removes the ring's own timeout, and sets the address
    /// of the time. Needs space in the queue.
    pub(super) fn push_timed(&mut self, sqe: Sqe, number: u64) {
        let time = &raw const *self.time as u64;
        let sqe = match sqe.opcode {
            opcodes::TIMEOUT => Sqe { addr: time, ..sqe },
            opcodes::TIMEOUT_REMOVE if sqe.op_flags & UPDATE != 0 => Sqe { off: time, ..sqe },
            _ => sqe,
        };
        assert!(matches!(sqe.opcode, opcodes::TIMEOUT | opcodes::TIMEOUT_REMOVE));
        // SAFETY: such an entry points only at the boxed time, which lives as long as these queues
        // and is read during their enter.
        self.push(unsafe { Entry::new(sqe) }, number);
    }

    /// Submits `queued` entries, waits for `wanted` completions, and makes the kernel post
    /// completions that it holds back.
    #[inline]
    pub(super) fn enter(&mut self, queued: usize, wanted: u32) -> io::Result<usize> {
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument is passed, and `push` guarantees the queued entries.
        unsafe { self.uring.submitter().enter::<()>(queued as u32, wanted, flags, None) }
    }
}

impl Kernel {
    /// Registers a buffer ring as `group`, with incremental filling where the kernel has it.
    ///
    /// # Safety
    /// The ring, and the buffers whose addresses are put into it, live until the ring is
    /// unregistered or this kernel is dropped.
    pub(in crate::kernel) unsafe fn register_buffers(
        &self,
        ring: u64,
        count: u16,
        group: u16,
    ) -> Result<()> {
        const IOU_PBUF_RING_INC: u16 = 2;
        let register = |flags| {
            // SAFETY: the caller guarantees that the ring and its buffers live.
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
        // In a forked child, nothing is unmapped or closed (S33): the ring is the parent's, its
        // addresses may be other memory of the child by now, and the descriptor may be another one.
        if self.process.is_current() {
            // SAFETY: the field is dropped only here, and not used afterwards.
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

    /// Each field of ours has the offset of the io-uring crate's entry, which the ring takes.
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
        // SAFETY: the assertion above shows that both types are the kernel's 64-byte structure, in
        // which all bits are valid.
        assert_eq!(unsafe { std::mem::transmute::<squeue::Entry, Sqe>(theirs) }, ours);
    }
}
