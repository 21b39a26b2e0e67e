//! A task in memory: one allocation with what is known of it and, behind that, its future, and what that came to.
//!
//! The loop's thread has the future and the output. It counts its own references, which together are one of those that `State` counts:
//! the slot's, the join handle's, and those of the loop's timers and cells that will wake the task. Other threads have wakers, which touch
//! the state, the head and the shared part of the loop, and nothing else. By the time the loop's thread has none left,
//! future and output have been dropped there; then it is memory alone that goes, on whichever thread.

use std::cell::{Cell, UnsafeCell};
use std::future::Future;
use std::mem::{ManuallyDrop, needs_drop};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::task::{Context, Poll};

use super::join::JoinError;
use super::state::State;
use super::waker::{self, Notify};
use crate::abi::handle::Handle;
use crate::abi::source::Source;
use crate::error::Result;
use crate::event_loop::{Loop, Payload, Unjoined, drop_quietly};
use crate::pending::callback::Callable;
use crate::pending::event::Event;
use crate::sys::memory::try_box;
use crate::sys::try_arc::{Inner, TryArc};
use crate::threads::inbox::Link;
use crate::threads::remote::{Head, Shared, What};

/// What is known of any task.
#[repr(C)]
pub(super) struct Header {
    /// The inbox writes to it, but not to the pointer to the table.
    head: UnsafeCell<Head>,
    pub(super) state: State,
    // The loop's thread's, but for the next one.
    /// The references of the loop's thread.
    owners: Cell<u32>,
    /// One of its owners from the first waker on that is not borrowed from a poll: that of a task which is polled is owned by its loop.
    shared: NonNull<Inner<Shared>>,
    /// The slot's.
    pub(super) handle: Cell<Option<Handle>>,
    /// Counts how often the task has had its slot wait for a time; see `Sleep`.
    pub(super) sleeps: Cell<u32>,
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
    /// Its future is there, and its slot is filled.
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
    Ended(Ended<F::Output>),
    Empty,
}

type Ended<T> = std::result::Result<T, JoinError>;

/// The functions for one type of future. Each takes a task whose body was made with this table.
#[repr(C)]
struct Table {
    /// What the head of a post says.
    what: What,
    /// Moves the output of a task, whose status is `Ended`, to where there is room for an `Option<Ended<_>>`. The loop's thread.
    take: unsafe fn(NonNull<Header>, *mut ()),
    /// Frees a task that nobody refers to any more.
    free: unsafe fn(NonNull<Header>),
}

/// A task as its slot has it: dropping it ends the task.
pub(super) struct Slotted<F: Future>(NonNull<Body<F>>);

/// Makes a task, with two references of the loop's thread: the slot's and the join handle's.
pub(super) fn make<F: Future>(future: F, lp: &Loop) -> Result<(Slotted<F>, NonNull<Header>)> {
    let table = const { &Table { what: What::Wake(woken), take: take::<F>, free: free::<F> } };
    let header = Header {
        // SAFETY: the table lives for ever.
        head: UnsafeCell::new(unsafe { Head::of_task(NonNull::from(table).cast()) }),
        state: State::new(),
        owners: Cell::new(2),
        shared: TryArc::as_raw(&lp.shared),
        handle: Cell::new(None),
        sleeps: Cell::new(0),
        status: Cell::new(Status::Running),
        to_abort: Cell::new(false),
        is_joined: Cell::new(true),
        joiner: Cell::new(None),
    };
    let body = NonNull::from(Box::leak(try_box(Body { header, stage: UnsafeCell::new(Stage::Running(future)) })?));
    Ok((Slotted(body), body.cast()))
}

impl Header {
    #[inline]
    fn table(&self) -> &'static Table {
        // SAFETY: the head is that of a task, and was given a table, which begins with what the head says.
        unsafe { Head::what(self.head.get()).cast::<Table>().as_ref() }
    }

    /// Whether it is a task of this loop.
    #[inline]
    pub(super) fn is_of(&self, lp: &Loop) -> bool {
        self.shared == TryArc::as_raw(&lp.shared)
    }

    /// The shared part of the task's loop.
    ///
    /// # Safety
    /// The loop is there, or the caller has a waker.
    pub(super) unsafe fn shared(&self) -> ManuallyDrop<TryArc<Shared>> {
        // SAFETY: the loop owns it, or the task does since it has wakers; what is made here is not dropped.
        ManuallyDrop::new(unsafe { TryArc::from_raw(self.shared) })
    }

    /// One more reference of the loop's thread; false if it has none any more, which comes before the end of the last waker.
    #[inline]
    pub(super) fn own(&self) -> bool {
        let owners = self.owners.get();
        if owners > 0 {
            self.owners.set(owners.checked_add(1).expect("fewer references than memory has room for"));
        }
        owners > 0
    }

    /// One more reference, for a waker.
    ///
    /// # Safety
    /// The loop is there, or the caller has a waker.
    #[inline]
    pub(super) unsafe fn share(&self) {
        if self.state.share() {
            // SAFETY: as the caller says.
            let shared = unsafe { self.shared() };
            std::mem::forget(TryArc::clone(&shared));
        }
    }
}

/// Posts a task to its loop, unless it is on its way already.
///
/// # Safety
/// The caller refers to the task; its loop is there, or the caller has a waker.
#[cold]
pub(super) unsafe fn post(task: NonNull<Header>) {
    // SAFETY: as the caller says.
    let (header, shared) = unsafe { (task.as_ref(), task.as_ref().shared()) };
    if shared.process().is_current() && header.state.begin_post() {
        // SAFETY: the head stands at the beginning of the task, in no inbox; the inbox refers to the task until it is taken out, and is
        // given a pointer to the whole of it, since `woken` uses that.
        if !unsafe { shared.post_head(task.cast()) } {
            // SAFETY: the inbox is closed; the reference that was for it is given up.
            unsafe { release(task) };
        }
    }
}

impl<F: Future> Callable<Loop> for Slotted<F> {
    const ONCE: bool = false;

    /// Polls it.
    fn call(&mut self, lp: &Loop, _: &Event) {
        // SAFETY: the slot refers to it.
        let Body { header, stage } = unsafe { self.0.as_ref() };
        if header.to_abort.get() {
            // The slot is emptied when this returns.
            header.handle.get().into_iter().for_each(|handle| drop(lp.schedule.borrow_mut().cancel(handle)));
            return;
        }
        // SAFETY: nothing else touches the stage while the future is there but the slot's end, which does not come while this runs.
        let Stage::Running(future) = (unsafe { &mut *stage.get() }) else { return };
        // SAFETY: a future stays where its task is until it is dropped.
        let future = unsafe { Pin::new_unchecked(future) };
        // SAFETY: the slot refers to it.
        let waker = unsafe { waker::borrowed(self.0.cast()) };
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(&mut Context::from_waker(&waker))));
        match polled {
            Ok(Poll::Pending) => {}
            _ if lp.check_not_forked().is_err() => {
                // This is the child: nothing of the loop's runs here any more, nor is it dropped.
                std::mem::forget(polled);
            }
            Ok(Poll::Ready(output)) => self.complete(lp, Ok(output)),
            Err(payload) => self.complete(lp, Err(JoinError::panicked(payload, &lp.shared))),
        }
    }

    fn call_once(self, _: &Loop, _: &Event) {}

    fn source_of_type() -> Source {
        Source::Rust(std::any::type_name::<F>())
    }
}

impl<F: Future> Slotted<F> {
    /// Ends the task, whose callback is on the stack, and empties its slot.
    #[inline]
    fn complete(&self, lp: &Loop, result: Ended<F::Output>) {
        // SAFETY: the slot refers to it.
        let handle = unsafe { self.0.as_ref() }.header.handle.get();
        let is_emptied = handle.is_some_and(|handle| lp.schedule.borrow_mut().complete_task(handle));
        // SAFETY: the future is there, and its poll has returned.
        let panic = unsafe { end(self.0, result) };
        if is_emptied {
            // SAFETY: the slot has not dropped this but given up what it had.
            unsafe { disown(self.0.cast()) };
        }
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

impl<F: Future> Drop for Slotted<F> {
    fn drop(&mut self) {
        // SAFETY: the slot refers to it until here.
        let is_running = unsafe { self.0.as_ref() }.header.status.get() == Status::Running;
        // SAFETY: the future is there; a slot is not emptied while its callback is on the stack.
        let panic = if is_running { unsafe { end(self.0, Err(JoinError::cancelled())) } } else { None };
        // SAFETY: the slot's reference is given up.
        unsafe { disown(self.0.cast()) };
        if let Some(payload) = panic.filter(|_| !std::thread::panicking()) {
            resume_unwind(payload);
        }
    }
}

/// Drops the future, and leaves the result to the join handle if there is one. Gives a panic that is the loop's to handle: of the task,
/// where there is no join handle, or of a waker.
///
/// # Safety
/// The future is there, and is not being polled. The loop's thread, which refers to the task.
#[inline]
unsafe fn end<F: Future>(body: NonNull<Body<F>>, mut result: Ended<F::Output>) -> Option<Payload> {
    // SAFETY: the caller refers to it.
    let Body { header, stage } = unsafe { body.as_ref() };
    header.status.set(Status::Ending);
    if needs_drop::<F>() {
        // SAFETY: the future is dropped where it is, once: what is there is written over below.
        let in_drop = catch_unwind(AssertUnwindSafe(|| unsafe { ptr::drop_in_place(stage.get()) }));
        // SAFETY: a task that has not ended stands in a slot of its loop.
        if !unsafe { header.shared() }.process().is_current() {
            // The Drop has forked, and this is the child: no more of the user's code runs here.
            // SAFETY: there is nothing in it that would have to be dropped.
            unsafe { ptr::write(stage.get(), Stage::Empty) };
            std::mem::forget((in_drop, result));
            return None;
        }
        if let Err(payload) = in_drop {
            // SAFETY: a task that has not ended stands in a slot of its loop.
            let error = JoinError::panicked(payload, &*unsafe { header.shared() });
            // It may panic as well: then that is lost.
            drop_quietly(std::mem::replace(&mut result, Err(error)));
        }
    }
    if header.is_joined.get() {
        // SAFETY: there is nothing in it that would have to be dropped.
        unsafe { ptr::write(stage.get(), Stage::Ended(result)) };
        header.status.set(Status::Ended);
        let joiner = header.joiner.take()?;
        return catch_unwind(AssertUnwindSafe(|| joiner.wake())).err();
    }
    // SAFETY: as above.
    unsafe { ptr::write(stage.get(), Stage::Empty) };
    header.status.set(Status::Empty);
    let unjoined = match result {
        Err(error) => error.into_payload(),
        Ok(output) => catch_unwind(AssertUnwindSafe(|| drop(output))).err(),
    };
    unjoined.map(Unjoined::boxed)
}

/// # Safety
/// As the table says; in the room is `None`.
unsafe fn take<F: Future>(task: NonNull<Header>, room: *mut ()) {
    // SAFETY: the caller refers to it.
    let Body { header, stage } = unsafe { task.cast::<Body<F>>().as_ref() };
    header.status.set(Status::Empty);
    // SAFETY: the task has ended: nobody else has the stage.
    if let Stage::Ended(result) = unsafe { ptr::replace(stage.get(), Stage::Empty) } {
        // SAFETY: as the caller says.
        unsafe { *room.cast::<Option<Ended<F::Output>>>() = Some(result) };
    }
}

/// # Safety
/// As the table says.
unsafe fn free<F: Future>(task: NonNull<Header>) {
    // SAFETY: it came from a box, and nobody refers to it.
    let body = unsafe { Box::from_raw(task.cast::<Body<F>>().as_ptr()) };
    if body.header.state.is_shared() {
        // SAFETY: it has been one of the owners from its first waker on.
        drop(unsafe { TryArc::from_raw(body.header.shared) });
    }
}

/// Takes the output of a task if it is there.
///
/// # Safety
/// The caller refers to the task, whose future has an output of type `T`. The loop's thread.
#[inline]
pub(super) unsafe fn take_output<T>(task: NonNull<Header>) -> Option<Ended<T>> {
    let mut output = None;
    // SAFETY: the caller refers to the task; the table is the body's, and the room is of the right type.
    unsafe {
        if task.as_ref().status.get() == Status::Ended {
            (task.as_ref().table().take)(task, (&raw mut output).cast());
        }
    }
    output
}

/// Gives up a reference of the loop's thread.
///
/// # Safety
/// It is not used again.
#[inline]
pub(super) unsafe fn disown(task: NonNull<Header>) {
    // SAFETY: the reference is given up below.
    let owners = unsafe { &task.as_ref().owners };
    let left = owners.get() - 1;
    owners.set(left);
    if left == 0 {
        // SAFETY: the loop's thread has none left.
        unsafe { release(task) };
    }
}

/// Gives up one of the references that all threads count.
///
/// # Safety
/// It is not used again.
#[inline]
pub(super) unsafe fn release(task: NonNull<Header>) {
    // SAFETY: the reference is given up here; the table is read before.
    let (free, is_last) = unsafe { (task.as_ref().table().free, task.as_ref().state.release()) };
    if is_last {
        // SAFETY: nobody refers to it any more; future and output are gone, since the loop's thread has no reference.
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
        task.as_ref().state.taken();
        let handle = task.as_ref().handle.get().expect("a task has a handle before it has a waker");
        release(task);
        handle
    }
}
