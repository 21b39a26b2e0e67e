//! Starting tasks, and running a loop for one of them.
//!
//! A run for a future leaves neither the future nor a stop behind, whichever way it ends (S42).

use std::future::Future;
use std::panic::resume_unwind;

use super::body::{self, JoinHandle};
use crate::error::{Error, Result};
use crate::event_loop::Loop;

/// Starts a task on the loop that is running on this thread; see [`Loop::spawn`]. Errors: EINVAL
/// when none is, and those of that.
pub fn spawn<F: Future + 'static>(future: F) -> Result<JoinHandle<F::Output>> {
    Loop::with_running(|lp| lp.ok_or(Error::NO_LOOP)?.spawn(future))
}

/// Stops the run of its loop when it is dropped: when the future is complete, has panicked, or has
/// been cancelled, polled or not.
struct Stop<'a>(&'a Loop);

impl Loop {
    /// Starts a task: the future is polled in a later iteration, after all that is ready already
    /// (S6, S7), and then whenever it has been woken, until it is complete. It counts for
    /// [`run`](Loop::run) until then (S19).
    ///
    /// O(1), one allocation, no system call. Errors: ENOMEM, ESHUTDOWN, which drop the future.
    pub fn spawn<F: Future + 'static>(&self, future: F) -> Result<JoinHandle<F::Output>> {
        body::spawn(self, future)
    }

    /// Runs the loop until `future` is complete, and gives its output. The future may borrow what
    /// it likes, the loop included.
    ///
    /// The batch in which it completes is run to its end, as after [`stop`](Loop::stop); what is
    /// still pending then waits for the next run. A panic of the future comes up here.
    ///
    /// Errors: ECANCELED when the loop was stopped or broken off first, or the future's task was
    /// cancelled; those of [`run_forever`](Loop::run_forever). The future is dropped then: who
    /// wants to go on with it gives `&mut` of a pinned one.
    ///
    /// # Panics
    /// When the future does, and as [`run`](Loop::run).
    pub fn run_until_complete<F: Future>(&self, future: F) -> Result<F::Output> {
        self.check_idle()?;
        let stop = Stop(self);
        let stopping = async move {
            let _stop = stop;
            future.await
        };
        let (join, ran, is_complete) = body::run_scoped(self, stopping)?;
        match join.take_output() {
            // An output is worth more than an error of the run, which comes again.
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
        // After the run, it would stop the next one; and a loop that is being closed has stopped.
        if self.0.is_running() {
            let _ = self.0.stop();
        }
    }
}
