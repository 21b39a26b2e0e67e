//! Embeds the loop in a host loop, through one descriptor that is readable whenever there is work.
//!
//! Relies on the host calling `run_once` when the descriptor is readable, and `flush` after
//! scheduling. Does not drive the loop by itself.

use std::os::fd::RawFd;

use nix::sys::eventfd::EventFd;

use crate::error::{Error, Result};
use crate::event_loop::Loop;
use crate::time::Clock;

impl Loop {
    /// A descriptor that is readable whenever `run_once` with a zero limit has work, timers
    /// included. The host loop passes it to `poll`, `epoll` or the like. The loop owns the
    /// descriptor: never read or close it.
    ///
    /// The host waits until the descriptor is readable, calls [`run_once`](Loop::run_once) with a
    /// zero limit, and waits again. After scheduling anything in between, it calls
    /// [`flush`](Loop::flush) before it waits. The first call makes the descriptor: an eventfd,
    /// before Linux 5.19 an epoll; other loops have none. A virtual clock does not advance while
    /// the host waits. Errors: EMFILE, ENFILE, ENOMEM, ESHUTDOWN.
    pub fn fd(&self) -> Result<RawFd> {
        self.check_open()?;
        if self.shared.host_fd().is_none() {
            self.shared.make_host_fd(|fd| self.kernel.borrow_mut().host_fd(fd).map(drop))?;
        }
        self.flush()?;
        self.kernel.borrow_mut().host_fd(self.shared.host_fd().expect("it was made above"))
    }

    /// Updates [`fd`](Loop::fd) with what was scheduled, cancelled or forgotten since the last
    /// [`run_once`](Loop::run_once): arms the earliest deadline in the ring, and makes the
    /// descriptor readable if something is ready. At most two system calls.
    ///
    /// Not needed inside callbacks. No effect before the first call of [`fd`](Loop::fd). Errors:
    /// ENOMEM, with nothing lost; those of `io_uring_enter`.
    pub fn flush(&self) -> Result<()> {
        self.check_open()?;
        match self.shared.host_fd() {
            Some(fd) if !self.running.get() => self.arm_and_signal(fd),
            _ => Ok(()),
        }
    }

    /// At the end of a run, updates the host's descriptor. An error makes the descriptor readable,
    /// so that the host calls, and the next `flush` or run returns the error.
    #[inline]
    pub(crate) fn hand_over_to_host(&self) {
        let Some(fd) = self.shared.host_fd() else { return };
        // EAGAIN means that it was not readable.
        let _ = fd.read();
        if self.arm_and_signal(fd).is_err() {
            make_readable(fd);
        }
    }

    /// At the beginning of a run, reports a lost completion that the end of the last run found.
    #[inline]
    pub(crate) fn tell_loss_to_host(&self) -> Result<()> {
        if self.shared.host_fd().is_some() && self.kernel.borrow_mut().take_loss() {
            self.schedule.borrow_mut().completion_lost();
            return Err(Error::COMPLETION_LOST);
        }
        Ok(())
    }

    /// At the beginning of a run, ends the host's sleep. Returns whether a remote has woken the
    /// loop meanwhile.
    pub(super) fn host_woke(&self) -> bool {
        let mut schedule = self.schedule.borrow_mut();
        if matches!(self.clock, Clock::Monotonic) && schedule.has_timers() {
            schedule.is_due_after_sleep(self.clock.now());
        }
        self.shared.inbox.wake_up()
    }

    fn arm_and_signal(&self, fd: &EventFd) -> Result<()> {
        self.settle();
        let mut kernel = self.kernel.borrow_mut();
        let mut schedule = self.schedule.borrow_mut();
        self.submit_deferred(&mut schedule, &mut kernel)?;
        kernel.watch_wakes(self.shared.eventfd())?;
        let mut has_work = !self.shared.inbox.fall_asleep()
            || schedule.is_ready()
            || schedule.has_submissions()
            || kernel.has_completions();
        loop {
            if has_work || schedule.is_due(self.clock.now()) {
                make_readable(fd);
                return kernel.submit();
            }
            kernel.submit_with_timeout(self.wake_up(&mut schedule).time)?;
            if !kernel.has_completions() && !kernel.has_queued() {
                return Ok(());
            }
            // The completions may all be the ring's own, where the kernel reports each change of a
            // timeout; the host need not call for them. When the kernel refuses entries at the
            // moment, the host must call again.
            has_work = kernel.reap_own() || kernel.has_queued();
        }
    }
}

fn make_readable(fd: &EventFd) {
    // EAGAIN means that its counter is at its maximum, 2^64 - 2, so that it is readable.
    let _ = fd.write(1);
}
