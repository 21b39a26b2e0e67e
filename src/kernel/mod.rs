//! What a loop asks of a kernel, and who answers.
//!
//! Entries (`abi::sqe`) are the language: the loop queues them under numbers, and gets completions
//! with these numbers back. `uring` hands them to io_uring. An entry comes with somebody's word for
//! the memory that it points to, so that whoever executes it may use that until the last
//! completion. Nothing here knows what is pending in a loop, nor calls user code.
//!
//! A kernel is used by one thread at a time, that of its loop. In a forked child it does nothing,
//! and dropping it there leaves the parent's alone.

#[allow(unsafe_code)]
pub(crate) mod buffers;
mod uring;

use std::os::fd::RawFd;

use nix::sys::eventfd::EventFd;

use crate::abi::completion::Completed;
use crate::abi::opcodes;
use crate::abi::sqe::Entry;
use crate::error::{Error, Result};
use crate::sys::fork::Process;

/// Who executes the entries of a loop.
#[derive(Debug)]
pub(crate) enum Kernel {
    Uring(uring::Ring),
}

/// Entries of the two queues; the kernel rounds up to powers of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    sq: u32,
    cq: u32,
}

/// What a wait came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waited {
    /// Something completed, or the kernel takes no submissions at the moment.
    Completed,
    /// A signal ended it before anything completed.
    Interrupted,
}

/// Counts of what passed through.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Traffic {
    pub(crate) submitted: u64,
    pub(crate) completed: u64,
    pub(crate) enters: u64,
    pub(crate) overflows: u64,
}

/// Which operations the kernel has. It was asked when the loop was made, whatever its version:
/// distributions backport.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    /// A bit for each.
    operations: [u64; 4],
}

impl Sizes {
    const DEFAULT_SQ: u32 = 128;
    const LARGEST_SQ: u32 = 32768;
    const LARGEST_CQ: u32 = 65536;

    /// Zero asks for the default: 128 submissions, and 8 completions for each of the submissions.
    pub(crate) fn new(sq: u32, cq: u32) -> Result<Sizes> {
        let sq =
            if sq == 0 { Sizes::DEFAULT_SQ.min(if cq == 0 { u32::MAX } else { cq }) } else { sq };
        let cq = if cq == 0 { sq.saturating_mul(8).min(Sizes::LARGEST_CQ) } else { cq };
        if sq > Sizes::LARGEST_SQ || cq > Sizes::LARGEST_CQ || cq < sq {
            return Err(Error::ENTRIES_OUT_OF_RANGE);
        }
        Ok(Sizes { sq, cq })
    }
}

impl Features {
    fn new(supports: impl Fn(u8) -> bool) -> Features {
        let mut operations = [0; 4];
        for opcode in 0..=u8::MAX {
            operations[usize::from(opcode) / 64] |= u64::from(supports(opcode)) << (opcode % 64);
        }
        Features { operations }
    }

    /// Whether it has an operation.
    #[inline]
    pub(crate) fn supports(&self, opcode: u8) -> bool {
        self.operations[usize::from(opcode) / 64] >> (opcode % 64) & 1 == 1
    }

    /// Whether one accept can give many connections: 5.19, when sockets came as an operation.
    pub(crate) fn accepts_multishot(&self) -> bool {
        self.supports(opcodes::SOCKET)
    }

    /// Whether one receive can give many results, from a ring of buffers: 6.0, when sending without
    /// a copy came.
    pub(crate) fn receives_multishot(&self) -> bool {
        self.supports(opcodes::SEND_ZC)
    }
}

/// Has the kernel that it is answer.
macro_rules! ask {
    ($kernel:expr, $ring:ident => $answer:expr) => {
        match $kernel {
            Kernel::Uring($ring) => $answer,
        }
    };
}

/// Making one, and what is known of it.
impl Kernel {
    /// Sets a ring up: it belongs to whichever thread first enters the kernel with it.
    pub(crate) fn new(sizes: Sizes, process: Process) -> Result<Kernel> {
        Ok(Kernel::Uring(uring::Ring::new(sizes, process)?))
    }

    #[inline]
    pub(crate) fn features(&self) -> &Features {
        ask!(self, ring => ring.features())
    }

    pub(crate) fn traffic(&self) -> Traffic {
        ask!(self, ring => ring.traffic())
    }

    /// Whether it belongs to a thread, since its first entry into the kernel.
    pub(crate) fn is_bound(&self) -> bool {
        ask!(self, ring => ring.is_bound())
    }

    /// How many entries can be queued at once.
    #[cfg_attr(not(feature = "capi"), allow(dead_code, reason = "so far for C alone"))]
    pub(crate) fn capacity(&mut self) -> usize {
        ask!(self, ring => ring.capacity())
    }

    /// The descriptor of the ring, for `io_uring_register`.
    pub(crate) fn fd(&self) -> RawFd {
        ask!(self, ring => ring.fd())
    }

    /// The descriptor that a host loop polls: it is readable, from the first call on, when
    /// something completes and when `wakes` is.
    pub(crate) fn host_fd(&mut self, wakes: &EventFd) -> Result<RawFd> {
        ask!(self, ring => ring.host_fd(wakes))
    }

    /// What only tests do to it.
    #[cfg(test)]
    pub(crate) fn uring(&mut self) -> &mut uring::Ring {
        ask!(self, ring => ring)
    }
}

/// What is queued for it. A full queue is submitted first; EAGAIN when the kernel takes no more at
/// the moment.
impl Kernel {
    /// Makes sure that the next `count` entries can be pushed.
    #[inline]
    pub(crate) fn reserve(&mut self, count: usize) -> Result<()> {
        ask!(self, ring => ring.reserve(count))
    }

    /// Queues an entry, after `reserve`; its completions bear the number given.
    #[inline]
    pub(crate) fn push(&mut self, entry: Entry, number: u64) {
        ask!(self, ring => ring.push(entry, number))
    }

    /// Queues the request to cancel the entry with this number. A refusal comes as a completion
    /// whose number has the bit `CANCEL_REPLY` besides.
    pub(crate) fn cancel(&mut self, number: u64) -> Result<()> {
        ask!(self, ring => ring.cancel(number))
    }

    /// Queues the request that the poll with this number wait for other events. A refusal comes as
    /// one to cancel does. Where polls cannot be updated it is cancelled instead, and is to be
    /// submitted again.
    pub(crate) fn update_poll(&mut self, number: u64, events: u32) -> Result<()> {
        ask!(self, ring => ring.update_poll(number, events))
    }

    /// From now on, a wait ends when `wakes` is written, unless the kernel takes no submissions at
    /// the moment.
    pub(crate) fn watch_wakes(&mut self, wakes: &EventFd) -> Result<()> {
        ask!(self, ring => ring.watch_wakes(wakes))
    }

    /// Whether anything is queued that the kernel has not taken.
    #[inline]
    pub(crate) fn has_queued(&mut self) -> bool {
        ask!(self, ring => ring.has_queued())
    }

    /// Gives the numbers of the entries that are queued and that the kernel has not taken to
    /// `untaken`.
    #[cold]
    pub(crate) fn for_each_untaken(&mut self, untaken: impl FnMut(u64)) {
        ask!(self, ring => ring.for_each_untaken(untaken))
    }
}

/// Submitting and waiting. `until` is on CLOCK_MONOTONIC; `u64::MAX` is no limit.
impl Kernel {
    /// Submits what is queued and lets the kernel post what it holds back. No system call when
    /// neither is there.
    #[inline]
    pub(crate) fn submit(&mut self) -> Result<()> {
        ask!(self, ring => ring.submit())
    }

    /// As `submit`, instead of a wait. While the kernel takes no submissions it pauses until the
    /// next try, at the latest until `until`.
    pub(crate) fn submit_or_pause(&mut self, until: u64) -> Result<()> {
        ask!(self, ring => ring.submit_or_pause(until))
    }

    /// As `submit`, with a timeout that completes at `until`, unless one is armed that comes no
    /// later.
    pub(crate) fn submit_with_timeout(&mut self, until: u64) -> Result<()> {
        ask!(self, ring => ring.submit_with_timeout(until))
    }

    /// Submits what is queued and sleeps until something completes, or wakes are written that are
    /// watched, at the latest until `until`. One system call. It may come back early, for a timeout
    /// that was armed before.
    pub(crate) fn wait(&mut self, until: u64) -> Result<Waited> {
        ask!(self, ring => ring.wait(until))
    }

    /// Submits what is queued and waits until something completes, which may have happened already,
    /// or until `until`.
    pub(crate) fn wait_for_completion(&mut self, until: u64) -> Result<Waited> {
        ask!(self, ring => ring.wait_for_completion(until))
    }

    /// Submits what is queued, and has the kernel do the work that it has put off, of which there
    /// are `most` pieces at most. One system call as a rule.
    pub(crate) fn settle(&mut self, most: usize) -> Result<()> {
        ask!(self, ring => ring.settle(most))
    }
}

/// What has completed.
impl Kernel {
    /// Whether completions wait, in the queue or in the kernel. No system call.
    #[inline]
    pub(crate) fn has_completions(&mut self) -> bool {
        ask!(self, ring => ring.has_completions())
    }

    /// How many `reap` takes at most.
    #[inline]
    pub(crate) fn batch_len(&mut self) -> usize {
        ask!(self, ring => ring.batch_len())
    }

    /// Takes one batch of completions, and gives those of entries that were pushed to `completed`.
    #[inline]
    pub(crate) fn reap(&mut self, completed: impl FnMut(Completed)) {
        ask!(self, ring => ring.reap(completed))
    }

    /// Takes the completions of its own entries that stand before any other. Whether others are
    /// left, which stay where they are.
    pub(crate) fn reap_own(&mut self) -> bool {
        ask!(self, ring => ring.reap_own())
    }

    /// Brings the completions for which the queue had no room into the queue that has been emptied.
    /// Whether there were any.
    pub(crate) fn fetch_overflow(&mut self) -> Result<bool> {
        ask!(self, ring => ring.fetch_overflow())
    }

    /// Whether a completion has been lost since `take_loss` was called last.
    pub(crate) fn has_loss(&self) -> bool {
        ask!(self, ring => ring.has_loss())
    }

    /// Whether a completion has been lost since this was asked last. Which one it was is not known.
    pub(crate) fn take_loss(&mut self) -> bool {
        ask!(self, ring => ring.take_loss())
    }
}
