//! The two queues and the system calls, as far as they are `unsafe`.
//!
//! An entry comes in as an `Entry`, for which somebody vouches; so whatever stands in the queue may be submitted. The ring
//! is unmapped and closed in the process that it was made in, and nowhere else.

use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

use io_uring::{EnterFlags, IoUring, squeue};

use crate::abi::sqe::{Entry, Sqe};
use crate::error::Result;
use crate::sys::fork::Process;

const _: () = assert!(size_of::<squeue::Entry>() == size_of::<Sqe>());

pub(super) struct Queues {
    uring: ManuallyDrop<IoUring>,
    pub(super) process: Process,
    /// How many entries have been queued.
    pushed: u64,
    /// The numbers of the last ones, as many as the queue holds: a power of two. The n-th since the beginning stands in the place n
    /// modulo their count.
    numbers: Box<[u64]>,
}

impl Queues {
    pub(super) fn new(uring: IoUring, process: Process) -> Result<Queues> {
        let capacity = uring.params().sq_entries() as usize;
        let mut numbers = Vec::new();
        numbers.try_reserve_exact(capacity)?;
        numbers.resize(capacity, 0);
        Ok(Queues { uring: ManuallyDrop::new(uring), process, pushed: 0, numbers: numbers.into_boxed_slice() })
    }

    /// How many entries have been queued since the beginning, and how many of these has the kernel taken.
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
        let sqe = entry.with_number(number);
        let at = self.pushed as usize & (self.numbers.len() - 1);
        self.numbers[at] = number;
        self.pushed += 1;
        // SAFETY: both types are the kernel's structure, of 64 bytes (asserted above) in which any bits are valid; what the entry
        // points to lives as long as `Entry` says.
        let pushed = unsafe { self.uring.submission().push(&std::mem::transmute::<Sqe, squeue::Entry>(sqe)) };
        debug_assert!(pushed.is_ok(), "reserve() made room");
    }

    /// Submits `queued` entries, waits for `wanted` completions, and has the kernel post what it holds back.
    #[inline]
    pub(super) fn enter(&mut self, queued: usize, wanted: u32) -> io::Result<usize> {
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument is passed, and only `push` has queued entries.
        unsafe { self.uring.submitter().enter::<()>(queued as u32, wanted, flags, None) }
    }

    /// Shows the kernel a ring of `count` buffers as `group`.
    ///
    /// # Safety
    /// The ring, and the buffers whose addresses are put into it, live until they are unregistered or these queues are dropped.
    pub(super) unsafe fn register_buffers(&self, ring: u64, count: u16, group: u16, flags: u16) -> io::Result<()> {
        // SAFETY: the caller keeps both so long.
        unsafe { self.uring.submitter().register_buf_ring_with_flags(ring, count, group, flags) }
    }
}

impl Deref for Queues {
    type Target = IoUring;

    #[inline]
    fn deref(&self) -> &IoUring {
        &self.uring
    }
}

impl DerefMut for Queues {
    #[inline]
    fn deref_mut(&mut self) -> &mut IoUring {
        &mut self.uring
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        // In a forked child the ring is the parent's, its addresses may hold the child's own memory by now, and the descriptor
        // may be another one: nothing is unmapped and nothing is closed there (S33).
        if self.process.is_current() {
            // SAFETY: it is dropped once, here, and not used again.
            unsafe { ManuallyDrop::drop(&mut self.uring) };
        }
    }
}
