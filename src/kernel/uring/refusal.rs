//! Refusals of the kernel: of submissions for which there is no memory, of every enter, of the
//! keeping of a completion.
//!
//! Submissions that are refused stay queued. They are tried again, with pauses in the place of
//! sleep, until that has lasted so long that it is an error.

use std::time::Duration;

use super::Kernel;
#[cfg(test)]
use super::{IGNORED, Sqe, opcodes};
use crate::error::{Error, Result};
use crate::kernel::Waited;
use crate::time::monotonic;

/// How long the kernel may take no submissions before that is an error, and how long a wait pauses
/// before the next try, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;
const PAUSE: u64 = 1_000_000;

impl Kernel {
    /// As `submit`, instead of a wait. While the kernel takes no submissions it pauses until the
    /// next try, at the latest until `until`.
    pub(crate) fn submit_or_pause(&mut self, until: u64) -> Result<()> {
        let submitted = self.submit().map(|()| Waited::Completed);
        self.pause_if_refused(submitted, until).map(drop)
    }

    /// While the kernel takes no submissions, a wait that did not sleep lasts until the next try,
    /// at the latest until `until`.
    pub(super) fn pause_if_refused(
        &mut self,
        waited: Result<Waited>,
        until: u64,
    ) -> Result<Waited> {
        let is_refused = self.refused_since > 0 && self.queues.uring.completion().is_empty();
        if is_refused && matches!(waited, Ok(_) | Err(Error::NO_SUBMISSION)) {
            let left = until.saturating_sub(monotonic());
            std::thread::sleep(Duration::from_nanos(left.min(PAUSE)));
        }
        waited.or_else(|error| {
            if error == Error::NO_SUBMISSION { Ok(Waited::Completed) } else { Err(error) }
        })
    }

    /// The kernel has no memory for submissions, or takes none before completions are reaped, which
    /// the caller does next.
    #[cold]
    pub(super) fn refused(&mut self) -> Result<Waited> {
        if self.queues.uring.completion().is_empty() {
            let now = monotonic();
            if self.refused_since == 0 {
                self.refused_since = now;
            } else if now - self.refused_since >= PATIENCE {
                self.refused_since = 0;
                return Err(Error::NO_SUBMISSION_FOR_LONG);
            }
        }
        Ok(Waited::Completed)
    }

    /// How many completions the kernel has lost.
    pub(super) fn count_dropped(&mut self) -> u32 {
        #[cfg(test)]
        if self.faults.drops > 0 {
            return self.faults.drops;
        }
        self.queues.uring.completion().overflow()
    }

    /// The kernel had no memory to keep a completion that did not fit into the queue: the ring's
    /// own may be the one.
    #[cold]
    pub(super) fn lost(&mut self) -> Error {
        self.timeout.forget();
        self.watches_wakes = false;
        self.has_lost = true;
        self.dropped = self.count_dropped();
        Error::COMPLETION_LOST
    }

    /// Whether a completion has been lost since `take_loss` was called last.
    pub(crate) fn has_loss(&self) -> bool {
        self.has_lost
    }

    /// Whether a completion has been lost since this was asked last. Which one it was is not known.
    pub(crate) fn take_loss(&mut self) -> bool {
        std::mem::take(&mut self.has_lost)
    }

    /// Gives the numbers of the entries that are queued and that the kernel has not taken to
    /// `untaken`.
    #[cold]
    pub(crate) fn for_each_untaken(&mut self, untaken: impl FnMut(u64)) {
        self.queues.untaken().for_each(untaken);
    }
}

/// Faults that a test injects.
#[cfg(test)]
#[derive(Default, Debug)]
pub(crate) struct Faults {
    /// The next completion that is not the ring's own is lost.
    pub(crate) loses_next: bool,
    /// So many of the next enters fail, with this errno.
    pub(crate) enters: (u32, i32),
    /// So many completions the kernel says to have lost, where it counts them.
    pub(crate) drops: u32,
    /// The next call that settles more than one enter does says that a completion has been lost.
    pub(crate) settle_loses: bool,
}

#[cfg(test)]
impl Faults {
    /// One is lost now. The next enter says so, or the count.
    pub(super) fn lose(&mut self, is_counted: bool) {
        self.loses_next = false;
        if is_counted {
            self.drops += 1;
        } else {
            self.enters = (1, libc::EBADR);
        }
    }

    pub(super) fn settled(&mut self, settled: std::io::Result<usize>) -> std::io::Result<usize> {
        let loses = std::mem::take(&mut self.settle_loses);
        if loses { Err(std::io::Error::from_raw_os_error(libc::EBADR)) } else { settled }
    }

    pub(super) fn next_errno(&mut self) -> Option<i32> {
        self.enters.0 = self.enters.0.checked_sub(1)?;
        Some(self.enters.1)
    }
}

/// What only tests do to it.
#[cfg(test)]
impl Kernel {
    pub(crate) fn uring(&mut self) -> &mut Kernel {
        self
    }

    /// As on a kernel from 5.13 to 5.18, which counts the completions that it has lost.
    pub(crate) fn count_losses(&mut self) {
        self.abilities.waits_to_register = true;
    }

    /// As on a kernel before 5.13.
    pub(crate) fn poll_once_only(&mut self) {
        self.abilities.polls_multishot = false;
    }

    /// Submits operations that complete at once and belong to nobody.
    pub(crate) fn flood(&mut self, count: u64) {
        let nop = Sqe { opcode: opcodes::NOP, fd: -1, ..Sqe::default() };
        for _ in 0..count {
            self.push_own(nop, IGNORED).unwrap();
        }
        self.submit().unwrap();
    }
}
