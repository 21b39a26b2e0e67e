//! A task in memory: one allocation with what is known of it (`header`) and, behind that, its
//! future, and what that came to. The loop's thread alone has these two: the slot's reference
//! (`Slotted`) polls the future and ends it, the join handle takes the output. A future that
//! panics, in a poll or in its Drop, has ended, and no panic is lost here (S41): it is the output,
//! or the loop's to handle.
//!
//! `unsafe` lives here because a task is referred to without the type of its future, which
//! `Slotted` and `JoinHandle` know again, and because a future stays where it is until it is
//! dropped.

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

enum Stage<F: Future> {
    Running(F),
    Ended(Ended<F::Output>),
    Empty,
}

type Ended<T> = std::result::Result<T, JoinError>;

/// A task as its slot has it, while the shared part of the loop is there: dropping it ends the
/// task.
pub(super) struct Slotted<'a, F: Future> {
    pub(super) task: SlotRef,
    future: PhantomData<(F, &'a Shared)>,
}

/// Waits for a task of a loop; made by [`spawn`](super::spawn) and [`Loop::spawn`].
///
/// Awaiting it gives what the task's future came to, or says that the task was aborted or has
/// panicked. Dropping it lets the task go on by itself; see [`abort`](JoinHandle::abort) to end it.
/// A panic of a task whose join handle is dropped, before it or after it, goes to the [exception
/// handler](Loop::set_exception_handler); without one std's panic hook has told of it, and the loop
/// goes on (S41). It belongs to the loop's thread.
#[must_use = "dropping it lets the task go on; an error of the task is then seen by nobody"]
pub struct JoinHandle<T> {
    task: TaskRef,
    /// The task's output is one.
    output: PhantomData<T>,
}

/// Starts a task.
pub(super) fn spawn<F: Future + 'static>(lp: &Loop, future: F) -> Result<JoinHandle<F::Output>> {
    // SAFETY: what the future borrows, if anything, lives for ever.
    unsafe { start(lp, future) }
}

/// Runs a loop, which does not run yet, with a task that is gone when this returns or unwinds, and
/// so may borrow. Tells what the run said, and whether the task had ended by then.
pub(super) fn run_scoped<F: Future>(
    lp: &Loop,
    future: F,
) -> Result<(JoinHandle<F::Output>, Result<Outcome>, bool)> {
    lp.check_idle()?;
    // SAFETY: cancel empties the slot below, at once as the loop is idle. In a forked child nothing
    // is dropped, and the future is not polled again.
    let join = unsafe { start(lp, future) }?;
    let ran = catch_unwind(AssertUnwindSafe(|| lp.run_forever()));
    let is_complete = join.is_finished();
    if is_complete && !matches!(ran, Ok(Ok(_))) {
        // A callback behind it in the batch has panicked: its stop is not for the next run.
        lp.take_back_stop();
    }
    // It is stale if the task has ended.
    let _ = lp.cancel(join.handle());
    Ok((join, ran.unwrap_or_else(|payload| resume_unwind(payload)), is_complete))
}

/// # Safety
/// What the future borrows lives until the slot has been emptied.
unsafe fn start<F: Future>(lp: &Loop, future: F) -> Result<JoinHandle<F::Output>> {
    lp.check_open()?;
    let (slotted, join) = make(future, lp.shared())?;
    // SAFETY: the slot is emptied before what the future borrows is gone, as the caller promises,
    // and before the loop gives up the shared part.
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
    // SAFETY: it is a body, from a box. `Slotted` ends the task, and borrows the shared part.
    let (slot, task) = unsafe { SlotRef::of_new(NonNull::from(Box::leak(body)).cast()) };
    Ok((Slotted { task: slot, future: PhantomData }, JoinHandle { task, output: PhantomData }))
}

impl<F: Future> Body<F> {
    #[inline]
    fn poll(&self, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the slot's reference alone touches the stage of a future, and the schedule does
        // not drop it while its callback is on the stack; and a future stays where its task is
        // until it is dropped.
        let future = unsafe {
            match &mut *self.stage.get() {
                Stage::Running(future) => Some(Pin::new_unchecked(future)),
                _ => None,
            }
        };
        future.map_or(Poll::Pending, |future| future.poll(context))
    }

    /// Drops what is in the stage, and puts this there, also when that panics.
    #[inline]
    fn set(&self, status: Status, stage: Stage<F>) {
        // SAFETY: the future, if it is there, is not being polled, as above, and is dropped where
        // it is; an output is nobody's before `Ended`. The status is that of the stage.
        unsafe {
            self.header.set_status(status);
            *self.stage.get() = stage;
        }
    }
}

impl<F: Future> Callable<Loop> for Slotted<'_, F> {
    const ONCE: bool = false;

    /// Polls it.
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
                // This is the child: nothing of the loop's runs here any more, nor is it dropped.
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
        // SAFETY: `make` has made this for the type of the body, to all of which the reference
        // points.
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

    /// Drops the future, and leaves the result to the join handle if there is one. Gives a panic
    /// that is the loop's to handle: of the task, where there is no join handle, or of a waker.
    #[inline]
    fn end(&self, mut result: Ended<F::Output>) -> Option<Payload> {
        let body = self.body();
        if needs_drop::<F>() {
            let in_drop = catch_unwind(AssertUnwindSafe(|| body.set(Status::Ending, Stage::Empty)));
            if !self.task.shared().process().is_current() {
                // The Drop has forked, and this is the child: no more of the user's code runs here.
                std::mem::forget((in_drop, result));
                return None;
            }
            if let Err(payload) = in_drop {
                let error = JoinError::panicked(payload, self.task.shared());
                // It may panic as well: then that is lost.
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
    /// What the task has come to, if it has ended and nobody has taken that.
    #[inline]
    pub(super) fn take_output(&self) -> Option<Ended<T>> {
        if self.task.status() != Status::Ended {
            return None;
        }
        let mut output: Option<Ended<T>> = None;
        // SAFETY: `make` has made this for the type of the future's output.
        unsafe { (self.task.table().take)(self.task.as_ptr(), (&raw mut output).cast()) };
        output
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
        let Some(shared) = self.task.shared_if_running() else { return };
        if Loop::if_running(shared, |lp| lp.cancel(self.handle())).is_none() {
            self.task.to_abort.set(true);
            self.task.wake();
        }
    }

    /// Lets the task go on by itself, as dropping this does.
    pub fn detach(self) {}

    /// Whether the task has ended: then awaiting this does not wait.
    pub fn is_finished(&self) -> bool {
        matches!(self.task.status(), Status::Ended | Status::Empty)
    }

    /// The task's handle. [`Loop::cancel`] with it aborts the task, also by way of a
    /// [`Remote`](crate::Remote); [`Loop::unref`] makes a task of it that
    /// [`Loop::run`] does not wait for; [`Loop::walk`] shows it.
    pub fn handle(&self) -> Handle {
        self.task.handle()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Ended<T>;

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
    /// A panic that nobody waits for any more goes to the exception handler (S41).
    fn drop(&mut self) {
        self.task.is_joined.set(false);
        let joiner = self.task.joiner.take();
        // The user's code comes last.
        match self.take_output() {
            Some(Err(error)) => error.unseen(),
            output => drop((joiner, output)),
        }
    }
}

debug!(JoinHandle<T>, handle, is_finished);

/// # Safety
/// As the table says; in the room is `None`.
unsafe fn take<F: Future>(task: NonNull<Header>, room: *mut ()) {
    // SAFETY: the caller refers to the task, which has ended, and the table is the body's: nobody
    // else has the stage, and the room is for what is in it.
    unsafe {
        let Body { header, stage } = task.cast::<Body<F>>().as_ref();
        header.set_status(Status::Empty);
        if let Stage::Ended(result) = ptr::replace(stage.get(), Stage::Empty) {
            *room.cast::<Option<Ended<F::Output>>>() = Some(result);
        }
    }
}

/// # Safety
/// As the table says.
unsafe fn free<F: Future>(task: NonNull<Header>) {
    // SAFETY: it came from a box, and nobody refers to it.
    drop(unsafe { Box::from_raw(task.cast::<Body<F>>().as_ptr()) });
}
