//! An operation in flight and its awaiter: one allocation, which contains the operation.
//!
//! This is for the operations of `op`, which own the memory for the kernel; `task::operation` is
//! for all other callbacks. The allocation has two owners: the loop's, in the callback, which
//! completes the operation also when it is dropped; and the future, or its remains. No one uses the
//! operation before it is completed. The output contains no descriptor, so that a descriptor can
//! own it.
//!
//! `unsafe` is here because the entry points into the allocation, which the callback keeps alive.

use std::cell::{Cell, RefCell, RefMut};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::abi::handle::Handle;
use crate::abi::sqe::Entry;
use crate::error::{Error, Result};
use crate::event_loop::Shared;
use crate::event_loop::{Callback, Loop};
use crate::op::operation::{Descriptor, Op, OpData, Outcome};
use crate::pending::event::Event;
use crate::sys::memory::{TryArc, TryRc};
use crate::task::{Notify, Waiter, cancel};

/// A submitted operation, with the state of its future.
pub(crate) struct OpCell<S: ?Sized> {
    /// The result of the operation; None until it has ended.
    ended: Cell<Option<Result<()>>>,
    waiter: Waiter,
    /// None until it has been submitted.
    handle: Cell<Option<Handle>>,
    shared: TryArc<Shared>,
    stage: RefCell<S>,
}

/// An operation until it is completed, then its output. (`pending` has another `Stage`.)
pub(crate) struct Stage<D, M: OpData> {
    op: Option<Op<D, M>>,
    pub(super) output: Option<M::Output>,
}

/// The loop's owner of an operation, which guarantees that it is completed.
struct CompletionGuard<D: Descriptor, M: OpData>(Option<TryRc<OpCell<Stage<D, M>>>>);

impl<D: Descriptor, M: OpData> CompletionGuard<D, M> {
    fn complete(&mut self, outcome: Outcome) {
        let Some(cell) = self.0.take() else { return };
        // Dropping the operation may run user code, so no borrow is held.
        let op = cell.stage.borrow_mut().op.take().expect("an operation is completed once");
        let ended = outcome.done();
        let output = op.complete(outcome);
        cell.stage.borrow_mut().output = Some(output);
        cell.ended.set(Some(ended));
        let waiter = cell.waiter.take();
        // Dropped before the wake, so that the woken task is the only owner.
        drop(cell);
        waiter.into_iter().for_each(Notify::wake);
    }
}

impl<D: Descriptor, M: OpData> Drop for CompletionGuard<D, M> {
    fn drop(&mut self) {
        // An operation that was not submitted stays as it was.
        if self.0.as_ref().is_some_and(|cell| cell.handle.get().is_some()) {
            self.complete(Outcome::error(Error::SENDER_DROPPED));
        }
    }
}

/// Begins an operation on the loop that is running on this thread. Returns the output with the
/// error if it cannot be submitted.
pub(crate) fn begin<D: Descriptor, M: OpData>(
    op: Op<D, M>,
) -> std::result::Result<InFlight<D, M>, M::Output> {
    Loop::with_running(|lp| {
        let lp = match lp.ok_or(Error::NO_LOOP).and_then(|lp| lp.check_open().map(|()| lp)) {
            Ok(lp) => lp,
            Err(error) => return Err(op.complete(Outcome::error(error))),
        };
        let cell = OpCell {
            ended: Cell::new(None),
            waiter: Waiter::default(),
            handle: Cell::new(None),
            shared: lp.shared().clone(),
            stage: RefCell::new(Stage { op: Some(op), output: None }),
        };
        let refuse = |cell: OpCell<Stage<D, M>>, error| {
            let op = cell.stage.into_inner().op.expect("it has not been submitted");
            op.complete(Outcome::error(error))
        };
        let cell = TryRc::new_or_back(cell).map_err(|cell| refuse(cell, Error::NO_MEMORY))?;
        match submit(lp, &cell) {
            Ok(handle) => {
                cell.handle.set(Some(handle));
                Ok(InFlight(Some(cell)))
            }
            Err(error) => Err(refuse(cell.into_inner().expect("the loop has not taken it"), error)),
        }
    })
}

fn submit<D: Descriptor, M: OpData>(
    lp: &Loop,
    cell: &TryRc<OpCell<Stage<D, M>>>,
) -> Result<Handle> {
    let sqe = cell.stage.borrow_mut().op.as_mut().expect("it is to be submitted").entry()?;
    // SAFETY: the callback keeps the operation in place, and the loop guarantees to drop the
    // callback only after the kernel has released the operation.
    let mut entry = unsafe { Entry::new(sqe) };
    let driver = M::driver(lp, &mut entry)?;
    let mut guard = CompletionGuard(Some(cell.clone()));
    let callback = Callback::once_for::<M, _>(move |_: &Loop, event: &Event| {
        // SAFETY: the loop guarantees to call this once, with the final result of this operation.
        guard.complete(unsafe { Outcome::of(event) });
    })?;
    lp.submit_operation(&entry, driver, callback)
}

/// Begins an operation and awaits its output.
pub(crate) async fn run<D: Descriptor, M: OpData>(op: Op<D, M>) -> M::Output {
    match begin(op) {
        Ok(in_flight) => in_flight.await,
        Err(output) => output,
    }
}

impl<S: ?Sized> OpCell<S> {
    /// Waits for the end.
    pub(super) fn poll_end(&self, context: &Context<'_>) -> Poll<Result<()>> {
        self.waiter.wait(context, || self.ended.get().is_none());
        self.ended.get().map_or(Poll::Pending, Poll::Ready)
    }

    /// The stage with the output, for an operation that has ended.
    pub(super) fn stage(&self) -> RefMut<'_, S> {
        self.stage.borrow_mut()
    }

    fn cancel(&self) {
        if let (None, Some(handle)) = (self.ended.get(), self.handle.get()) {
            drop(self.waiter.take());
            cancel(&self.shared, handle);
        }
    }
}

/// The future of an operation. Dropping it cancels the operation.
pub(crate) struct InFlight<D: Descriptor, M: OpData>(Option<TryRc<OpCell<Stage<D, M>>>>);

impl<D: Descriptor, M: OpData> InFlight<D, M> {
    /// Leaves the operation, which ends by itself, to the next one. None if the output has been
    /// taken.
    pub(super) fn leave(&mut self) -> Option<TryRc<OpCell<Stage<D, M>>>> {
        self.0.take().inspect(|cell| drop(cell.waiter.take()))
    }

    /// Cancels the operation, and leaves it to the next one. None if the output has been taken.
    pub(super) fn abandon(&mut self) -> Option<TryRc<OpCell<Stage<D, M>>>> {
        self.0.take().inspect(|cell| cell.cancel())
    }
}

impl<D: Descriptor, M: OpData> Future for InFlight<D, M> {
    type Output = M::Output;

    /// # Panics
    /// If it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<M::Output> {
        let cell = self.0.as_ref().expect("a future is not polled after it was ready");
        ready!(cell.poll_end(context).map(drop));
        let output = cell.stage.borrow_mut().output.take();
        self.0 = None;
        Poll::Ready(output.expect("it has ended"))
    }
}

impl<D: Descriptor, M: OpData> Drop for InFlight<D, M> {
    fn drop(&mut self) {
        drop(self.abandon());
    }
}
