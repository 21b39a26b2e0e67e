//! Waiting for a task, and ending it.
//!
//! A join handle gives the task's output to one who awaits it, and takes no part in the task's
//! life: that is its slot's. How the future ends is `body`'s business.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::body::Output;
use super::error::JoinError;
use super::header::Status;
use crate::abi::handle::Handle;
use crate::event_loop::Loop;

/// Waits for a task of a loop; made by [`spawn`](super::spawn) and [`Loop::spawn`].
///
/// Awaiting it gives what the task's future came to, or says that the task was aborted or has
/// panicked. Dropping it lets the task go on by itself; see [`abort`](JoinHandle::abort) to end it.
/// A panic of a task whose join handle is dropped, before it or after it, goes to the [exception
/// handler](Loop::set_exception_handler); without one std's panic hook has told of it, and the loop
/// goes on (S41). It belongs to the loop's thread.
#[must_use = "dropping it lets the task go on; an error of the task is then seen by nobody"]
pub struct JoinHandle<T> {
    task: Output<T>,
}

impl<T> JoinHandle<T> {
    pub(super) fn new(task: Output<T>) -> JoinHandle<T> {
        JoinHandle { task }
    }

    /// What came of the task, if it has ended and nobody has taken it.
    pub(super) fn take_output(&self) -> Option<Result<T, JoinError>> {
        self.task.take()
    }

    /// Ends the task: its future is dropped where it stands, its locals in the reverse order of
    /// their declaration, and the operations that it awaits are cancelled. Whoever awaits this is
    /// told so. Nothing happens if the task has ended.
    ///
    /// Inside of a run of the loop the future has been dropped when this returns, unless it is the
    /// caller's own: then it is when its poll returns. (Within sixteen releases in one another, as
    /// in groups nested that deep, it is when the sixteenth returns: S14.) Outside, it is dropped
    /// by the loop's next iteration; [`Loop::cancel`] with [`handle`](JoinHandle::handle) does it
    /// at once.
    pub fn abort(&self) {
        if self.task.status.get() != Status::Running {
            return;
        }
        if Loop::if_running(self.task.shared(), |lp| lp.cancel(self.handle())).is_none() {
            self.task.to_abort.set(true);
            self.task.wake();
        }
    }

    /// Lets the task go on by itself, as dropping this does.
    pub fn detach(self) {}

    /// Whether the task has ended: then awaiting this does not wait.
    pub fn is_finished(&self) -> bool {
        matches!(self.task.status.get(), Status::Ended | Status::Empty)
    }

    /// The task's handle. [`Loop::cancel`] with it aborts the task, also by way of a
    /// [`Remote`](crate::Remote); [`Loop::unref`] makes a task of it that
    /// [`Loop::run`] does not wait for; [`Loop::walk`] shows it.
    pub fn handle(&self) -> Handle {
        self.task.handle()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// When it is polled again after it was ready.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.task.joiner.wait(context, || !self.is_finished()) {
            return Poll::Pending;
        }
        let output = self.take_output().expect("a join handle is not polled after it was ready");
        Poll::Ready(output.map_err(JoinError::seen))
    }
}

impl<T> Unpin for JoinHandle<T> {}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        self.task.leave();
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("handle", &self.task.handle())
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
