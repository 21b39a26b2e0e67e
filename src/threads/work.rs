//! Work as a value: a closure goes to another thread, and what it has returned comes back (S30).

use std::any::Any;
use std::mem::replace;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::pending::callback::Job;
use crate::sys::memory::TryArc;

/// Work that has been handed over, as the loop's thread knows it: it gets the result.
pub(crate) struct Packet<F, T>(TryArc<Mutex<Stage<F, T>>>);

enum Stage<F, T> {
    Waiting(F),
    Done(std::thread::Result<T>),
    Taken,
}

/// What came of work.
pub(crate) enum Worked<T> {
    Done(T),
    Panicked(Box<dyn Any + Send>),
    Cancelled,
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
        let Stage::Waiting(work) = self.swap(Stage::Taken) else { return };
        let result = catch_unwind(AssertUnwindSafe(work));
        self.swap(Stage::Done(result));
    }

    /// What came of it: for the callback of the work, on the loop's thread.
    pub(crate) fn open(self) -> Worked<T> {
        match self.swap(Stage::Taken) {
            Stage::Done(Ok(result)) => Worked::Done(result),
            Stage::Done(Err(payload)) => Worked::Panicked(payload),
            _ => Worked::Cancelled,
        }
    }

    fn swap(&self, stage: Stage<F, T>) -> Stage<F, T> {
        replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), stage)
    }
}
