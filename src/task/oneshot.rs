//! A channel for one value, from a callback to an awaiter, on one thread. No value is lost: without
//! an awaiter, the sender gets it back.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::header::Waiter;
use crate::error::{Error, Result};
use crate::sys::memory::TryRc;

/// Sends the value that a [`Receiver`] awaits; made by [`oneshot`].
pub struct Sender<T>(TryRc<Channel<T>>);

/// Awaits a value; made by [`oneshot`]. ECANCELED if the [`Sender`] was dropped without a value.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Receiver<T>(TryRc<Channel<T>>);

struct Channel<T> {
    value: Cell<Option<T>>,
    receiver: Waiter,
    has_sender: Cell<bool>,
    has_receiver: Cell<bool>,
}

/// A channel for one value, which turns a callback into a future:
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
/// For one thread. Values of other threads can come through any channel, because the wakers of
/// tasks are for any thread. One allocation. Errors: ENOMEM.
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
    /// Sends the value, and wakes its awaiter. Returns the value if the receiver is gone.
    pub fn send(self, value: T) -> std::result::Result<(), T> {
        if !self.0.has_receiver.get() {
            return Err(value);
        }
        self.0.value.set(Some(value));
        Ok(())
    }

    /// Replaces a value that has not been taken; may be called again.
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
    /// The value, if it has arrived and has not been taken.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.value.take()
    }

    /// Whether a value may still arrive.
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
        // User code is dropped last.
        let (receiver, value) = (self.0.receiver.take(), self.0.value.take());
        drop((receiver, value));
    }
}

debug!(Sender<T>);
debug!(Receiver<T>);
