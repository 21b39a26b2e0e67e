//! Work on other threads, as operations of the loop.
//!
//! A closure goes to a thread of `threads::executor`; its return value or its panic comes back to
//! the loop's thread (S30). Work that has begun cannot be cancelled.

use std::mem::replace;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Callback, Loop};
use crate::abi::handle::Handle;
use crate::error::{Error, Result};
use crate::pending::callback::Job;
use crate::sys::memory::TryArc;

impl Loop {
    /// Runs `work` on another thread, and then `done` on the loop's, with the return value of
    /// `work`. Posts of `work` to the loop without a delay run before `done`. This is for work that
    /// blocks or takes long. Threads start on demand, up to
    /// [`Builder::executor_threads`](crate::Builder::executor_threads); work that finds no free
    /// thread waits.
    ///
    /// The work is an operation (S13). If it is cancelled before it has begun, `work` never runs,
    /// and `done` gets ECANCELED. Work that has begun runs to its end. `done` is called once,
    /// unless the loop is closed before; closing waits for work that has begun. A panic in `work`
    /// is raised in the place of `done` (S30).
    ///
    /// Costs a few microseconds, and two allocations or more. Errors: EAGAIN when there is no
    /// thread, and none can be started; ENOMEM, ESHUTDOWN.
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

    /// Runs work on another thread, and calls `callback` after it; its result is 0 or -ECANCELED.
    pub(crate) fn execute(&self, job: Job, callback: Callback) -> Result<Handle> {
        // The borrow ends before the callback is dropped.
        let mut schedule = self.schedule.borrow_mut();
        schedule.reserve_operations(1)?;
        let (work, ticket) = self.executor.admit(&self.shared)?;
        let handle = schedule.add_work(work, callback);
        self.executor.begin(ticket, job, handle);
        Ok(handle)
    }
}

/// The loop's side of work: shares the state of the work with its thread, and gets the result.
pub(crate) struct Packet<F, T>(TryArc<Mutex<Stage<F, T>>>);

/// The state of a work item.
enum Stage<F, T> {
    Waiting(F),
    Done(std::thread::Result<T>),
    Taken,
}

impl<T: Send + 'static, F: FnOnce() -> T + Send + 'static> Packet<F, T> {
    /// The job, which does not panic and runs no user code when it is dropped, and the packet that
    /// gets its result.
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

    /// The result of the work; None when it was cancelled.
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
