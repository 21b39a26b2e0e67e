//! A task in memory: one allocation with what is known of it (`header`) and, behind that, its
//! future, and what that came to. `unsafe` lives here because a task is referred to without the
//! type of its future, which `Slotted` and `Output` know again, and because a future stays where it
//! is until it is dropped.
//!
//! The loop's thread alone has the future and the output. The slot's reference (`Slotted`) polls
//! the future and ends it; the join handle's (`Output`) takes the output. A future that panics, in
//! a poll or in its Drop, has ended, and no panic is lost here (S41): it is the output, or the
//! loop's to handle.

use std::any::type_name;
use std::cell::UnsafeCell;
use std::future::Future;
use std::marker::PhantomData;
use std::mem::needs_drop;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::task::{Context, Poll};

use super::error::JoinError;
use super::header::{Header, Status, Table, TaskRef};
use crate::abi::handle::Handle;
use crate::abi::source::Source;
use crate::error::Result;
use crate::event_loop::{Callback, Loop, Payload, Shared, Unjoined, drop_quietly};
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

/// A task as its slot has it: dropping it ends the task.
pub(super) struct Slotted<F: Future> {
    task: TaskRef,
    future: PhantomData<F>,
}

/// A task whose output is a `T`, as its join handle has it.
pub(super) struct Output<T> {
    task: TaskRef,
    output: PhantomData<T>,
}

/// Starts a task.
pub(super) fn spawn<F: Future + 'static>(lp: &Loop, future: F) -> Result<Output<F::Output>> {
    // SAFETY: what the future borrows, if anything, lives for ever.
    unsafe { start(lp, future) }
}

/// Starts a task that lives no longer than `run` runs, and may borrow what does. On a loop that
/// does not run.
pub(super) fn spawn_scoped<F: Future, R>(
    lp: &Loop,
    future: F,
    run: impl FnOnce(Output<F::Output>) -> R,
) -> Result<R> {
    lp.check_idle()?;
    // SAFETY: `_end` empties the slot before this returns or unwinds: the loop is idle, so that
    // cancel drops at once.
    let task = unsafe { start(lp, future) }?;
    let _end = End { lp, task: task.handle() };
    Ok(run(task))
}

/// Ends a task when it is dropped. In a forked child nothing is dropped, and the future is not
/// polled again.
struct End<'a> {
    lp: &'a Loop,
    task: Handle,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        // It is stale if the task has ended.
        let _ = self.lp.cancel(self.task);
    }
}

/// # Safety
/// What the future borrows lives until the slot has been emptied.
unsafe fn start<F: Future>(lp: &Loop, future: F) -> Result<Output<F::Output>> {
    lp.check_open()?;
    let (slotted, output) = make(future, lp.shared())?;
    // SAFETY: the slot is emptied before what the future borrows is gone, as the caller promises.
    match lp.add_task(unsafe { Callback::inline_borrowing(slotted) }) {
        Ok(handle) => {
            output.set_slot(handle);
            Ok(output)
        }
        Err(error) => {
            output.leave();
            Err(error)
        }
    }
}

/// Makes a task of the loop that has this shared part.
pub(super) fn make<F: Future>(
    future: F,
    shared: &TryArc<Shared>,
) -> Result<(Slotted<F>, Output<F::Output>)> {
    let header = Header::new(const { &Table::new(take::<F>, free::<F>) }, shared);
    let body = try_box(Body { header, stage: UnsafeCell::new(Stage::Running(future)) })?;
    // SAFETY: it is a body, from a box.
    let task = unsafe { TaskRef::new(NonNull::from(Box::leak(body)).cast()) };
    Ok((Slotted { task: task.clone(), future: PhantomData }, Output { task, output: PhantomData }))
}

impl<F: Future> Body<F> {
    /// Polls the future.
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
    fn set(&self, stage: Stage<F>) {
        // SAFETY: the future, if it is there, is not being polled, as above, and is dropped where
        // it is; an output is nobody's before `Ended`.
        unsafe { *self.stage.get() = stage };
    }

    /// Drops the future, and leaves the result to the join handle if there is one. Gives a panic
    /// that is the loop's to handle: of the task, where there is no join handle, or of a waker.
    #[inline]
    fn end(&self, mut result: Ended<F::Output>) -> Option<Payload> {
        let header = &self.header;
        header.status.set(Status::Ending);
        if needs_drop::<F>() {
            let in_drop = catch_unwind(AssertUnwindSafe(|| self.set(Stage::Empty)));
            if !header.shared().process().is_current() {
                // The Drop has forked, and this is the child: no more of the user's code runs here.
                std::mem::forget((in_drop, result));
                return None;
            }
            if let Err(payload) = in_drop {
                let error = JoinError::panicked(payload, header.shared());
                // It may panic as well: then that is lost.
                drop_quietly(std::mem::replace(&mut result, Err(error)));
            }
        }
        if header.is_joined.get() {
            self.set(Stage::Ended(result));
            header.status.set(Status::Ended);
            let joiner = header.joiner.take()?;
            return catch_unwind(AssertUnwindSafe(|| joiner.wake())).err();
        }
        self.set(Stage::Empty);
        header.status.set(Status::Empty);
        let unjoined = match result {
            Err(error) => error.into_payload(),
            Ok(output) => catch_unwind(AssertUnwindSafe(|| drop(output))).err(),
        };
        unjoined.map(Unjoined::boxed)
    }
}

impl<F: Future> Callable<Loop> for Slotted<F> {
    const ONCE: bool = false;

    /// Polls it.
    fn call(&mut self, lp: &Loop, _: &Event) {
        let body = self.body();
        if body.header.to_abort.get() {
            lp.end_task(body.header.handle());
            return;
        }
        let waker = self.task.waker();
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
}

impl<F: Future> Slotted<F> {
    #[inline]
    fn body(&self) -> &Body<F> {
        // SAFETY: `make` has made this for the type of the body, to all of which the reference
        // points.
        unsafe { self.task.as_ptr().cast().as_ref() }
    }

    /// Ends the task, whose callback is on the stack, and empties its slot.
    #[inline]
    fn complete(&self, lp: &Loop, result: Ended<F::Output>) {
        let body = self.body();
        let is_emptied = lp.complete_task(body.header.handle());
        let panic = body.end(result);
        if is_emptied {
            // SAFETY: the slot has not dropped this but given up what it had, and nobody else has.
            drop(unsafe { ptr::read(&raw const self.task) });
        }
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

impl<F: Future> Drop for Slotted<F> {
    fn drop(&mut self) {
        let body = self.body();
        let is_running = body.header.status.get() == Status::Running;
        let panic = if is_running { body.end(Err(JoinError::cancelled())) } else { None };
        if let Some(payload) = panic.filter(|_| !std::thread::panicking()) {
            resume_unwind(payload);
        }
    }
}

impl<T> Output<T> {
    /// What the task has come to, if it has ended and nobody has taken that.
    #[inline]
    pub(super) fn take(&self) -> Option<Ended<T>> {
        if self.status.get() != Status::Ended {
            return None;
        }
        let mut output: Option<Ended<T>> = None;
        // SAFETY: `make` has made this for the type of the future's output.
        unsafe { (self.table().take)(self.as_ptr(), (&raw mut output).cast()) };
        output
    }

    /// Nobody waits for the task any more: a panic goes to the exception handler (S41).
    pub(super) fn leave(&self) {
        self.is_joined.set(false);
        let joiner = self.joiner.take();
        // The user's code comes last.
        match self.take() {
            Some(Err(error)) => error.unseen(),
            output => drop((joiner, output)),
        }
    }
}

impl<T> Deref for Output<T> {
    type Target = TaskRef;

    #[inline]
    fn deref(&self) -> &TaskRef {
        &self.task
    }
}

/// # Safety
/// As the table says; in the room is `None`.
unsafe fn take<F: Future>(task: NonNull<Header>, room: *mut ()) {
    // SAFETY: the caller refers to the task, and the table is the body's.
    let Body { header, stage } = unsafe { task.cast::<Body<F>>().as_ref() };
    header.status.set(Status::Empty);
    // SAFETY: the task has ended: nobody else has the stage.
    if let Stage::Ended(result) = unsafe { ptr::replace(stage.get(), Stage::Empty) } {
        // SAFETY: the room is for it.
        unsafe { *room.cast::<Option<Ended<F::Output>>>() = Some(result) };
    }
}

/// # Safety
/// As the table says.
unsafe fn free<F: Future>(task: NonNull<Header>) {
    // SAFETY: it came from a box, and nobody refers to it.
    drop(unsafe { Box::from_raw(task.cast::<Body<F>>().as_ptr()) });
}
