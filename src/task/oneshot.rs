//! A value that comes once: from a callback to whoever awaits it, on one thread. None is lost: what
//! nobody awaits comes back.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::header::Waiter;
use crate::error::{Error, Result};
use crate::sys::memory::TryRc;

/// Gives the value that a [`Receiver`] awaits; made by [`oneshot`].
pub struct Sender<T>(TryRc<Channel<T>>);

/// Awaits a value; made by [`oneshot`]. ECANCELED if the [`Sender`] was dropped without giving one.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Receiver<T>(TryRc<Channel<T>>);

struct Channel<T> {
    value: Cell<Option<T>>,
    receiver: Waiter,
    has_sender: Cell<bool>,
    has_receiver: Cell<bool>,
}

/// A cell for one value, which makes a future of a callback:
///
/// ```
/// use std::time::Duration;
/// use ringloop::{Loop, task};
///
/// let lp = Loop::new()?;
/// let answer = lp.run_until_complete(async {
///     let (sender, receiver) = task::oneshot()?;
///     Loop::current()?.call_later(Duration::from_millis(5), move |_| drop(sender.send(42)))?;
///     receiver.await
/// })??;
/// assert_eq!(answer, 42);
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// For one thread: from another one, a value comes through any channel, since the wakers of tasks
/// are for any thread. One allocation. Errors: ENOMEM.
pub fn oneshot<T>() -> Result<(Sender<T>, Receiver<T>)> {
    let shared = TryRc::new(Channel {
        value: Cell::new(None),
        receiver: Waiter::default(),
        has_sender: Cell::new(true),
        has_receiver: Cell::new(true),
    })?;
    Ok((Sender(shared.clone()), Receiver(shared)))
}

impl<T> Sender<T> {
    /// Gives the value, and wakes whoever awaits it. When nobody does any more, it comes back.
    pub fn send(self, value: T) -> std::result::Result<(), T> {
        if !self.0.has_receiver.get() {
            return Err(value);
        }
        self.0.value.set(Some(value));
        Ok(())
    }

    /// Gives a value in the place of one that nobody has taken, and may give more.
    pub(crate) fn offer(&self, value: T) {
        drop(self.0.value.replace(Some(value)));
        self.0.receiver.wake();
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.has_sender.set(false);
        self.0.receiver.wake();
    }
}

impl<T> Receiver<T> {
    /// The value, if it has come and nobody has taken it.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.value.take()
    }

    /// Whether a value may still come.
    pub(crate) fn is_pending(&self) -> bool {
        self.0.has_sender.get()
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let has_value = || {
            let value = self.take();
            let has_value = value.is_some();
            self.0.value.set(value);
            has_value
        };
        if self.0.receiver.wait(context, || self.is_pending() && !has_value()) {
            return Poll::Pending;
        }
        Poll::Ready(self.take().ok_or(Error::SENDER_DROPPED))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.has_receiver.set(false);
        // The user's code comes last.
        let (receiver, value) = (self.0.receiver.take(), self.0.value.take());
        drop((receiver, value));
    }
}

debug!(Sender<T>);
debug!(Receiver<T>);
