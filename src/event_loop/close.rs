//! The end of a loop: shutdown and close.
//!
//! Both cancel the operations and wait for the kernel first, because it uses their buffers until
//! then (S22). Only then does anything get released or freed.

use std::panic::resume_unwind;
use std::time::Duration;

use super::release::attempt;
use super::sleep::FOREVER;
use super::{EndTogether, Held, Loop, Phase, Schedule};
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::observe::inspect;
use crate::pending::End;
use crate::pending::posts::{Due, Post};
use crate::sys::descriptors::close_unseen;
use crate::time::{self, Clock, Time};

/// The error of a close, with the loop. Nothing is lost, and the loop can be closed again.
#[derive(Debug)]
pub struct CloseError {
    /// The loop, unchanged.
    pub lp: Loop,
    /// Why the close failed.
    pub error: Error,
}

impl std::fmt::Display for CloseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for CloseError {}

impl Loop {
    /// Ends a loop gracefully: cancels everything and runs until the last final callback has run.
    /// From then on the loop accepts nothing new, and the caller should close it (S22).
    ///
    /// An operation that the kernel cannot cancel is waited for. Errors: EBUSY inside a run, a hook
    /// or a walk of this loop; those of [`run`](Loop::run), after which the function can be called
    /// again.
    pub fn shutdown(&self) -> Result<()> {
        self.check_idle()?;
        self.phase.set(Phase::ShutDown);
        self.release_all_files();
        self.cancel_everything(End::Ask);
        self.check_not_forked()?;
        if self.schedule.borrow().has_results_to_come() {
            self.in_run(|_| {
                while self.schedule.borrow().has_results_to_come() {
                    // `stop` and `break_` do not end the wait for the last final callback.
                    self.stopping.set(false);
                    self.breaking.set(false);
                    self.iterate(FOREVER, false)?;
                }
                Ok(())
            })?;
        }
        self.check_not_forked()
    }

    /// Runs until nothing referenced is left (S19), for at most `limit`, and then shuts down as
    /// [`shutdown`](Loop::shutdown) does. Pending operations get this time to complete. Returns the
    /// number of referenced entries that had to be cancelled; 0 means that all have ended by
    /// themselves.
    ///
    /// Cancel listeners and other entries that never end by themselves before this call.
    /// [`stop`](Loop::stop), [`break_`](Loop::break_) and signals do not end it. The limit counts
    /// on the virtual clock, if the loop has one, and on CLOCK_MONOTONIC while the loop sleeps for
    /// an operation, because the virtual clock stands still then (S36). Errors: those of
    /// `shutdown`.
    ///
    /// # Panics
    /// As [`run`](Loop::run).
    pub fn shutdown_within(&self, limit: Duration) -> Result<usize> {
        self.check_idle()?;
        let mut until = self.time() + limit;
        while self.is_alive() {
            let left = until - self.time();
            if left.is_zero() {
                break;
            }
            // Operations stop a virtual clock.
            let is_standing =
                matches!(self.clock, Clock::Virtual(_)) && self.schedule.borrow().has_operations();
            let standing = is_standing.then(Time::now);
            match self.run_once(left) {
                Err(Error::INTERRUPTED) => {}
                ran => drop(ran?),
            }
            if let Some(began) = standing {
                until = Time::from_nanos(
                    until.as_nanos().saturating_sub((Time::now() - began).as_nanos() as u64),
                );
            }
        }
        let left = self.schedule.borrow().referenced();
        self.shutdown()?;
        Ok(left)
    }

    /// Closes the loop: cancels everything, runs release hooks, runs no callbacks, frees everything
    /// (S22). Dropping the loop does the same.
    ///
    /// It also closes where `io_uring_enter` is refused, for example by a seccomp filter installed
    /// later. The data of operations that the kernel has taken leaks then, because the kernel may
    /// still use it.
    #[expect(clippy::result_large_err, reason = "the error hands the loop back")]
    pub fn close(self) -> std::result::Result<(), CloseError> {
        self.close_within(Duration::MAX)
    }

    /// As [`close`](Loop::close), but fails with ETIMEDOUT when after `limit` the kernel has not
    /// released all data, or work on another thread has not ended. The error contains the loop,
    /// which can be closed again. Its operations and work have been cancelled; nothing else has
    /// changed. Calls and timers keep nothing in the kernel and never cause ETIMEDOUT. Other
    /// errors: ENOMEM when there is no memory for the results of operations, which
    /// [`close`](Loop::close) does not need; the error of `io_uring_enter`, with nothing freed.
    #[expect(clippy::result_large_err, reason = "the error hands the loop back")]
    pub fn close_within(self, limit: Duration) -> std::result::Result<(), CloseError> {
        match self.prepare_close(time::nanos(limit)) {
            Ok(()) => Ok(()),
            Err(error) => Err(CloseError { lp: self, error }),
        }
    }

    /// Makes the loop ready to be closed by the calling thread, which takes the loop over if its
    /// owner has exited (S25). Waits at most `limit` nanoseconds for the kernel to release all
    /// data.
    pub(crate) fn prepare_close(&self, limit: u64) -> Result<()> {
        // The checks precede any read of data that another thread may be writing. A forked child
        // frees its copy of the memory.
        let is_forked = !self.owner.process().is_current();
        if !is_forked {
            let is_heir = self.owner.is_heir()?;
            self.executor.check_elsewhere()?;
            if is_heir {
                self.owner.inherit();
                #[cfg(feature = "capi")]
                self.forget_thread();
            }
        }
        match (self.running.get() || self.user_code.get() > 0, self.phase.get()) {
            (false, _) if is_forked => Ok(()),
            (false, _) => self.drain(limit),
            (true, _) if is_forked => Err(Error::FORKED),
            (true, Phase::Closing) => Err(Error::SHUT_DOWN),
            (true, _) => Err(Error::RUNNING),
        }
    }

    /// Ends and releases everything that is pending, without running it. A forked child forgets
    /// everything instead, because no user code may run there (S33).
    pub(crate) fn end_everything(&self) {
        if !self.owner.process().is_current() {
            self.forget_everything();
            return;
        }
        self.phase.set(Phase::Closing);
        if let Some(trace) = self.slow.trace {
            trace.flush();
        }
        if self.slow.debug {
            let printed = self.walk_pending(|info| {
                inspect::print_pending(info, self.time());
                Ok(())
            });
            debug_assert!(printed.is_ok());
        }
        // Data that the kernel does not release is not freed.
        let _ = self.drain(u64::MAX);
        if !self.owner.process().is_current() {
            // A signal handler of the program has forked during the wait, and this is the child.
            self.forget_everything();
            return;
        }
        while let Some(unseen) = { self.schedule.borrow_mut().discard_result() } {
            unseen.into_iter().for_each(close_unseen);
        }
        self.cancel_everything(End::Now);
        self.phase.set(Phase::Closed);
    }

    /// Cancels all operations and waits until the kernel has released them and begun work has
    /// ended, at most `limit` nanoseconds, then ETIMEDOUT. Their results stay queued. Works
    /// also when memory is refused (S31).
    fn drain(&self, limit: u64) -> Result<()> {
        let (mut schedule, mut kernel) = (self.schedule.borrow_mut(), self.kernel.borrow_mut());
        if !schedule.is_kernel_busy() && !schedule.has_operations() {
            return Ok(());
        }
        schedule.ask_all_to_end();
        let (until, may_give_up) = (time::monotonic().saturating_add(limit), limit < u64::MAX);
        let drained = self
            .executor
            .wait(until)
            .and_then(|()| self.drain_kernel(&mut schedule, &mut kernel, until, may_give_up));
        if drained.is_err() && may_give_up {
            // The loop stays in use.
            schedule.rearm_polls();
        }
        drained
    }

    fn drain_kernel(
        &self,
        schedule: &mut Schedule,
        kernel: &mut Kernel,
        until: u64,
        may_give_up: bool,
    ) -> Result<()> {
        while schedule.has_to_drain() {
            // An entry that the kernel refuses now is taken once the kernel has completed another.
            let waited = match self.submit_deferred(schedule, kernel) {
                Err(Error::NO_SUBMISSION_FOR_LONG) => Err(Error::NO_SUBMISSION_FOR_LONG),
                _ => kernel.wait_for_completion(until),
            };
            self.check_not_forked()?;
            let room = schedule.reserve_completions(kernel.batch_len());
            if may_give_up {
                // A close that may fail must keep every result.
                room?;
            }
            kernel.reap(|completed| match room {
                Ok(()) => schedule.completed(completed),
                Err(_) => schedule.discard(completed).into_iter().for_each(close_unseen),
            });
            if kernel.take_loss() {
                schedule.completion_lost();
            }
            if !schedule.has_to_drain() {
                break;
            }
            match waited {
                Err(Error::COMPLETION_LOST) => {}
                Err(_) if kernel.batch_len() > 0 => {}
                // The ring was bound to a thread that has exited.
                Err(_) if self.owner.is_inherited() => {
                    self.owner.await_exit(until)?;
                    kernel.for_each_untaken(|number| schedule.was_not_taken(number));
                    schedule.kernel_has_let_go();
                    break;
                }
                Err(error) if may_give_up => return Err(error),
                // The kernel can no longer be entered and reports nothing. The data that it holds
                // is never released.
                Err(_) => {
                    kernel.for_each_untaken(|number| schedule.was_not_taken(number));
                    schedule.give_up_on_kernel();
                    break;
                }
                Ok(_) if time::monotonic() >= until => return Err(Error::CLOSE_TIMED_OUT),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Cancels the operations that a device may be working on, and waits for them until `until`,
    /// because the thread that the ring is bound to exits. The rest, and the results, remain for
    /// the thread that closes the loop.
    #[cfg(feature = "capi")]
    pub(super) fn wait_for_devices(&self, until: u64) {
        let (Ok(mut schedule), Ok(mut kernel)) =
            (self.schedule.try_borrow_mut(), self.kernel.try_borrow_mut())
        else {
            return;
        };
        let mut is_first = true;
        while schedule.ask_devices_to_end() && (is_first || time::monotonic() < until) {
            is_first = false;
            let _ = self.submit_deferred(&mut schedule, &mut kernel);
            let waited = kernel.wait_for_completion(until);
            // Without space, completions stay in the completion queue.
            if schedule.reserve_completions(kernel.batch_len()).is_err() {
                return;
            }
            kernel.reap(|completed| schedule.completed(completed));
            if kernel.take_loss() {
                schedule.completion_lost();
            } else if waited.is_err() && kernel.batch_len() == 0 {
                return;
            }
        }
    }

    /// Ends everything that is pending. A panic in one Drop or release hook does not skip the
    /// others; the first panic resumes when all have run. Allocates nothing (S31).
    fn cancel_everything(&self, end: End) {
        let _together = EndTogether::begin(self);
        // Ready posts came before those in the inbox.
        let (mut ready, mut posts) =
            (self.schedule.borrow_mut().end_posts(), self.shared.inbox.close());
        let mut index = 0;
        let mut first_panic = None;
        let mut next_post =
            || ready.pop().or_else(|| posts.pop()).map(|post| self.unpack_ended(post));
        while let Some(ended) = next_post().or_else(|| self.end_next(&mut index, end)) {
            let panic = attempt(|| self.release_catching(ended));
            if first_panic.is_none() {
                first_panic = panic;
            } else {
                // Dropping a panic's payload may panic.
                std::mem::forget(panic);
            }
            if !self.owner.process().is_current() {
                // The released user code has forked, and this is the child.
                self.forget_everything();
                return;
            }
        }
        // A loop that is dropped during a panic must not begin another.
        if let Some(payload) = first_panic.filter(|_| !std::thread::panicking()) {
            resume_unwind(payload);
        }
    }

    /// The rest of a post that will not run. Completed work still runs its callback if that
    /// callback is still to come.
    fn unpack_ended(&self, post: Post<Loop>) -> Held {
        let Some(Due::Work(ticket)) = post.due() else { return post.unpack() };
        self.executor.tell_later(ticket, post);
        Held::EMPTY
    }

    /// Ends the entry in the next filled slot, from `index` on.
    fn end_next(&self, index: &mut u32, end: End) -> Option<Held> {
        let mut schedule = self.schedule.borrow_mut();
        while *index < schedule.len() {
            *index += 1;
            if schedule.is_filled(*index - 1)
                && let Some(ended) = schedule.end_at(*index - 1, end)
            {
                return Some(ended);
            }
        }
        None
    }

    /// Forgets all user code without running any of it, Drops included.
    fn forget_everything(&self) {
        // Posts that are not unpacked leak.
        self.schedule.borrow_mut().end_posts();
        self.shared.inbox.close();
        if self.schedule.borrow_mut().forget_all() {
            // A task that has not ended relies on the shared data of its loop: an abort or a wake
            // reads the process ID there.
            std::mem::forget(self.shared.clone());
        }
        self.exception_handler.forget();
        self.slow.handler.forget();
    }
}
