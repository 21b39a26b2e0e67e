//! Watchers of descriptors, for libraries that read and write by themselves (S12).
//!
//! When the last watcher of a descriptor has ended, the kernel lets go of its file at once, or, of
//! several that end together, at the end of that. A request that the kernel does not take waits for
//! the next iteration.

use std::fmt;
use std::mem::replace;
use std::ops::{BitOr, BitOrAssign};
use std::os::fd::{AsFd, AsRawFd, RawFd};

use super::submit::{cancel_on, cancel_orphans};
use super::{Callback, Loop};
use crate::abi::completion::number;
use crate::abi::handle::Handle;
use crate::error::{Error, Result};
use crate::pending::event::Event;
use crate::sys::descriptors::check_pollable;

/// What a descriptor is watched for, and what it is ready for: `POLL*` of poll(2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Events(u32);

impl Events {
    /// Nothing: a watcher that is paused.
    pub const NONE: Events = Events(0);
    /// There is data to read, a connection to accept, an end of file.
    pub const IN: Events = Events(libc::POLLIN as u32);
    /// There is urgent data.
    pub const PRI: Events = Events(libc::POLLPRI as u32);
    /// There is room to write; a connection has been made, or refused.
    pub const OUT: Events = Events(libc::POLLOUT as u32);
    /// The peer has shut down its side of a stream.
    pub const RDHUP: Events = Events(libc::POLLRDHUP as u32);
    /// An error; reported always.
    pub const ERR: Events = Events(libc::POLLERR as u32);
    /// The other end has hung up; reported always.
    pub const HUP: Events = Events(libc::POLLHUP as u32);
    /// The descriptor was closed; reported always, and the watcher ends with it.
    pub const NVAL: Events = Events(libc::POLLNVAL as u32);

    /// Those with these bits. Errors: EINVAL for one that is no `POLL*`.
    pub fn from_bits(bits: u32) -> Result<Events> {
        if bits & !KNOWN == 0 { Ok(Events(bits)) } else { Err(Error::UNKNOWN_EVENTS) }
    }

    /// The bits, as poll(2) has them.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` are among them.
    pub fn contains(self, other: Events) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is among them.
    pub fn intersects(self, other: Events) -> bool {
        self.0 & other.0 != 0
    }
}

/// All of poll(2), POLLREMOVE and POLL_BUSY_LOOP of the kernel's not counted.
const KNOWN: u32 = 0x27ff;

impl BitOr for Events {
    type Output = Events;
    fn bitor(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }
}

impl BitOrAssign for Events {
    fn bitor_assign(&mut self, other: Events) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events({:#x})", self.0)
    }
}

impl Loop {
    /// Runs `f` whenever `fd` is ready for one of `events`, as long as it is: level-triggered.
    /// Errors and hang-ups are always reported (S12). Several watchers of one descriptor run in the
    /// order in which they were registered.
    ///
    /// The watcher keeps `fd`, which may be owned, an `Rc` or the like, until it ends. When the
    /// last watcher of a descriptor is cancelled, the kernel lets go of its file before that
    /// returns; [`forget_fd`](Loop::forget_fd) ends operations on it as well. When the descriptor
    /// can be watched no more, the last call says [`Events::NVAL`] or [`Events::ERR`], and the
    /// watcher has ended.
    ///
    /// Errors: EBADF; EPERM for files and directories, as epoll has it; ENOMEM, ESHUTDOWN. Some 1.3
    /// µs, for asking epoll; in the loop, a poll for each time that it is ready, 0.3 µs in a batch.
    pub fn watch_fd(
        &self,
        fd: impl AsFd + 'static,
        events: Events,
        mut f: impl FnMut(&Loop, Events) + 'static,
    ) -> Result<Handle> {
        let raw = fd.as_fd().as_raw_fd();
        self.check_open()?;
        check_pollable(raw)?;
        let callback = Callback::many_event(move |lp: &Loop, event: &Event| {
            let _kept = &fd;
            let Event::Ready(_, events) = *event else {
                unreachable!("a watcher was called for {event:?}")
            };
            f(lp, Events(events));
        })?;
        self.schedule_watch(raw, events.bits(), callback)
    }

    /// Changes what a watcher waits for. What is queued for it and is asked for no more is dropped;
    /// with [`Events::NONE`] it is paused, and errors and hang-ups still come (S12). O(1);
    /// O(watchers of the descriptor) when the poll is armed next.
    ///
    /// Errors: EINVAL when the handle is not a watcher's, ENOENT, ESHUTDOWN.
    pub fn watch_update(&self, handle: Handle, events: Events) -> Result<()> {
        self.check_open()?;
        self.update_watch(handle, events.bits())
    }

    /// Ends every watcher of a descriptor, asks every operation on it to end, and makes the kernel
    /// let go of it, in one system call as a rule: with 0 as the answer, closing it then really
    /// closes, and the peer sees it. Else it is the number of operations that the kernel has not
    /// let go of yet, such as file I/O that has begun.
    ///
    /// The final callbacks of the operations are still to come. Costs as much as there are watchers
    /// and operations on the descriptor, and a system call for as many of these as the submission
    /// queue holds, whatever is pending on others. Errors: EBADF for a negative number; those of
    /// `io_uring_enter`; ENOMEM when there is no room for results, which then wait in the kernel.
    pub fn forget_fd(&self, fd: RawFd) -> Result<usize> {
        self.check()?;
        if fd < 0 {
            return Err(Error::BAD_DESCRIPTOR);
        }
        // Watchers end in any case.
        let released = self.release_fd(fd);
        while let Some(handle) = { self.schedule.borrow().watcher_on(fd) } {
            self.cancel(handle)?;
        }
        // What a watcher carried was dropped, or its release hook has run.
        self.check_not_forked()?;
        released.map(|()| self.schedule.borrow().count_on(fd))
    }

    pub(crate) fn schedule_watch(
        &self,
        fd: RawFd,
        events: u32,
        callback: Callback,
    ) -> Result<Handle> {
        let mut schedule = self.schedule.borrow_mut();
        schedule.reserve_watcher(fd)?;
        Ok(schedule.add_watcher(fd, events, callback))
    }

    /// Changes what a watcher waits for. Who calls, and that the loop is open, has been checked.
    pub(crate) fn update_watch(&self, handle: Handle, events: u32) -> Result<()> {
        self.schedule.borrow_mut().update_watcher(handle, events)
    }

    /// Makes the kernel let go of all on a descriptor that it can. Its watchers stay.
    fn release_fd(&self, fd: RawFd) -> Result<()> {
        let (mut schedule, mut kernel) = (self.schedule.borrow_mut(), self.kernel.borrow_mut());
        // Posts come before completions (S5 b).
        self.collect_posts(&mut schedule)?;
        let mut asked = schedule.has_orphans();
        cancel_orphans(&mut schedule, &mut kernel)?;
        if let Some(poll) = schedule.armed_poll_on(fd) {
            kernel.cancel(number(poll))?;
            asked = true;
        }
        // One round, as a rule. The kernel does not know what it has in its hands just then (6.18):
        // it is asked once more. An operation that it still does not know, or will not end, ends by
        // itself.
        let (mut left, mut vain) = (schedule.count_on(fd), 0);
        while asked || left > 0 && vain < 2 {
            asked |= cancel_on(fd, &mut schedule, &mut kernel)?;
            if !asked && vain > 0 {
                break;
            }
            kernel.settle(schedule.outstanding())?;
            loop {
                while kernel.batch_len() > 0 {
                    self.collect_completions(&mut schedule, &mut kernel)?;
                }
                // The answers may be among those.
                if !kernel.fetch_overflow()? {
                    break;
                }
            }
            let before = replace(&mut left, schedule.count_on(fd));
            vain = if left < before { 0 } else { vain + 1 };
            asked = false;
        }
        Ok(())
    }

    /// Makes the kernel let go of files whose last watcher has ended (S12), unless several are
    /// ending together. What it does not take now it takes with the next enter.
    #[inline]
    pub(crate) fn release_files(&self) {
        if self.ending_together.get() == 0 && self.schedule.borrow_mut().take_file_to_release() {
            let (mut schedule, mut kernel) = (self.schedule.borrow_mut(), self.kernel.borrow_mut());
            let _ = cancel_orphans(&mut schedule, &mut kernel)
                .and_then(|()| kernel.settle(schedule.outstanding()));
            if kernel.has_loss() {
                // The next iteration tells of it.
                schedule.note_resumable(true);
            }
        }
    }

    /// As `release_files`, of all that is watched: the loop takes no more watchers.
    pub(crate) fn release_all_files(&self) {
        let (mut schedule, mut kernel) = (self.schedule.borrow_mut(), self.kernel.borrow_mut());
        if schedule.stop_watching() {
            let _ = self
                .submit_deferred(&mut schedule, &mut kernel)
                .and_then(|()| kernel.settle(schedule.outstanding()));
        }
    }
}

/// While this lives, watchers end together: the kernel lets go of their files in one call, when the
/// outermost of these is dropped.
pub(crate) struct EndTogether<'a>(&'a Loop);

impl<'a> EndTogether<'a> {
    pub(crate) fn begin(lp: &'a Loop) -> EndTogether<'a> {
        lp.ending_together.set(lp.ending_together.get() + 1);
        EndTogether(lp)
    }
}

impl Drop for EndTogether<'_> {
    fn drop(&mut self) {
        self.0.ending_together.set(self.0.ending_together.get() - 1);
        if self.0.check_not_forked().is_ok() {
            self.0.release_files();
        }
    }
}
