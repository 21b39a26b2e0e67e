//! The only way for entries to the kernel: operations, deferred cancels and re-arms, buffer rings.
//!
//! An entry points at memory that the kernel uses until the final completion. The maker of the
//! `Entry` guarantees that this memory stays valid.

use std::os::fd::RawFd;

use super::{Callback, Loop, Schedule};
use crate::abi::completion::number;
use crate::abi::handle::Handle;
use crate::abi::sqe::Entry;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::kernel::buffers::Pool;
use crate::pending::DeferredSubmission;
use crate::pending::driver::Driver;
use crate::sys::memory::TryArc;
use crate::time::Time;

impl Loop {
    /// Adds an operation and queues its entry.
    pub(crate) fn submit_operation(
        &self,
        entry: &Entry,
        driver: Option<Box<dyn Driver>>,
        callback: Callback,
    ) -> Result<Handle> {
        // After an error, the borrows end before the callback and the driver are dropped.
        let (mut schedule, mut kernel) = (self.schedule.borrow_mut(), self.kernel.borrow_mut());
        // User code may have run while the entry was made, and may have forked: the child shares
        // the queue with its parent.
        self.check_not_forked()?;
        if !kernel.features().supports(entry.opcode) {
            return Err(Error::UNSUPPORTED);
        }
        schedule.reserve_operations(1)?;
        kernel.reserve(1)?;
        let takes_turns = driver.as_ref().is_some_and(|driver| driver.takes_turns());
        let handle = schedule.add_operation(entry, driver, callback);
        if !takes_turns || schedule.has_turn(handle) {
            kernel.push(*entry, number(handle));
        }
        Ok(handle)
    }

    /// Adds the operations of a chain, which fits into the queue, and queues all of their entries
    /// or none. `callback` makes the callback of each, `added` gets its handle.
    #[cfg_attr(not(feature = "capi"), allow(dead_code, reason = "so far for C alone"))]
    pub(crate) fn submit_linked(
        &self,
        entries: impl ExactSizeIterator<Item = Entry>,
        callback: impl Fn(usize) -> Callback,
        mut added: impl FnMut(usize, Handle),
    ) -> Result<()> {
        let (mut schedule, mut kernel) = (self.schedule.borrow_mut(), self.kernel.borrow_mut());
        let last = entries.len() - 1;
        schedule.reserve_operations(entries.len())?;
        kernel.reserve(entries.len())?;
        let mut before = None;
        for (at, entry) in entries.enumerate() {
            let is_linked = at < last && entry.flags & crate::abi::sqe::flags::IO_HARDLINK == 0;
            let handle = schedule.add_operation(&entry, None, callback(at));
            kernel.push(if is_linked { entry.linked() } else { entry }, number(handle));
            if let Some(before) = before.replace(handle) {
                schedule.chain(before, handle);
            }
            added(at, handle);
        }
        Ok(())
    }

    /// The number of entries that can be queued at once.
    #[cfg_attr(not(feature = "capi"), allow(dead_code, reason = "so far for C alone"))]
    pub(crate) fn queue_capacity(&self) -> usize {
        self.kernel.borrow_mut().capacity()
    }

    /// Gives an operation a deadline. At `when` the operation is cancelled, and its final
    /// completion has [`timed_out`](crate::Completion::timed_out) set, with the partial result, or
    /// ETIMEDOUT if there is none. Replaces an earlier deadline; [`Time::NEVER`] removes it.
    ///
    /// The deadline is a timer of the loop, with the same precision and cost. An operation that the
    /// kernel cannot cancel, such as file I/O that has begun, completes normally. Errors: EINVAL
    /// when the handle is not an operation's, ENOENT, ENOMEM, ESHUTDOWN.
    pub fn set_deadline(&self, handle: Handle, when: Time) -> Result<()> {
        self.check_open()?;
        self.schedule.borrow_mut().set_deadline(handle, when.as_nanos())
    }

    /// Whether this kernel supports an operation, an `IORING_OP_*`. The answer is from probing when
    /// the loop was made, never from the version.
    pub fn supports(&self, opcode: u8) -> bool {
        self.kernel.borrow().features().supports(opcode)
    }

    /// The descriptor of the ring, for `io_uring_register` of files and buffers only; do not submit
    /// on it or close it. The loop ignores completions for tags of registered resources. Tags below
    /// 2^32 are never request numbers of the loop.
    pub fn ring_fd(&self) -> Result<RawFd> {
        self.check()?;
        Ok(self.kernel.borrow().fd())
    }

    pub(crate) fn new_pool(&self, count: u32, size: u32) -> Result<TryArc<Pool>> {
        self.check_open()?;
        self.kernel.borrow_mut().new_pool(count, size, std::ptr::from_ref(self).cast())
    }

    pub(crate) fn free_pool(&self, pool: &TryArc<Pool>) -> Result<()> {
        self.check()?;
        self.kernel.borrow_mut().free_pool(pool)
    }

    /// Gives back a part of a buffer that was kept. Operations that wait for a buffer then resume.
    #[cfg(feature = "capi")]
    pub(crate) fn return_part(&self, pool: &Pool, data: *const u8) -> Result<()> {
        self.check()?;
        pool.give_back(data)?;
        self.schedule.borrow_mut().note_resumable(pool.may_resume());
        Ok(())
    }

    pub(crate) fn has_pool(&self, pool: &TryArc<Pool>) -> bool {
        self.kernel.borrow().pools().any(|other| TryArc::is_same(other, pool))
    }

    /// Submits deferred cancels and re-arms. Entries that the kernel refuses now wait for the next
    /// iteration.
    #[cold]
    pub(crate) fn submit_deferred(
        &self,
        schedule: &mut Schedule,
        kernel: &mut Kernel,
    ) -> Result<()> {
        if kernel.take_loss() {
            schedule.completion_lost();
        }
        if schedule.take_resumable() {
            for pool in kernel.pools() {
                pool.resume_waiting(|handle| schedule.resume(handle));
                schedule.note_resumable(pool.may_resume());
            }
        }
        if schedule.has_orphans() {
            cancel_orphans(schedule, kernel)?;
        }
        while schedule.has_submissions_now() {
            kernel.reserve(1)?;
            match schedule.next_submission()? {
                Some(DeferredSubmission::Submit(entry, handle)) => {
                    kernel.push(entry, number(handle))
                }
                Some(DeferredSubmission::Cancel(handle)) => kernel.cancel(number(handle))?,
                Some(DeferredSubmission::Update(handle, events)) => {
                    kernel.update_poll(number(handle), events)?
                }
                None => {}
            }
        }
        Ok(())
    }
}

/// Cancels the requests of ended entries.
pub(super) fn cancel_orphans(schedule: &mut Schedule, kernel: &mut Kernel) -> Result<()> {
    kernel.reserve(1)?;
    while let Some(orphan) = schedule.next_orphan() {
        kernel.cancel(number(orphan))?;
        kernel.reserve(1)?;
    }
    Ok(())
}

/// Cancels the requests on a descriptor, and no others: other descriptors may be in the current
/// batch, and must not be polled before their callbacks have run. Of requests that were cancelled
/// already, cancels again only those that the kernel did not find. Returns whether there was
/// anything to cancel.
pub(super) fn cancel_on(fd: RawFd, schedule: &mut Schedule, kernel: &mut Kernel) -> Result<bool> {
    let mut asked = false;
    let mut next = schedule.next_on(fd, None);
    while let Some(index) = next {
        next = schedule.next_on(fd, Some(index));
        kernel.reserve(1)?;
        if let Some(handle) = schedule.end_on_the_spot(index)? {
            asked = true;
            kernel.cancel(number(handle))?;
        }
    }
    Ok(asked)
}
