//! A task in memory: one allocation with what is known of it and, behind that, its future, and what that came to.
//!
//! The loop's thread has the future and the output. It counts its own references, which together are one of those that `State` counts:
//! the slot's, the join handle's, and those of the loop's timers and cells that will wake the task. Other threads have wakers, which touch
//! the state, the head and the shared part of the loop, and nothing else. By the time the loop's thread has none left,
//! future and output have been dropped there; then it is memory alone that goes, on whichever thread.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::task::{Context, Poll};

use super::join::JoinError;
use super::state::State;
use super::waker::{self, Notify};
use crate::callback::Callback;
use crate::counted::Counted;
use crate::error::Result;
use crate::event_loop::Loop;
use crate::handle::Handle;
use crate::inbox::Link;
use crate::memory::try_box;
use crate::remote::{Head, Shared};

/// What is known of any task.
#[repr(C)]
pub(super) struct Header {
    /// The inbox writes to it.
    pub(super) head: UnsafeCell<Head>,
    pub(super) state: State,
    pub(super) shared: Counted<Shared>,
    table: &'static Table,
    // What follows is the loop's thread's.
    /// The slot's.
    pub(super) handle: Cell<Option<Handle>>,
    /// The references of the loop's thread.
    pub(super) owners: Cell<u32>,
    pub(super) status: Cell<Status>,
    /// It was aborted where the loop could not be reached: it ends at its next turn.
    pub(super) to_abort: Cell<bool>,
    /// Whether there is a join handle.
    pub(super) is_joined: Cell<bool>,
    /// Who waits for the end.
    pub(super) joiner: Cell<Option<Notify>>,
}

/// How far a task has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    /// Its future is there.
    Running,
    /// Its future is being dropped.
    Ending,
    /// Its output is there.
    Ended,
    /// Nothing is there.
    Empty,
}

#[repr(C)]
struct Body<F: Future> {
    header: Header,
    stage: UnsafeCell<Stage<F>>,
}

enum Stage<F: Future> {
    Running(F),
    Ended(std::result::Result<F::Output, JoinError>),
    Empty,
}

type Payload = Box<dyn Any + Send>;

/// The functions for one type of future. Each takes a task whose body was made with this table.
struct Table {
    /// Polls the future. The loop's thread, while the task has not ended.
    poll: unsafe fn(NonNull<Header>, &Loop),
    /// Ends a task whose future is still there, and gives a panic that is nobody else's. The loop's thread.
    cancel: unsafe fn(NonNull<Header>) -> Option<Payload>,
    /// Moves the output of a task, whose status is `Ended`, to where there is room for an `Option` of the join handle's result. The
    /// loop's thread.
    take: unsafe fn(NonNull<Header>, *mut ()),
    /// Frees a task that nobody refers to any more.
    free: unsafe fn(NonNull<Header>),
}

/// A task as its slot has it: dropping it ends the task.
pub(super) struct Slotted(NonNull<Header>);

/// Makes a task, with two references of the loop's thread: the slot's and the join handle's.
///
/// # Safety
/// The future is dropped, or has ended, before its lifetime is over: then its slot has been emptied.
pub(super) unsafe fn make<F: Future>(future: F, shared: &Counted<Shared>) -> Result<(Slotted, NonNull<Header>)> {
    let table = const { &Table { poll: poll::<F>, cancel: cancel::<F>, take: take::<F>, free: free::<F> } };
    let header = Header {
        head: UnsafeCell::new(Head::of_task(woken)),
        state: State::new(),
        shared: shared.clone(),
        table,
        handle: Cell::new(None),
        owners: Cell::new(2),
        status: Cell::new(Status::Running),
        to_abort: Cell::new(false),
        is_joined: Cell::new(true),
        joiner: Cell::new(None),
    };
    let body = try_box(Body { header, stage: UnsafeCell::new(Stage::Running(future)) })?;
    let task = NonNull::from(Box::leak(body)).cast();
    Ok((Slotted(task), task))
}

impl Slotted {
    /// The callback of the slot.
    pub(super) fn into_callback<F>(self) -> Callback {
        Callback::for_task::<F, _>(move |lp: &Loop| self.poll(lp))
    }

    fn poll(&self, lp: &Loop) {
        // SAFETY: the slot refers to it.
        let header = unsafe { self.0.as_ref() };
        if header.to_abort.get() {
            end_slot(header, lp);
        } else if header.status.get() == Status::Running {
            // SAFETY: the table is the body's, and this is the loop's thread.
            unsafe { (header.table.poll)(self.0, lp) }
        }
    }
}

impl Drop for Slotted {
    fn drop(&mut self) {
        // SAFETY: the slot refers to it until here.
        let header = unsafe { self.0.as_ref() };
        let panic = match header.status.get() {
            // SAFETY: the table is the body's, and this is the loop's thread.
            Status::Running => unsafe { (header.table.cancel)(self.0) },
            _ => None,
        };
        // SAFETY: the slot's reference is given up.
        unsafe { disown(self.0) };
        if let Some(payload) = panic.filter(|_| !std::thread::panicking()) {
            resume_unwind(payload);
        }
    }
}

/// Empties the slot of the task that is being polled, when the poll has returned.
fn end_slot(header: &Header, lp: &Loop) {
    if let Some(handle) = header.handle.get() {
        // It may have been cancelled in the meantime.
        let _ = lp.schedule.borrow_mut().cancel(handle);
    }
}

/// # Safety
/// As the table says.
unsafe fn poll<F: Future>(task: NonNull<Header>, lp: &Loop) {
    // SAFETY: the slot refers to it.
    let (header, stage) = unsafe { (task.as_ref(), task.cast::<Body<F>>().as_ref().stage.get()) };
    // SAFETY: nothing else touches the stage of a task that has not ended, and it is ended after this or by its slot's end, which comes
    // after its callback has returned.
    let Stage::Running(future) = (unsafe { &mut *stage }) else { return };
    // SAFETY: a future stays where its task is until it is dropped.
    let future = unsafe { Pin::new_unchecked(future) };
    // SAFETY: the slot refers to it.
    let waker = unsafe { waker::borrowed(task) };
    let polled = catch_unwind(AssertUnwindSafe(|| future.poll(&mut Context::from_waker(&waker))));
    let result = match polled {
        Ok(Poll::Pending) => return,
        _ if lp.check_not_forked().is_err() => {
            // This is the child: nothing of the loop's runs here any more, nor is it dropped.
            std::mem::forget(polled);
            return;
        }
        Ok(Poll::Ready(output)) => Ok(output),
        Err(payload) => Err(JoinError::panicked(payload)),
    };
    end_slot(header, lp);
    // SAFETY: the table is the body's, and the future is not used again.
    if let Some(payload) = unsafe { end::<F>(task, result) } {
        resume_unwind(payload);
    }
}

/// # Safety
/// As the table says.
unsafe fn cancel<F: Future>(task: NonNull<Header>) -> Option<Payload> {
    // SAFETY: as the caller says.
    unsafe { end::<F>(task, Err(JoinError::cancelled())) }
}

/// Drops the future, and leaves the result to the join handle if there is one. Gives a panic that is nobody else's.
///
/// # Safety
/// The future is there, and is not being polled. The loop's thread.
unsafe fn end<F: Future>(
    task: NonNull<Header>,
    mut result: std::result::Result<F::Output, JoinError>,
) -> Option<Payload> {
    // SAFETY: the caller refers to it.
    let (header, stage) = unsafe { (task.as_ref(), task.cast::<Body<F>>().as_ref().stage.get()) };
    header.status.set(Status::Ending);
    // SAFETY: the future is dropped where it is, once; what is there from then on is written.
    let in_drop = catch_unwind(AssertUnwindSafe(|| unsafe { ptr::drop_in_place(stage) }));
    // SAFETY: as above.
    unsafe { ptr::write(stage, Stage::Empty) };
    if !header.shared.process().is_current() {
        // The Drop has forked, and this is the child: no more of the user's code runs here.
        std::mem::forget((in_drop, result));
        return None;
    }
    if let Err(payload) = in_drop {
        let former = std::mem::replace(&mut result, Err(JoinError::panicked(payload)));
        // It may panic as well: then that is lost.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(former))).map_err(std::mem::forget);
    }
    if header.is_joined.get() {
        // SAFETY: there is nothing in it that would have to be dropped.
        unsafe { ptr::write(stage, Stage::Ended(result)) };
        header.status.set(Status::Ended);
        let joiner = header.joiner.take();
        return catch_unwind(AssertUnwindSafe(|| joiner.into_iter().for_each(Notify::wake))).err();
    }
    header.status.set(Status::Empty);
    match result {
        Err(error) => error.into_payload(),
        Ok(output) => catch_unwind(AssertUnwindSafe(|| drop(output))).err(),
    }
}

/// # Safety
/// As the table says; the room is for an `Option<Result<F::Output, JoinError>>`, and holds `None`.
unsafe fn take<F: Future>(task: NonNull<Header>, room: *mut ()) {
    // SAFETY: the caller refers to it, and the task has ended: nobody else has the stage.
    let (header, stage) = unsafe { (task.as_ref(), &mut *task.cast::<Body<F>>().as_ref().stage.get()) };
    header.status.set(Status::Empty);
    if let Stage::Ended(result) = std::mem::replace(stage, Stage::Empty) {
        // SAFETY: as the caller says.
        unsafe { *room.cast::<Option<std::result::Result<F::Output, JoinError>>>() = Some(result) };
    }
}

/// # Safety
/// As the table says.
unsafe fn free<F: Future>(task: NonNull<Header>) {
    // SAFETY: it came from a box, and nobody refers to it.
    drop(unsafe { Box::from_raw(task.cast::<Body<F>>().as_ptr()) });
}

/// Takes the output of a task if it is there.
///
/// # Safety
/// The caller refers to the task, whose future has an output of type `T`. The loop's thread.
pub(super) unsafe fn take_output<T>(task: NonNull<Header>) -> Option<std::result::Result<T, JoinError>> {
    let mut output = None;
    // SAFETY: the caller refers to the task; the table is the body's, and the room is of the right type.
    unsafe {
        if task.as_ref().status.get() == Status::Ended {
            (task.as_ref().table.take)(task, (&raw mut output).cast());
        }
    }
    output
}

/// One more reference of the loop's thread, which has one.
pub(super) fn own(header: &Header) {
    header.owners.set(header.owners.get().checked_add(1).expect("fewer references than memory has room for"));
}

/// Gives up a reference of the loop's thread.
///
/// # Safety
/// It is not used again.
pub(super) unsafe fn disown(task: NonNull<Header>) {
    // SAFETY: the reference is given up below.
    let header = unsafe { task.as_ref() };
    let left = header.owners.get() - 1;
    header.owners.set(left);
    if left == 0 {
        // SAFETY: the loop's thread has none left.
        unsafe { release(task) };
    }
}

/// Gives up one of the references that all threads count.
///
/// # Safety
/// It is not used again.
pub(super) unsafe fn release(task: NonNull<Header>) {
    // SAFETY: the caller refers to it. What is needed afterwards is read before: whoever is last may be another.
    let free = unsafe { task.as_ref() }.table.free;
    // SAFETY: the reference is given up here.
    if unsafe { task.as_ref() }.state.release() {
        // SAFETY: nobody refers to it any more; the future and its output are gone since the loop's thread has no reference.
        unsafe { free(task) };
    }
}

/// Takes a task out of its loop's inbox, and tells which it is. On the loop's thread, or for an inbox that is closed.
///
/// # Safety
/// The link is that of a task which stood in an inbox.
unsafe fn woken(link: NonNull<Link>) -> Handle {
    let task = link.cast::<Header>();
    // SAFETY: the inbox refers to it until here.
    unsafe {
        let header = task.as_ref();
        header.state.taken();
        let handle = header.handle.get().expect("a task has a handle before it has a waker");
        release(task);
        handle
    }
}
