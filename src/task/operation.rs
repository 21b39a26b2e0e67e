//! Futures of callbacks: for any function of the loop with a callback, which sends its result to
//! the future.
//!
//! Dropping the future cancels the operation (S44), and a result without an awaiter is dropped.
//! `io` uses this for watchers, children, host names, and files that are opened and closed.
//! Operations with a buffer are futures of their own there (`io::in_flight`, and `io::turn` where
//! nothing may be lost).

use std::future::Future;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::current::cancel;
use super::error::JoinError;
use super::oneshot::{Receiver, Sender, oneshot};
use crate::abi::handle::Handle;
use crate::error::{Error, Result};
use crate::event_loop::watch::Events;
use crate::event_loop::work::Packet;
use crate::event_loop::{Callback, Loop, Shared, Unjoined};
use crate::sys::memory::TryArc;

/// The future of a callback; made by [`operation`]. Dropping it cancels the operation.
/// (`abi::opcodes::Operation` has the properties of an opcode.)
#[must_use = "a future does nothing unless it is awaited"]
pub struct Operation<T> {
    receiver: Receiver<T>,
    shared: TryArc<Shared>,
    handle: Handle,
}

/// Begins an operation with a callback, and awaits the callback: `begin` gets a [`Sender`] to move
/// into the callback.
///
/// Dropping the future cancels the operation. Its callback still runs, because the kernel has the
/// buffer until then (S13): [`Sender::send`] returns the value then.
///
/// ```
/// use ringloop::{Loop, task};
///
/// let lp = Loop::new()?;
/// let start = lp.run_until_complete(async {
///     let file = std::fs::File::open("/proc/self/status").unwrap();
///     let (read, buffer) = task::operation(|lp, done| {
///         let tell = |_: &Loop, read, buffer| drop(done.send((read, buffer)));
///         lp.read(file, Vec::with_capacity(5), None, tell)
///     })?
///     .await?;
///     assert_eq!(read?, 5);
///     ringloop::Result::Ok(buffer)
/// })??;
/// assert_eq!(start, b"Name:");
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// Errors: EINVAL when no loop is running on this thread; ENOMEM; those of `begin`. Awaiting
/// returns ECANCELED when the sender was dropped without a value, for example when the loop is
/// closed.
pub fn operation<T>(
    begin: impl FnOnce(&Loop, Sender<T>) -> Result<Handle>,
) -> Result<Operation<T>> {
    Loop::with_running(|lp| {
        let lp = lp.ok_or(Error::NO_LOOP)?;
        let (sender, receiver) = oneshot()?;
        let handle = begin(lp, sender)?;
        Ok(Operation { receiver, shared: lp.shared().clone(), handle })
    })
}

impl<T> Operation<T> {
    /// The operation's handle: to set a [deadline](Loop::set_deadline), to cancel it, or to make
    /// [`Loop::run`] not wait for it.
    pub fn handle(&self) -> Handle {
        self.handle
    }
}

impl<T> Future for Operation<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        Pin::new(&mut self.receiver).poll(context)
    }
}

impl<T> Drop for Operation<T> {
    fn drop(&mut self) {
        if self.receiver.is_pending() {
            cancel(&self.shared, self.handle);
        }
    }
}

debug!(Operation<T>, handle);

/// Waits until a descriptor is ready for one of `events`, and returns the ready ones; see
/// [`Loop::watch_fd`]. For libraries that read and write by themselves. Keeps the descriptor, which
/// may be an `Rc` or a duplicate, until then.
///
/// Level-triggered: returns at once if the descriptor is ready. Errors: EINVAL when no loop is
/// running on this thread; those of `watch_fd`.
///
/// ```
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
/// use ringloop::{Events, Loop, task};
///
/// let lp = Loop::new()?;
/// let (mut ours, mut theirs) = UnixStream::pair()?;
/// lp.call_soon(move |_| theirs.write_all(b"x").unwrap())?;
/// let ready = lp.run_until_complete(task::ready(ours.try_clone()?, Events::IN))??;
/// assert!(ready.contains(Events::IN) && ours.read(&mut [0; 9])? == 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn ready(fd: impl AsFd + 'static, events: Events) -> Result<Events> {
    operation(|lp, sender| {
        lp.watch_fd(fd, events, move |lp, ready| {
            sender.offer(ready);
            // The watcher of an unusable descriptor has ended already.
            let _ = lp.current_handle().map(|watcher| lp.cancel(watcher));
        })
    })?
    .await
}

/// Work on another thread, as a future; made by [`spawn_blocking`]. Dropping it cancels work that
/// has not begun.
#[must_use = "dropping it cancels the work if that has not begun"]
pub struct Blocking<T>(Operation<std::result::Result<T, JoinError>>);

/// Runs `work` on a thread of the loop's executor and awaits its return value; see
/// [`Loop::run_in_executor`]. For work that blocks or takes long.
///
/// The future returns a panic of `work`. If the future is dropped, before or after the panic, the
/// panic goes to the exception handler, as that of a task whose join handle is dropped (S41).
/// Errors: EINVAL when no loop is running on this thread; EAGAIN, ENOMEM, ESHUTDOWN.
///
/// ```
/// use ringloop::{Loop, task};
///
/// let lp = Loop::new()?;
/// let sum = lp.run_until_complete(async {
///     let work = task::spawn_blocking(|| (1..=1_000_000).sum::<u64>())?;
///     ringloop::Result::Ok(work.await.expect("it does not panic"))
/// })??;
/// assert_eq!(sum, 500_000_500_000);
/// # Ok::<(), ringloop::Error>(())
/// ```
pub fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Blocking<T>> {
    let begin = |lp: &Loop, sender: Sender<std::result::Result<T, JoinError>>| {
        lp.check_open()?;
        let (job, packet) = Packet::new(work)?;
        let callback = Callback::once(move |lp: &Loop| {
            let result = match packet.open() {
                Some(Ok(result)) => Ok(result),
                Some(Err(payload)) => Err(JoinError::panicked(payload, lp.shared())),
                None => Err(JoinError::cancelled()),
            };
            let panic = match sender.send(result) {
                Ok(()) => None,
                Err(Ok(unseen)) => catch_unwind(AssertUnwindSafe(|| drop(unseen))).err(),
                Err(Err(unseen)) => unseen.into_payload(),
            };
            if let Some(payload) = panic {
                Unjoined::raise(payload);
            }
        })?;
        lp.execute(job, callback)
    };
    operation(begin).map(Blocking)
}

impl<T> Blocking<T> {
    /// The handle of the work: to cancel it before it has begun, or to make [`Loop::run`] not wait
    /// for it.
    pub fn handle(&self) -> Handle {
        self.0.handle
    }
}

impl<T> Future for Blocking<T> {
    type Output = std::result::Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let done = Pin::new(&mut self.0).poll(context);
        done.map(|done| {
            done.unwrap_or_else(|_| Err(JoinError::cancelled())).map_err(JoinError::seen)
        })
    }
}

impl<T> Drop for Blocking<T> {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.receiver.take() {
            error.unseen();
        }
    }
}

debug!(Blocking<T>, handle);
