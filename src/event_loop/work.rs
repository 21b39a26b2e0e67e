//! Work off the loop, as operations of the loop: `threads::executor` has the threads. A closure
//! goes to one of them, and what it has returned, or its panic, comes back (S30).

use std::mem::replace;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Callback, Loop};
use crate::abi::handle::Handle;
use crate::error::{Error, Result};
use crate::pending::callback::Job;
use crate::sys::memory::TryArc;

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
            Some(Ok(result)) => done(lp, Ok(result)),
            Some(Err(payload)) => resume_unwind(payload),
            None => done(lp, Err(Error::CANCELLED)),
        })?;
        self.execute(job, callback)
    }

    /// Has work done, and `callback` called when it has ended; its result is 0 or -ECANCELED.
    pub(crate) fn execute(&self, job: Job, callback: Callback) -> Result<Handle> {
        // The borrow ends before the callback does.
        let mut schedule = self.schedule.borrow_mut();
        schedule.reserve_operations(1)?;
        let (work, ticket) = self.executor.admit(&self.shared)?;
        let handle = schedule.add_work(work, callback);
        self.executor.begin(ticket, job, handle);
        Ok(handle)
    }
}

/// Work that has been handed over, as the loop's thread knows it: it gets the result.
pub(crate) struct Packet<F, T>(TryArc<Mutex<Stage<F, T>>>);

enum Stage<F, T> {
    Waiting(F),
    Done(std::thread::Result<T>),
    Taken,
}

impl<T: Send + 'static, F: FnOnce() -> T + Send + 'static> Packet<F, T> {
    /// Work to hand over, which does not panic and runs no user code when it is dropped, and what
    /// will have the result.
    pub(crate) fn new(work: F) -> Result<(Job, Packet<F, T>)> {
        let packet = TryArc::new(Mutex::new(Stage::Waiting(work)))?;
        let job = Packet(packet.clone());
        Ok((Job::new(move || job.work())?, Packet(packet)))
    }

    fn work(self) {
        let Stage::Waiting(work) = self.take() else { return };
        let result = catch_unwind(AssertUnwindSafe(work));
        *self.stage() = Stage::Done(result);
    }

    /// What came of it, for the callback of the work: None when it was cancelled.
    pub(crate) fn open(self) -> Option<std::thread::Result<T>> {
        if let Stage::Done(result) = self.take() { Some(result) } else { None }
    }

    fn take(&self) -> Stage<F, T> {
        replace(&mut *self.stage(), Stage::Taken)
    }

    fn stage(&self) -> MutexGuard<'_, Stage<F, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
