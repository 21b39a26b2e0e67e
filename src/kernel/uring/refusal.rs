//! Refusals of the kernel: no memory for submissions, a failed enter, a lost completion.
//!
//! Refused submissions stay queued. They are retried, with pauses instead of sleeps, and become an
//! error after one second. A lost completion is reported once.

use std::time::Duration;

use super::Kernel;
#[cfg(test)]
use super::{IGNORED, Sqe, opcodes};
use crate::error::{Error, Result};
use crate::kernel::Waited;
use crate::time::monotonic;

/// In nanoseconds: how long the kernel may take no submissions before that is an error, and how
/// long a wait pauses before the next attempt.
const PATIENCE: u64 = 1_000_000_000;
const PAUSE: u64 = 1_000_000;

impl Kernel {
    /// As `submit`, instead of a wait. While the kernel takes no submissions, pauses until the next
    /// attempt, at the latest until `until`.
    pub(crate) fn submit_or_pause(&mut self, until: u64) -> Result<()> {
        let submitted = self.submit().map(|()| Waited::Completed);
        self.pause_if_refused(submitted, until).map(drop)
    }

    /// While the kernel takes no submissions, extends a wait that did not sleep until the next
    /// attempt, at the latest until `until`.
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

    pub(super) fn count_dropped(&mut self) -> u32 {
        #[cfg(test)]
        if self.faults.drops > 0 {
            return self.faults.drops;
        }
        self.queues.uring.completion().overflow()
    }

    /// The kernel had no memory to keep a completion that did not fit into the queue. It may be one
    /// of the ring's own entries.
    #[cold]
    pub(super) fn lost(&mut self) -> Error {
        self.timeout.forget();
        self.watches_wakes = false;
        self.has_lost = true;
        self.dropped = self.count_dropped();
        Error::COMPLETION_LOST
    }

    /// Whether a completion has been lost since the last `take_loss`.
    pub(crate) fn has_loss(&self) -> bool {
        self.has_lost
    }

    /// As `has_loss`, and clears the note. Which completion was lost is unknown.
    pub(crate) fn take_loss(&mut self) -> bool {
        std::mem::take(&mut self.has_lost)
    }

    /// Passes the numbers of the queued entries that the kernel has not taken to `untaken`.
    #[cold]
    pub(crate) fn for_each_untaken(&mut self, untaken: impl FnMut(u64)) {
        self.queues.untaken().for_each(untaken);
    }
}

/// Faults that a test injects.
#[cfg(test)]
#[derive(Default, Debug)]
pub(crate) struct Faults {
    /// Loses the next completion that is not the ring's own.
    pub(crate) loses_next: bool,
    /// The number of next enters that fail, and their errno.
    pub(crate) enters: (u32, i32),
    /// The number of completions that the kernel counts as lost.
    pub(crate) drops: u32,
    /// The next call of `settle` with more than one enter reports a lost completion.
    pub(crate) settle_loses: bool,
}

#[cfg(test)]
impl Faults {
    /// Loses a completion now; the next enter or the count reports it.
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

#[cfg(test)]
impl Kernel {
    pub(crate) fn uring(&mut self) -> &mut Kernel {
        self
    }

    /// As on a kernel from 5.13 to 5.18, which counts lost completions.
    pub(crate) fn count_losses(&mut self) {
        self.abilities.waits_to_register = true;
    }

    /// As on a kernel before 5.13.
    pub(crate) fn poll_once_only(&mut self) {
        self.abilities.polls_multishot = false;
    }

    /// Submits operations that complete at once and whose completions are ignored.
    pub(crate) fn flood(&mut self, count: u64) {
        let nop = Sqe { opcode: opcodes::NOP, fd: -1, ..Sqe::default() };
        for _ in 0..count {
            self.push_own(nop, IGNORED).unwrap();
        }
        self.submit().unwrap();
    }
}
