//! Waiting for a task, and ending it.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

use super::body::{self, Header, Status};
use super::waker::{Local, Notify};
use crate::abi::handle::Handle;
use crate::error::Error;
use crate::event_loop::{Loop, Payload, Unjoined, drop_quietly};
use crate::sys::try_arc::TryArc;
use crate::threads::remote::{Remote, Shared};

/// Waits for a task of a loop; made by [`spawn`](super::spawn) and [`Loop::spawn`].
///
/// Awaiting it gives what the task's future came to, or says that the task was aborted or has panicked. Dropping it lets the task go on
/// by itself; see [`abort`](JoinHandle::abort) to end it. A panic of a task whose join handle is dropped, before it or after it, goes to
/// the [exception handler](Loop::set_exception_handler); without one std's panic hook has told of it, and the loop goes on (S41). It
/// belongs to the loop's thread.
#[must_use = "dropping it lets the task go on; an error of the task is then seen by nobody"]
pub struct JoinHandle<T> {
    task: Local,
    output: PhantomData<T>,
}

impl<T> JoinHandle<T> {
    /// The join handle of a task that has been made for it.
    ///
    /// # Safety
    /// One of the references of the loop's thread becomes this one's; the output of the task's future is a `T`.
    pub(super) unsafe fn new(task: NonNull<Header>) -> JoinHandle<T> {
        // SAFETY: as the caller says.
        JoinHandle { task: unsafe { Local::from_owned(task) }, output: PhantomData }
    }

    pub(super) fn header(&self) -> &Header {
        self.task.header()
    }

    /// What came of the task, if it has ended and nobody has taken it.
    pub(super) fn take_output(&self) -> Option<Result<T, JoinError>> {
        // SAFETY: this refers to the task, whose output is a `T`.
        unsafe { body::take_output(self.task.as_ptr()) }
    }

    /// Ends the task: its future is dropped where it stands, its locals in the reverse order of their declaration, and the
    /// operations that it awaits are cancelled. Whoever awaits this is told so. Nothing happens if the task has ended.
    ///
    /// Inside of a run of the loop the future has been dropped when this returns, unless it is the caller's own: then it is when its
    /// poll returns. (Within sixteen releases in one another, as in groups nested that deep, it is when the sixteenth returns: S14.) Outside, it is dropped by the loop's next iteration; [`Loop::cancel`] with [`handle`](JoinHandle::handle) does it
    /// at once.
    pub fn abort(&self) {
        let header = self.header();
        if header.status.get() != Status::Running {
            return;
        }
        let is_cancelled =
            Loop::with_running(|lp| lp.filter(|lp| header.is_of(lp)).map(|lp| lp.cancel(self.handle())).is_some());
        if !is_cancelled {
            header.to_abort.set(true);
            self.task.wake();
        }
    }

    /// Lets the task go on by itself, as dropping this does.
    pub fn detach(self) {}

    /// Whether the task has ended: then awaiting this does not wait.
    pub fn is_finished(&self) -> bool {
        matches!(self.header().status.get(), Status::Ended | Status::Empty)
    }

    /// The task's handle. [`Loop::cancel`] with it aborts the task, also by way of a [`Remote`](crate::Remote);
    /// [`Loop::unref`] makes a task of it that [`Loop::run`] does not wait for; [`Loop::walk`] shows it.
    pub fn handle(&self) -> Handle {
        self.header().handle.get().expect("a task has a handle before it has a join handle")
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// When it is polled again after it was ready.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let header = self.header();
        if !self.is_finished() {
            let joiner = header.joiner.take().filter(|joiner| joiner.is_for(context.waker()));
            let joiner = joiner.unwrap_or_else(|| Notify::of(context.waker()));
            // The wakers of others are user code, which may have ended the task.
            if !self.is_finished() {
                header.joiner.set(Some(joiner));
                return Poll::Pending;
            }
        }
        let output = self.take_output().expect("a join handle is not polled after it was ready");
        Poll::Ready(output.map_err(JoinError::seen))
    }
}

impl<T> Unpin for JoinHandle<T> {}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        self.header().is_joined.set(false);
        let joiner = self.header().joiner.take();
        // The user's code comes last.
        match self.take_output() {
            Some(Err(error)) => error.unseen(),
            output => drop((joiner, output)),
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("handle", &self.header().handle.get())
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

/// Why a task has no output: it was aborted, or it has panicked.
pub struct JoinError {
    /// Of a panic.
    payload: Option<Payload>,
    /// The loop that tells of the panic if nobody sees this.
    teller: Option<TryArc<Shared>>,
}

// SAFETY: through a shared reference nothing is done with the payload but to look whether it is a text, and those are `Sync`; the
// loop that would tell is for all threads.
unsafe impl Sync for JoinError {}

impl JoinError {
    pub(super) fn cancelled() -> JoinError {
        JoinError { payload: None, teller: None }
    }

    /// A panic in what a loop runs, for whoever awaits that.
    pub(super) fn panicked(payload: Payload, teller: &TryArc<Shared>) -> JoinError {
        JoinError { payload: Some(payload), teller: Some(teller.clone()) }
    }

    /// The user has it now.
    pub(super) fn seen(mut self) -> JoinError {
        self.teller = None;
        self
    }

    /// Nobody will see it: a panic goes to the exception handler, by the next iteration of its loop (S41). Here the user's code is on the
    /// stack, with what it has borrowed. A loop that takes nothing more tells nobody.
    pub(super) fn unseen(self) {
        if let (Some(payload), Some(teller)) = (self.payload, self.teller)
            && let Err(refused) = Remote::new(teller).call_soon(move |_| Unjoined::raise(payload))
        {
            drop_quietly(refused);
        }
    }

    /// Whether the task was aborted: by [`JoinHandle::abort`], [`Loop::cancel`], or the end of its loop.
    pub fn is_cancelled(&self) -> bool {
        self.payload.is_none()
    }

    /// Whether the task has panicked, in its future or in what was dropped at its end.
    pub fn is_panic(&self) -> bool {
        self.payload.is_some()
    }

    /// What the task panicked with, for [`std::panic::resume_unwind`]; None if it was aborted.
    pub fn into_payload(self) -> Option<Box<dyn Any + Send>> {
        self.payload
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(payload) = &self.payload else { return f.write_str("the task was aborted") };
        let message = payload.downcast_ref::<&str>().copied();
        let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        match message {
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

/// ECANCELED for a task that was aborted, ENOTRECOVERABLE for one that has panicked; the payload is dropped.
impl From<JoinError> for Error {
    fn from(error: JoinError) -> Error {
        if error.is_panic() { Error::TASK_PANICKED } else { Error::TASK_ABORTED }
    }
}
