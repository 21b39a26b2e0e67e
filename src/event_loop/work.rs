//! Work off the loop, as operations of the loop: `threads::executor` has the threads.

use std::panic::resume_unwind;

use super::{Callback, Loop};
use crate::abi::handle::Handle;
use crate::error::{Error, Result};
use crate::pending::callback::Job;
use crate::threads::work::{Packet, Worked};

impl Loop {
    /// Runs `work` on another thread, and then `done` on the loop's, with what `work` returned.
    /// What `work` has posted to the loop runs before `done`. For what blocks or takes long:
    /// threads are started when they are needed, up to
    /// [`Builder::executor_threads`](crate::Builder::executor_threads), and work that finds none
    /// free waits for its turn.
    ///
    /// It is an operation (S13): cancelled before it has begun, it never runs, and `done` gets
    /// ECANCELED; work that has begun ends by itself. `done` is called once, unless the loop is
    /// closed before; closing waits for work that has begun. A panic in `work` comes up where
    /// `done` would have run (S30).
    ///
    /// A few microseconds, and two allocations or more. Errors: EAGAIN when there is no thread, and
    /// none can be started; ENOMEM, ESHUTDOWN.
    pub fn run_in_executor<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&Loop, Result<T>) + 'static,
    ) -> Result<Handle> {
        self.check_open()?;
        let (job, packet) = Packet::new(work)?;
        let callback = Callback::once(move |lp: &Loop| match packet.open() {
            Worked::Done(result) => done(lp, Ok(result)),
            Worked::Panicked(payload) => resume_unwind(payload),
            Worked::Cancelled => done(lp, Err(Error::CANCELLED)),
        })?;
        self.execute(job, callback)
    }

    /// Has work done, and `callback` called when it has ended; its result is 0 or -ECANCELED.
    pub(crate) fn execute(&self, job: Job, callback: Callback) -> Result<Handle> {
        let admitted = self.executor.admit(&self.shared)?;
        let work = admitted.work()?;
        // The borrow ends before the callback does.
        let mut schedule = self.schedule.borrow_mut();
        schedule.reserve_operations(1)?;
        let handle = schedule.add_work(work, callback);
        admitted.begin(job, handle);
        Ok(handle)
    }
}
