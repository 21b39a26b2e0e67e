//! Starting tasks, and running a loop for one of them.
//!
//! A run for a future leaves neither the future nor a stop behind, whichever way it ends (S42).

use std::future::Future;
use std::panic::resume_unwind;

use super::body::{self, JoinHandle};
use crate::error::{Error, Result};
use crate::event_loop::Loop;

/// Starts a task on the loop that is running on this thread; see [`Loop::spawn`]. Errors: EINVAL
/// when none is running, and those of [`Loop::spawn`].
pub fn spawn<F: Future + 'static>(future: F) -> Result<JoinHandle<F::Output>> {
    Loop::with_running(|lp| lp.ok_or(Error::NO_LOOP)?.spawn(future))
}

/// Stops the run of its loop when dropped: when the future is complete, has panicked, or has been
/// cancelled, polled or not.
struct Stop<'a>(&'a Loop);

impl Loop {
    /// Starts a task: the future is polled in a later iteration, after everything that is ready
    /// already (S6, S7), and then after each wake, until it is complete. Until then it keeps
    /// [`run`](Loop::run) alive (S19).
    ///
    /// O(1), one allocation, no system call. Errors: ENOMEM, ESHUTDOWN, which drop the future.
    pub fn spawn<F: Future + 'static>(&self, future: F) -> Result<JoinHandle<F::Output>> {
        body::spawn(self, future)
    }

    /// Runs the loop until `future` is complete, and returns its output. The future may borrow,
    /// also the loop.
    ///
    /// The batch in which the future completes is run to its end, as after [`stop`](Loop::stop);
    /// other pending entries wait for the next run. A panic of the future resumes here.
    ///
    /// Errors: ECANCELED when `stop` or `break_` came first, or the future's task was cancelled;
    /// those of [`run_forever`](Loop::run_forever). The future is dropped then. To continue it
    /// later, pass `&mut` of a pinned future.
    ///
    /// # Panics
    /// If the future panics, and as [`run`](Loop::run).
    pub fn run_until_complete<F: Future>(&self, future: F) -> Result<F::Output> {
        self.check_idle()?;
        let stop = Stop(self);
        let stopping = async move {
            let _stop = stop;
            future.await
        };
        let (join, ran, is_complete) = body::run_scoped(self, stopping)?;
        match join.take_output() {
            // The output has priority over an error of the run, which the next run returns again.
            Some(Ok(output)) => return Ok(output),
            Some(Err(error)) => {
                if let Some(payload) = error.into_payload() {
                    resume_unwind(payload);
                }
            }
            None => {}
        }
        Err(if is_complete { Error::CANCELLED } else { ran.err().unwrap_or(Error::STOPPED_EARLY) })
    }
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        // After the run, the flag would stop the next one; a loop that is being closed has stopped.
        if self.0.is_running() {
            let _ = self.0.stop();
        }
    }
}
