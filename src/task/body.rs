//! A task in memory: one allocation with the header (`header`), and behind it the future or the
//! output.
//!
//! Only the loop's thread uses future and output: the slot's reference (`Slotted`) polls and ends
//! the future, the join handle takes the output. A future that panics, in a poll or in its Drop,
//! has ended. The panic is the output, or the loop handles it; none is lost (S41).
//!
//! `unsafe` is here because references to a task do not have the type of its future, which only
//! `Slotted` and `JoinHandle` know, and because a future must not move until it is dropped.

use std::any::type_name;
use std::cell::UnsafeCell;
use std::future::Future;
use std::marker::PhantomData;
use std::mem::needs_drop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::task::{Context, Poll};

use super::error::JoinError;
use super::header::{Header, SlotRef, Status, Table, TaskRef};
use crate::abi::handle::Handle;
use crate::abi::source::Source;
use crate::error::Result;
use crate::event_loop::{Callback, Loop, Outcome, Payload, Shared, Unjoined, drop_quietly};
use crate::pending::callback::Callable;
use crate::pending::event::Event;
use crate::sys::memory::{TryArc, try_box};

#[repr(C)]
struct Body<F: Future> {
    header: Header,
    stage: UnsafeCell<Stage<F>>,
}

/// The content behind the header. (`pending` and `event_loop::work` each have another `Stage`.)
enum Stage<F: Future> {
    Running(F),
    Ended(Ended<F::Output>),
    Empty,
}

type Ended<T> = std::result::Result<T, JoinError>;

/// The slot's reference to a task, borrowed from the shared part of the loop. Dropping it ends the
/// task.
pub(super) struct Slotted<'a, F: Future> {
    pub(super) task: SlotRef,
    future: PhantomData<(F, &'a Shared)>,
}

/// The owner's handle to a task of a loop; made by [`spawn`](super::spawn) and [`Loop::spawn`].
///
/// Awaiting it returns the output of the task's future, or an error if the task was aborted or has
/// panicked. Dropping it does not end the task; [`abort`](JoinHandle::abort) does. The panic of a
/// task whose join handle is dropped, before or after the panic, goes to the [exception
/// handler](Loop::set_exception_handler); without a handler, std's panic hook has reported it, and
/// the loop continues (S41). A join handle belongs to the loop's thread.
#[must_use = "dropping it lets the task go on; an error of the task is then seen by nobody"]
pub struct JoinHandle<T> {
    task: TaskRef,
    /// The type of the task's output.
    output: PhantomData<T>,
}

/// Starts a task.
pub(super) fn spawn<F: Future + 'static>(lp: &Loop, future: F) -> Result<JoinHandle<F::Output>> {
    // SAFETY: `F: 'static` guarantees that the future borrows only static data.
    unsafe { start(lp, future) }
}

/// Runs an idle loop with a task that ends before this returns or unwinds, and so may borrow.
/// Returns the result of the run, and whether the task ended by itself.
pub(super) fn run_scoped<F: Future>(
    lp: &Loop,
    future: F,
) -> Result<(JoinHandle<F::Output>, Result<Outcome>, bool)> {
    lp.check_idle()?;
    // SAFETY: `cancel` below empties the slot at once, because `check_idle` proved that the loop is
    // idle; in a forked child nothing is dropped or polled again.
    let join = unsafe { start(lp, future) }?;
    let ran = catch_unwind(AssertUnwindSafe(|| lp.run_forever()));
    let is_complete = join.is_finished();
    if is_complete && !matches!(ran, Ok(Ok(_))) {
        // A later callback of the batch has panicked. The stop must not affect the next run.
        lp.take_back_stop();
    }
    // The handle is stale if the task has ended.
    let _ = lp.cancel(join.handle());
    Ok((join, ran.unwrap_or_else(|payload| resume_unwind(payload)), is_complete))
}

/// # Safety
/// The data that the future borrows lives until the slot has been emptied.
unsafe fn start<F: Future>(lp: &Loop, future: F) -> Result<JoinHandle<F::Output>> {
    lp.check_open()?;
    let (slotted, join) = make(future, lp.shared())?;
    // SAFETY: the caller guarantees that the slot is emptied before the borrowed data ends, and the
    // loop empties its slots before it drops the shared part.
    let handle = lp.add_task(unsafe { Callback::inline_borrowing(slotted) })?;
    join.task.set_slot(handle);
    Ok(join)
}

/// Makes a task of the loop that has this shared part.
pub(super) fn make<F: Future>(
    future: F,
    shared: &TryArc<Shared>,
) -> Result<(Slotted<'_, F>, JoinHandle<F::Output>)> {
    let header = Header::new(const { &Table::new(take::<F>, free::<F>) }, shared);
    let body = try_box(Body { header, stage: UnsafeCell::new(Stage::Running(future)) })?;
    // SAFETY: the pointer is a body from a box; `Slotted` ends the task, and borrows the shared
    // part.
    let (slot, task) = unsafe { SlotRef::of_new(NonNull::from(Box::leak(body)).cast()) };
    Ok((Slotted { task: slot, future: PhantomData }, JoinHandle { task, output: PhantomData }))
}

impl<F: Future> Body<F> {
    #[inline]
    fn poll(&self, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: only the slot's reference uses the stage of a future, the schedule keeps it while
        // its callback is on the stack, and the future does not move until it is dropped.
        let future = unsafe {
            match &mut *self.stage.get() {
                Stage::Running(future) => Some(Pin::new_unchecked(future)),
                _ => None,
            }
        };
        future.map_or(Poll::Pending, |future| future.poll(context))
    }

    /// Drops the contents of the stage and replaces them, also if the drop panics.
    #[inline]
    fn set(&self, status: Status, stage: Stage<F>) {
        // SAFETY: a future in the stage is not being polled (see `poll`) and is dropped in place,
        // no one uses an output before `Ended`, and `status` matches `stage`.
        unsafe {
            self.header.set_status(status);
            *self.stage.get() = stage;
        }
    }
}

impl<F: Future> Callable<Loop> for Slotted<'_, F> {
    const ONCE: bool = false;

    /// Polls the task.
    fn call(&mut self, lp: &Loop, _: &Event) {
        if self.task.to_abort.get() {
            lp.end_task(self.task.handle());
            return;
        }
        let (body, waker) = (self.body(), self.task.waker());
        let polled = catch_unwind(AssertUnwindSafe(|| body.poll(&mut Context::from_waker(&waker))));
        match polled {
            Ok(Poll::Pending) => {}
            _ if lp.check_not_forked().is_err() => {
                // This is a forked child, where nothing of the loop is run or dropped.
                std::mem::forget(polled);
            }
            Ok(Poll::Ready(output)) => self.complete(lp, Ok(output)),
            Err(payload) => self.complete(lp, Err(JoinError::panicked(payload, lp.shared()))),
        }
    }

    fn call_once(self, _: &Loop, _: &Event) {}

    fn source_of_type() -> Source {
        Source::Rust(type_name::<F>())
    }

    fn memory(&self) -> *const u8 {
        self.task.as_ptr().as_ptr().cast()
    }
}

impl<F: Future> Slotted<'_, F> {
    #[inline]
    fn body(&self) -> &Body<F> {
        // SAFETY: `make` guarantees that the reference points to a whole body of this type.
        unsafe { self.task.as_ptr().cast().as_ref() }
    }

    /// Ends the task, whose callback is on the stack.
    #[inline]
    fn complete(&self, lp: &Loop, result: Ended<F::Output>) {
        lp.complete_task(self.task.handle());
        if let Some(payload) = self.end(result) {
            resume_unwind(payload);
        }
    }

    /// Drops the future, and leaves the result to the join handle if there is one. Returns a panic
    /// that the loop must handle: that of a task without a join handle, or of a waker.
    #[inline]
    fn end(&self, mut result: Ended<F::Output>) -> Option<Payload> {
        let body = self.body();
        if needs_drop::<F>() {
            let in_drop = catch_unwind(AssertUnwindSafe(|| body.set(Status::Ending, Stage::Empty)));
            if !self.task.shared().process().is_current() {
                // The Drop has forked, and this is the child, where no more user code runs.
                std::mem::forget((in_drop, result));
                return None;
            }
            if let Err(payload) = in_drop {
                let error = JoinError::panicked(payload, self.task.shared());
                // Dropping the former result may panic as well; that panic is lost.
                drop_quietly(std::mem::replace(&mut result, Err(error)));
            }
        }
        if body.header.is_joined.get() {
            body.set(Status::Ended, Stage::Ended(result));
            let joiner = body.header.joiner.take()?;
            return catch_unwind(AssertUnwindSafe(|| joiner.wake())).err();
        }
        body.set(Status::Empty, Stage::Empty);
        let unjoined = match result {
            Err(error) => error.into_payload(),
            Ok(output) => catch_unwind(AssertUnwindSafe(|| drop(output))).err(),
        };
        unjoined.map(Unjoined::boxed)
    }
}

impl<F: Future> Drop for Slotted<'_, F> {
    fn drop(&mut self) {
        if self.task.status() == Status::Running
            && let Some(payload) = self.end(Err(JoinError::cancelled()))
            && !std::thread::panicking()
        {
            resume_unwind(payload);
        }
    }
}

impl<T> JoinHandle<T> {
    /// The output of the task, if it has ended and the output has not been taken.
    #[inline]
    pub(super) fn take_output(&self) -> Option<Ended<T>> {
        if self.task.status() != Status::Ended {
            return None;
        }
        let mut output: Option<Ended<T>> = None;
        // SAFETY: `make` guarantees that the table is for this output type, and the status is
        // `Ended`.
        unsafe { (self.task.table().take)(self.task.as_ptr(), (&raw mut output).cast()) };
        output
    }

    /// Ends the task. Its future is dropped in place, its locals in the reverse order of their
    /// declaration, and the operations that it awaits are cancelled. Awaiting this handle then
    /// returns an error. No effect if the task has ended.
    ///
    /// Inside a run of the loop, the future has been dropped when this returns. Exceptions: the
    /// caller's own future is dropped when its poll returns; within sixteen nested releases, as in
    /// groups nested that deep, it is dropped when the sixteenth returns (S14). Outside a run, the
    /// loop's next iteration drops the future; [`Loop::cancel`] with [`handle`](JoinHandle::handle)
    /// drops it at once.
    pub fn abort(&self) {
        let Some(shared) = self.task.shared_if_running() else { return };
        if Loop::if_running(shared, |lp| lp.cancel(self.handle())).is_none() {
            self.task.to_abort.set(true);
            self.task.wake();
        }
    }

    /// Lets the task run without its join handle, as dropping this does.
    pub fn detach(self) {}

    /// Whether the task has ended: then awaiting this does not wait.
    pub fn is_finished(&self) -> bool {
        matches!(self.task.status(), Status::Ended | Status::Empty)
    }

    /// The task's handle, for other functions: [`Loop::cancel`] aborts the task, also through a
    /// [`Remote`](crate::Remote); [`Loop::unref`] makes [`Loop::run`] not wait for it;
    /// [`Loop::walk`] shows it.
    pub fn handle(&self) -> Handle {
        self.task.handle()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Ended<T>;

    /// # Panics
    /// If it is polled again after it was ready.
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
    /// A panic that was not delivered goes to the exception handler (S41).
    fn drop(&mut self) {
        self.task.is_joined.set(false);
        let joiner = self.task.joiner.take();
        // User code is dropped last.
        match self.take_output() {
            Some(Err(error)) => error.unseen(),
            output => drop((joiner, output)),
        }
    }
}

debug!(JoinHandle<T>, handle, is_finished);

/// # Safety
/// As the table requires; `room` points to `None`.
unsafe fn take<F: Future>(task: NonNull<Header>, room: *mut ()) {
    // SAFETY: the caller refers to the task, which has ended, so that no one else uses the stage,
    // and the table guarantees the type of the body and of `room`.
    unsafe {
        let Body { header, stage } = task.cast::<Body<F>>().as_ref();
        header.set_status(Status::Empty);
        if let Stage::Ended(result) = ptr::replace(stage.get(), Stage::Empty) {
            *room.cast::<Option<Ended<F::Output>>>() = Some(result);
        }
    }
}

/// # Safety
/// As the table requires.
unsafe fn free<F: Future>(task: NonNull<Header>) {
    // SAFETY: `make` took the body from a box, and the caller guarantees that no reference is left.
    drop(unsafe { Box::from_raw(task.cast::<Body<F>>().as_ptr()) });
}
