//! The loop inside another loop: one descriptor that is readable whenever there is work.

use std::os::fd::RawFd;

use nix::sys::eventfd::EventFd;

use crate::error::{Error, Result};
use crate::event_loop::Loop;

impl Loop {
    /// A descriptor that is readable whenever `run_once` with a zero limit has work, timers
    /// included: for `poll`, `epoll` and the like of a host loop. It stays the loop's own: never
    /// read or close it.
    ///
    /// The host waits until it is readable, calls [`run_once`](Loop::run_once) with a zero limit,
    /// and waits again. When it schedules anything in between, it calls [`flush`](Loop::flush)
    /// before it waits. The descriptor is made when this is called first, an eventfd, before Linux
    /// 5.19 an epoll; a loop that nobody embeds does not pay for it. A virtual clock does not move
    /// while the host waits. Errors: EMFILE, ENFILE, ENOMEM, ESHUTDOWN.
    pub fn fd(&self) -> Result<RawFd> {
        self.check_open()?;
        if self.shared.host_fd().is_none() {
            self.shared.make_host_fd(|fd| self.kernel.borrow_mut().host_fd(fd).map(drop))?;
        }
        self.flush()?;
        self.kernel.borrow_mut().host_fd(self.shared.host_fd().expect("it was made above"))
    }

    /// Makes [`fd`](Loop::fd) tell of what has been scheduled, cancelled or forgotten since the
    /// last [`run_once`](Loop::run_once): arms the earliest deadline in the ring, and makes the
    /// descriptor readable if something is ready. At most two system calls.
    ///
    /// Not needed inside callbacks. Without [`fd`](Loop::fd) it does nothing. Errors: ENOMEM, with
    /// nothing lost; those of `io_uring_enter`.
    pub fn flush(&self) -> Result<()> {
        self.check_open()?;
        match self.shared.host_fd() {
            Some(fd) if !self.running.get() => self.arm_and_signal(fd),
            _ => Ok(()),
        }
    }

    /// At the end of a run, tells a host loop what is left. An error is told by the next `flush` or
    /// run: the descriptor is readable then, so that the host comes.
    #[inline]
    pub(crate) fn hand_over_to_host(&self) {
        let Some(fd) = self.shared.host_fd() else { return };
        // EAGAIN says that it was unreadable already.
        let _ = fd.read();
        if self.arm_and_signal(fd).is_err() {
            make_readable(fd);
        }
    }

    /// At the beginning of a run: the kernel may have told of a lost completion when the run before
    /// handed over.
    #[inline]
    pub(crate) fn tell_loss_to_host(&self) -> Result<()> {
        if self.shared.host_fd().is_some() && self.kernel.borrow_mut().take_loss() {
            self.schedule.borrow_mut().completion_lost();
            return Err(Error::COMPLETION_LOST);
        }
        Ok(())
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
            kernel.submit_with_timeout(self.wake_up_time(&mut schedule))?;
            if !kernel.has_completions() && !kernel.has_queued() {
                return Ok(());
            }
            // They may be the ring's own alone, where the kernel cannot move a timeout in silence:
            // nothing for the host. But when the kernel takes no more at the moment, the host is to
            // come again.
            has_work = kernel.reap_own() || kernel.has_queued();
        }
    }
}

fn make_readable(fd: &EventFd) {
    // EAGAIN says that it has been written 2^64 - 2 times: readable it is.
    let _ = fd.write(1);
}
