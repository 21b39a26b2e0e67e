//! The use of io_uring: setup, submission, the wait, completions, the armed timeout, the eventfd.
//!
//! The owner's thread is the only user of a ring. A wait costs one `io_uring_enter`, which also
//! submits the queued entries. Checking a busy ring costs no system call unless its shared flags
//! report work in the kernel. No completion is lost when the queue overflows: the kernel keeps the
//! rest (FEAT_NODROP, 5.5), unless it has no memory, which is reported. Completions of the ring's
//! own requests, for wakes and the timeout, are not passed on.

#[allow(unsafe_code)]
mod queues;
mod refusal;
mod setup;
mod timeout;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use io_uring::cqueue;
use io_uring::types::{SubmitArgs, Timespec};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::EventFd;

use self::queues::Queues;
use self::setup::{Abilities, uninterrupted};
use self::timeout::ArmedTimeout;
use super::buffers::Pool;
use super::{Features, Sizes, Traffic, Waited};
use crate::abi::completion::{CANCEL_REPLY, Completed};
use crate::abi::opcodes;
use crate::abi::sqe::{Entry, Sqe, flags, poll_events};
use crate::error::{Error, Result, Sentence};
use crate::sys::fork::Process;
use crate::sys::memory::TryArc;

/// The user data of the ring's own entries begins here: requests whose end is ignored, the poll for
/// wakes, and the timeout. The numbers of others, with `CANCEL_REPLY`, are below, because
/// generations of handles end before.
const IGNORED: u64 = 0xffff_fffc_0000_0000;
const WAKE: u64 = 0xffff_fffd_0000_0000;

/// The largest batch of completions, so that a flood of them cannot delay due timers (S9).
const BATCH: usize = 256;

/// Executes the entries of a loop on a ring, used by one thread at a time, that of its loop.
pub(crate) struct Kernel {
    queues: Queues,
    /// After the queues, so that the pools are dropped after the ring is closed.
    pub(super) pools: Vec<Option<TryArc<Pool>>>,
    timeout: ArmedTimeout,
    traffic: Traffic,
    is_bound: bool,
    features: Features,
    abilities: Abilities,
    /// Whether a poll for the wakes of other threads is in the kernel, or queued for it.
    watches_wakes: bool,
    /// Since when the kernel has taken no submissions, with nothing to reap; 0: it takes them.
    refused_since: u64,
    /// Whether the kernel has lost a completion since the last `take_loss`.
    has_lost: bool,
    /// The number of lost completions, on kernels that only count them (5.13 to 5.18).
    dropped: u32,
    /// Why the kernel refused the ring's own poll or timeout, without which no wait would sleep; 0:
    /// it did not. The next wait returns the error, once.
    own_error: i32,
    #[cfg(test)]
    pub(crate) faults: refusal::Faults,
    /// The descriptor of a host loop, once it asked for one: an epoll, or (inner None) only an
    /// eventfd.
    host: Option<Option<Epoll>>,
}

/// Construction and properties.
impl Kernel {
    /// Sets a ring up. It belongs to the thread that first enters the kernel with it.
    pub(crate) fn new(sizes: Sizes, process: Process) -> Result<Kernel> {
        let (uring, features, abilities) = setup::set_up(sizes)?;
        Ok(Kernel {
            queues: Queues::new(uring, process)?,
            pools: Vec::new(),
            timeout: ArmedTimeout::new(),
            traffic: Traffic::default(),
            is_bound: false,
            features,
            abilities,
            watches_wakes: false,
            refused_since: 0,
            has_lost: false,
            dropped: 0,
            own_error: 0,
            #[cfg(test)]
            faults: refusal::Faults::default(),
            host: None,
        })
    }

    #[inline]
    pub(crate) fn features(&self) -> &Features {
        &self.features
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Whether the ring belongs to a thread, since its first entry into the kernel.
    pub(crate) fn is_bound(&self) -> bool {
        self.is_bound
    }

    /// The number of entries that can be queued at once.
    #[cfg_attr(not(feature = "capi"), allow(dead_code, reason = "so far for C alone"))]
    pub(crate) fn capacity(&mut self) -> usize {
        self.queues.uring.submission().capacity()
    }

    /// The descriptor of the ring, for `io_uring_register`.
    pub(crate) fn fd(&self) -> RawFd {
        self.queues.uring.as_raw_fd()
    }

    /// The descriptor that a host loop polls: from the first call on, it is readable when there is
    /// a completion and when `wakes` is readable.
    ///
    /// It is `wakes` itself, which the kernel writes. The ring's own descriptor does not wake a
    /// poller on a ring with DEFER_TASKRUN (measured on 6.12 and 6.18). A kernel that waits for
    /// registration would wait for everything in flight (measured on 5.10), and has no such ring:
    /// there, the descriptor is an epoll of both.
    pub(crate) fn host_fd(&mut self, wakes: &EventFd) -> Result<RawFd> {
        if self.host.is_none() {
            let host = self.make_host(wakes.as_fd());
            self.host = Some(host.map_err(|errno| Error::new(errno, Sentence::EventFdFailed))?);
        }
        let epoll = self.host.as_ref().and_then(Option::as_ref);
        Ok(epoll.map_or(wakes.as_fd().as_raw_fd(), |epoll| epoll.0.as_raw_fd()))
    }

    fn make_host(&self, wakes: BorrowedFd<'_>) -> nix::Result<Option<Epoll>> {
        if !self.abilities.waits_to_register {
            let register = || self.queues.uring.submitter().register_eventfd(wakes.as_raw_fd());
            return uninterrupted(register).map(|()| None);
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*self.queues.uring, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        epoll.add(wakes, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Some(epoll))
    }
}

/// The submission queue. A full queue is submitted first; EAGAIN when the kernel takes no entries
/// at the moment.
impl Kernel {
    /// Ensures that the next `count` entries can be pushed.
    #[inline]
    pub(crate) fn reserve(&mut self, count: usize) -> Result<()> {
        let has_room = |ring: &mut Kernel| {
            let queue = ring.queues.uring.submission();
            queue.capacity() - queue.len() >= count
        };
        if has_room(self) {
            return Ok(());
        }
        self.enter(0)?;
        if has_room(self) { Ok(()) } else { Err(Error::NO_SUBMISSION) }
    }

    /// Queues an entry, after `reserve`; its completions have the given number.
    #[inline]
    pub(crate) fn push(&mut self, entry: Entry, number: u64) {
        debug_assert!(number < CANCEL_REPLY);
        self.queues.push(entry, number);
    }

    /// Queues an entry that points at nothing; a full queue is submitted first.
    fn push_own(&mut self, sqe: Sqe, number: u64) -> Result<()> {
        self.reserve(1)?;
        self.queues.push(Entry::without_pointers(sqe), number);
        Ok(())
    }

    /// Queues a cancel of the entry with this number. A refusal is a completion whose number has
    /// the bit `CANCEL_REPLY` added.
    pub(crate) fn cancel(&mut self, number: u64) -> Result<()> {
        let flags = if self.abilities.skips_success { flags::CQE_SKIP_SUCCESS } else { 0 };
        let cancel =
            Sqe { opcode: opcodes::ASYNC_CANCEL, flags, fd: -1, addr: number, ..Sqe::default() };
        self.push_own(cancel, CANCEL_REPLY | number)
    }

    /// Queues a change of the events of the poll with this number. A refusal is reported as that of
    /// a cancel. Where polls cannot be updated, the poll is cancelled instead, and the caller
    /// submits it again.
    ///
    /// Used from 5.17: polls can be updated since 5.13, but then a poll that is ready at once ends
    /// without a completion (measured on Debian's 5.10.223, which has the io_uring of 5.15).
    pub(crate) fn update_poll(&mut self, number: u64, events: u32) -> Result<()> {
        const UPDATE_EVENTS: u32 = 1 << 1;
        if !self.abilities.skips_success {
            return self.cancel(number);
        }
        let (flags, op_flags) = (flags::CQE_SKIP_SUCCESS, poll_events(events));
        let opcode = opcodes::POLL_REMOVE;
        let update =
            Sqe { opcode, flags, addr: number, len: UPDATE_EVENTS, op_flags, ..Sqe::default() };
        self.push_own(update, CANCEL_REPLY | number)
    }

    /// Makes waits end when `wakes` is written, unless the kernel takes no submissions at the
    /// moment. Queues the poll for that, unless it is in the kernel.
    pub(crate) fn watch_wakes(&mut self, wakes: &EventFd) -> Result<()> {
        if self.watches_wakes {
            return Ok(());
        }
        let is_multishot = self.abilities.polls_multishot;
        if !is_multishot {
            // A one-shot poll would complete at once for earlier writes.
            let _ = wakes.read();
        }
        // With EPOLLET, the eventfd never has to be read.
        let op_flags = poll_events((libc::POLLIN as u32) | libc::EPOLLET as u32);
        // IORING_POLL_ADD_MULTI is the lowest bit.
        let (fd, len) = (wakes.as_fd().as_raw_fd(), is_multishot.into());
        match self
            .push_own(Sqe { opcode: opcodes::POLL_ADD, fd, op_flags, len, ..Sqe::default() }, WAKE)
        {
            Err(Error::NO_SUBMISSION) => {}
            pushed => {
                pushed?;
                self.watches_wakes = true;
            }
        }
        Ok(())
    }

    /// Whether entries are queued that the kernel has not taken.
    #[inline]
    pub(crate) fn has_queued(&mut self) -> bool {
        !self.queues.uring.submission().is_empty()
    }
}

/// Submitting and waiting. `until` is on CLOCK_MONOTONIC; `u64::MAX` means no limit.
impl Kernel {
    /// Submits queued entries, and makes the kernel post completions that it holds back. No system
    /// call without either.
    #[inline]
    pub(crate) fn submit(&mut self) -> Result<()> {
        let queue = self.queues.uring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        self.enter(0).map(drop)
    }

    /// As `submit`, with a timeout that completes at `until`, unless one is armed that is not
    /// later.
    pub(crate) fn submit_with_timeout(&mut self, until: u64) -> Result<()> {
        self.arm(until)?;
        self.submit()
    }

    /// Submits queued entries and sleeps until a completion or a wake of watched wakes, at the
    /// latest until `until`. One system call. May return early, for a timeout that was armed
    /// before.
    pub(crate) fn wait(&mut self, until: u64) -> Result<Waited> {
        match std::mem::take(&mut self.own_error) {
            0 => {}
            libc::ENOMEM => return Err(Error::NO_MEMORY),
            errno => return Err(Error::new(Errno::from_raw(errno), Sentence::OwnRefused)),
        }
        // Without the poll for wakes, for lack of space or because it was lost (EBADR), the wait
        // does not sleep.
        let waited = self.arm(until).and_then(|()| self.enter(u32::from(self.watches_wakes)));
        self.pause_if_refused(waited, until)
    }

    /// Submits queued entries and waits until there is a completion, or until `until`.
    pub(crate) fn wait_for_completion(&mut self, until: u64) -> Result<Waited> {
        let waited = self.arm(until).and_then(|()| self.enter(1));
        self.pause_if_refused(waited, until)
    }

    /// Submits queued entries, and makes the kernel do its deferred work, at most `most` pieces.
    /// Usually one system call.
    ///
    /// A kernel that does 20 pieces in a call (6.18) does the rest in further calls, which ask for
    /// as many completions as the queue holds, and wait for none.
    pub(crate) fn settle(&mut self, most: usize) -> Result<()> {
        const NO_TIME: Timespec = Timespec::new();
        const PIECES: usize = 20;
        self.enter(0)?;
        let mut done = 0;
        while done < most && self.queues.uring.submission().taskrun() {
            done += PIECES;
            self.traffic.enters += 1;
            let all = self.queues.uring.params().cq_entries() as usize;
            let arguments = SubmitArgs::new().timespec(&NO_TIME);
            let settled = self.queues.uring.submitter().submit_with_args(all, &arguments);
            #[cfg(test)]
            let settled = self.faults.settled(settled);
            match settled.as_ref().map_err(setup::errno) {
                Ok(_) | Err(Errno::ETIME | Errno::EINTR | Errno::EBUSY | Errno::EAGAIN) => {}
                // The kernel reports the loss once.
                Err(Errno::EBADR) => return Err(self.lost()),
                Err(errno) => return Err(Error::new(errno, Sentence::EnterFailed)),
            }
        }
        Ok(())
    }

    fn arm(&mut self, until: u64) -> Result<()> {
        if until == u64::MAX {
            return Ok(());
        }
        let entries = self.timeout.arm(until, &mut self.queues, &self.abilities);
        for (sqe, number) in entries.into_iter().flatten() {
            if let Err(error) = self.reserve(1) {
                self.timeout.forget();
                return Err(error);
            }
            self.queues.push_timed(sqe, number);
        }
        Ok(())
    }

    /// Binds the ring to the calling thread, once.
    fn bind(&mut self) -> Result<()> {
        if !self.is_bound && self.abilities.starts_disabled {
            uninterrupted(|| self.queues.uring.submitter().register_enable_rings())
                .map_err(|errno| setup::refusal(errno, Sentence::EnableFailed))?;
        }
        self.is_bound = true;
        Ok(())
    }

    /// `io_uring_enter`, once: submits queued entries, waits for `wanted` completions.
    fn enter(&mut self, wanted: u32) -> Result<Waited> {
        if !self.queues.process.is_current() {
            return Err(Error::FORKED);
        }
        self.bind()?;
        if self.abilities.waits_to_register && self.count_dropped() != self.dropped {
            return Err(self.lost());
        }
        self.traffic.enters += 1;
        let queue = self.queues.uring.submission();
        let queued = queue.len();
        self.traffic.overflows += u64::from(queue.cq_overflow());
        drop(queue);
        let result = self.call_enter(queued, wanted);
        // A signal handler of the program may have forked, and this may be the child.
        if !self.queues.process.is_current() {
            return Err(Error::FORKED);
        }
        if result.is_ok() {
            self.refused_since = 0;
        }
        let left = self.queues.uring.submission().len();
        self.traffic.submitted += (queued - left.min(queued)) as u64;
        match result.as_ref().map_err(setup::errno) {
            // A call that submits and sleeps returns the number of submissions instead of EINTR
            // (S21).
            Ok(_) if wanted > 0 && left == 0 && !self.has_completions() => Ok(Waited::Interrupted),
            Ok(_) => Ok(Waited::Completed),
            Err(Errno::EINTR) => Ok(Waited::Interrupted),
            Err(Errno::EBUSY | Errno::EAGAIN) => self.refused(),
            Err(Errno::EBADR) => Err(self.lost()),
            Err(errno) => Err(setup::refusal(errno, Sentence::EnterFailed)),
        }
    }

    #[inline]
    fn call_enter(&mut self, queued: usize, wanted: u32) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(errno) = self.faults.next_errno() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.queues.enter(queued, wanted)
    }
}

/// The completion queue.
impl Kernel {
    /// Whether there are completions, in the queue or in the kernel. No system call.
    #[inline]
    pub(crate) fn has_completions(&mut self) -> bool {
        if !self.queues.uring.completion().is_empty() {
            return true;
        }
        // Only an enter with GETEVENTS fetches the completions that these flags report.
        let queue = self.queues.uring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// The most completions that `reap` takes.
    #[inline]
    pub(crate) fn batch_len(&mut self) -> usize {
        self.queues.uring.completion().len().min(BATCH)
    }

    /// Takes one batch of completions, and passes those of pushed entries to `completed`.
    #[inline]
    pub(crate) fn reap(&mut self, mut completed: impl FnMut(Completed)) {
        let mut taken = 0;
        for entry in self.queues.uring.completion().take(BATCH) {
            taken += 1;
            match entry.user_data() {
                #[cfg(test)]
                number if number < IGNORED && self.faults.loses_next => {
                    self.faults.lose(self.abilities.waits_to_register);
                }
                number if number < IGNORED => {
                    completed(Completed { number, result: entry.result(), flags: entry.flags() });
                }
                _ => completed_own(
                    &mut self.timeout,
                    &mut self.watches_wakes,
                    &mut self.own_error,
                    &entry,
                ),
            }
        }
        self.traffic.completed += taken;
    }

    /// Takes the leading completions of the ring's own entries. Returns whether others are left in
    /// the queue.
    pub(crate) fn reap_own(&mut self) -> bool {
        loop {
            let mut queue = self.queues.uring.completion();
            let Some(entry) = queue.next() else { return false };
            if entry.user_data() < IGNORED {
                // Dropping the queue would tell the kernel that the entry has been taken.
                std::mem::forget(queue);
                return true;
            }
            drop(queue);
            self.traffic.completed += 1;
            completed_own(&mut self.timeout, &mut self.watches_wakes, &mut self.own_error, &entry);
        }
    }

    /// Moves completions that overflowed into the emptied queue. Returns whether there were any.
    pub(crate) fn fetch_overflow(&mut self) -> Result<bool> {
        let has_overflowed = self.queues.uring.submission().cq_overflow();
        if has_overflowed {
            self.enter(0)?;
        }
        Ok(has_overflowed)
    }
}

/// Handles a completion of the ring's own entry.
fn completed_own(
    timeout: &mut ArmedTimeout,
    watches_wakes: &mut bool,
    error: &mut i32,
    entry: &cqueue::Entry,
) {
    match entry.user_data() {
        IGNORED => return,
        WAKE => *watches_wakes &= cqueue::more(entry.flags()),
        own => timeout.completed(own, entry.result()),
    }
    // Expected results of a timeout that has expired, was removed, or was changed too late.
    const EXPECTED: [i32; 5] =
        [libc::ETIME, libc::ECANCELED, libc::ENOENT, libc::EALREADY, libc::EBUSY];
    if entry.result() < 0 && !EXPECTED.contains(&-entry.result()) {
        *error = -entry.result();
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // In a forked child, the descriptor may be another one.
        if !self.queues.process.is_current() {
            std::mem::forget(self.host.take());
        }
    }
}
