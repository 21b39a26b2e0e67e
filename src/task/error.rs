//! The error of a task without output.
//!
//! A panic is reported once: to the awaiter of the task, or without one to the exception handler of
//! its loop (S41).

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use crate::error::Error;
use crate::event_loop::remote::Remote;
use crate::event_loop::{Payload, Shared, Unjoined, drop_quietly};
use crate::sys::memory::TryArc;

/// Why a task has no output: it was aborted, or it panicked.
pub struct JoinError {
    panic: Option<Box<Panic>>,
}

struct Panic {
    /// Makes the error `Sync`, which the payload is not.
    payload: Mutex<Payload>,
    /// The loop that reports the panic if this is never delivered.
    teller: Option<TryArc<Shared>>,
    /// Makes the type not unwind-safe, as `Payload`.
    unwind: PhantomData<dyn Any + Send + Sync>,
}

impl JoinError {
    pub(super) fn cancelled() -> JoinError {
        JoinError { panic: None }
    }

    /// A panic in a task or in work, for its awaiter.
    pub(super) fn panicked(payload: Payload, teller: &TryArc<Shared>) -> JoinError {
        let (payload, teller) = (Mutex::new(payload), Some(teller.clone()));
        JoinError { panic: Some(Box::new(Panic { payload, teller, unwind: PhantomData })) }
    }

    /// The error has been delivered to the user.
    pub(super) fn seen(mut self) -> JoinError {
        self.panic.iter_mut().for_each(|panic| panic.teller = None);
        self
    }

    /// The error will not be delivered: a panic goes to the exception handler, in the next
    /// iteration of its loop (S41), because here user code with borrows is on the stack. A loop
    /// that accepts nothing more does not report it.
    pub(super) fn unseen(mut self) {
        let teller = self.panic.as_mut().and_then(|panic| panic.teller.take());
        if let (Some(payload), Some(teller)) = (self.into_payload(), teller)
            && let Err(refused) = Remote::new(teller).call_soon(move |_| Unjoined::raise(payload))
        {
            drop_quietly(refused);
        }
    }

    /// Whether the task was aborted: by [`JoinHandle::abort`](super::JoinHandle::abort),
    /// [`Loop::cancel`](crate::Loop::cancel), or the end of its loop.
    pub fn is_cancelled(&self) -> bool {
        self.panic.is_none()
    }

    /// Whether the task has panicked, in its future or in what was dropped at its end.
    pub fn is_panic(&self) -> bool {
        self.panic.is_some()
    }

    /// The payload of the panic, for [`std::panic::resume_unwind`]; None if the task was aborted.
    pub fn into_payload(self) -> Option<Box<dyn Any + Send>> {
        self.panic.map(|panic| panic.payload.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Panic {
    /// A copy, so that the lock is not held while user code formats it.
    fn message(&self) -> Option<String> {
        let payload = self.payload.lock().unwrap_or_else(PoisonError::into_inner);
        let message = payload.downcast_ref::<&str>().map(|message| (*message).to_owned());
        message.or_else(|| payload.downcast_ref::<String>().cloned())
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(panic) = &self.panic else { return f.write_str("the task was aborted") };
        match panic.message() {
            Some(message) => write!(f, "the task panicked: {message}"),
            None => f.write_str("the task panicked"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for JoinError {}

/// ECANCELED for an aborted task, ENOTRECOVERABLE for one that panicked; the payload is dropped.
impl From<JoinError> for Error {
    fn from(error: JoinError) -> Error {
        if error.is_panic() { Error::TASK_PANICKED } else { Error::TASK_ABORTED }
    }
}
