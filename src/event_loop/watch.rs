//! Watchers of descriptors, for libraries that read and write by themselves (S12).
//!
//! When the last watcher of a descriptor has ended, the kernel releases its file at once. When
//! several watchers end together, it does so at the end. A request that the kernel refuses waits
//! for the next iteration.

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

/// A set of `POLL*` bits of poll(2): the requested events of a watcher, or the events that
/// occurred.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Events(u32);

impl Events {
    /// No events: the watcher is paused.
    pub const NONE: Events = Events(0);
    /// Data to read, a connection to accept, or an end of file.
    pub const IN: Events = Events(libc::POLLIN as u32);
    /// Urgent data.
    pub const PRI: Events = Events(libc::POLLPRI as u32);
    /// Space to write; a connection has been established or refused.
    pub const OUT: Events = Events(libc::POLLOUT as u32);
    /// The peer has shut down its side of a stream.
    pub const RDHUP: Events = Events(libc::POLLRDHUP as u32);
    /// An error; always reported.
    pub const ERR: Events = Events(libc::POLLERR as u32);
    /// The other end has hung up; always reported.
    pub const HUP: Events = Events(libc::POLLHUP as u32);
    /// The descriptor was closed; always reported. The watcher has ended.
    pub const NVAL: Events = Events(libc::POLLNVAL as u32);

    /// The events with these bits. Errors: EINVAL for an unknown bit.
    pub fn from_bits(bits: u32) -> Result<Events> {
        if bits & !KNOWN == 0 { Ok(Events(bits)) } else { Err(Error::UNKNOWN_EVENTS) }
    }

    /// The bits, as in poll(2).
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether the set contains all of `other`.
    pub fn contains(self, other: Events) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set contains any of `other`.
    pub fn intersects(self, other: Events) -> bool {
        self.0 & other.0 != 0
    }
}

/// All bits of poll(2), without the kernel's POLLREMOVE and POLL_BUSY_LOOP.
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
    /// Runs `f` whenever `fd` is ready for one of `events`: level-triggered. Errors and hang-ups
    /// are always reported (S12). Several watchers of one descriptor run in the order in which they
    /// were registered.
    ///
    /// The watcher keeps `fd`, which may be owned, an `Rc` or the like, until it ends. When the
    /// last watcher of a descriptor is cancelled, the kernel releases its file before `cancel`
    /// returns. [`forget_fd`](Loop::forget_fd) also ends operations on the descriptor. When the
    /// descriptor can no longer be watched, the last call gets [`Events::NVAL`] or [`Events::ERR`],
    /// and the watcher has ended.
    ///
    /// Errors: EBADF; EPERM for files and directories, as in epoll; ENOMEM, ESHUTDOWN. Costs about
    /// 1.3 µs for a check with epoll; in the loop, a poll for each time that the descriptor is
    /// ready, 0.3 µs in a batch.
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

    /// Changes the events of a watcher. Queued events that are no longer requested are dropped.
    /// With [`Events::NONE`] the watcher is paused, and errors and hang-ups are still reported
    /// (S12). O(1); O(watchers of the descriptor) when the poll is armed next.
    ///
    /// Errors: EINVAL when the handle is not a watcher's, ENOENT, ESHUTDOWN.
    pub fn watch_update(&self, handle: Handle, events: Events) -> Result<()> {
        self.check_open()?;
        self.update_watch(handle, events.bits())
    }

    /// Ends every watcher of a descriptor, cancels every operation on it, and makes the kernel
    /// release its file, usually in one system call. After a return of 0, closing the descriptor
    /// really closes the file, and the peer notices. Otherwise returns the number of operations
    /// that the kernel has not released yet, such as file I/O that has begun.
    ///
    /// The final callbacks of the operations are still to come. The cost is proportional to the
    /// watchers and operations on the descriptor, with one system call for as many of them as the
    /// submission queue holds; pending entries on other descriptors do not matter. Errors: EBADF
    /// for a negative number; those of `io_uring_enter`; ENOMEM when there is no memory for
    /// results, which then wait in the kernel.
    pub fn forget_fd(&self, fd: RawFd) -> Result<usize> {
        self.check()?;
        if fd < 0 {
            return Err(Error::BAD_DESCRIPTOR);
        }
        // The watchers end in any case.
        let released = self.release_fd(fd);
        while let Some(handle) = { self.schedule.borrow().watcher_on(fd) } {
            self.cancel(handle)?;
        }
        // User code may have run: the Drop of a watcher's values, or its release hook.
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

    /// Changes the events of a watcher. The caller has checked the thread, and that the loop is
    /// open.
    pub(crate) fn update_watch(&self, handle: Handle, events: u32) -> Result<()> {
        self.schedule.borrow_mut().update_watcher(handle, events)
    }

    /// Makes the kernel release all requests on a descriptor that it can. The watchers stay.
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
        // Usually one round. The kernel does not find a request that it is executing at that moment
        // (6.18), so the request is cancelled once more. An operation that is still not found, or
        // not cancellable, completes by itself.
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
                // The replies to the cancels may be among those.
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

    /// Makes the kernel release files whose last watcher has ended (S12), unless several watchers
    /// are ending together. A refused request goes with the next enter.
    #[inline]
    pub(crate) fn release_files(&self) {
        if self.ending_together.get() == 0 && self.schedule.borrow_mut().take_file_to_release() {
            let (mut schedule, mut kernel) = (self.schedule.borrow_mut(), self.kernel.borrow_mut());
            let _ = cancel_orphans(&mut schedule, &mut kernel)
                .and_then(|()| kernel.settle(schedule.outstanding()));
            if kernel.has_loss() {
                // The next iteration reports the loss.
                schedule.note_resumable(true);
            }
        }
    }

    /// As `release_files`, for all watched files: the loop accepts no more watchers.
    pub(crate) fn release_all_files(&self) {
        let (mut schedule, mut kernel) = (self.schedule.borrow_mut(), self.kernel.borrow_mut());
        if schedule.stop_watching() {
            let _ = self
                .submit_deferred(&mut schedule, &mut kernel)
                .and_then(|()| kernel.settle(schedule.outstanding()));
        }
    }
}

/// While this lives, watchers end together: when the outermost one is dropped, the kernel releases
/// their files in one call.
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
