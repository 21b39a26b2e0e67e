//! Waking a task: from its loop's thread, and from any other.
//!
//! Inside of a run of its loop a woken task goes to the end of the ready queue at once. From elsewhere, it goes to the loop's inbox,
//! which keeps the order with what is scheduled there. Neither allocates, but for the ready queue when that has to grow; if it cannot,
//! the inbox will do as well.
//!
//! Of several threads that wake a task, one brings it to the inbox. While that thread is on its way there, the wakes of the others wait
//! for it: unlike a post, a wake may be held up by a thread that is stopped half-way.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::body::{self, Header, Status};
use crate::event_loop::Loop;
use crate::event_loop::running::with_innermost;

/// The functions of wakers. The data of a waker is a task, which it refers to.
static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

/// A waker that refers to no more than the task's owner does.
///
/// # Safety
/// The caller refers to the task for as long as the waker is used, and so does its loop.
#[inline]
pub(super) unsafe fn borrowed(task: NonNull<Header>) -> ManuallyDrop<Waker> {
    // SAFETY: the functions are those for a task, and keep the contract of RawWaker; the waker is not dropped.
    ManuallyDrop::new(unsafe { Waker::new(task.as_ptr().cast(), &VTABLE) })
}

fn task_of(data: *const ()) -> NonNull<Header> {
    NonNull::new(data.cast_mut().cast()).expect("a waker's data is a task")
}

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: the waker refers to the task, or its loop does, which polls it.
    unsafe { task_of(data).as_ref().share() };
    RawWaker::new(data, &VTABLE)
}

unsafe fn wake(data: *const ()) {
    // SAFETY: the waker refers to the task until it is dropped, here.
    unsafe {
        wake_by_ref(data);
        drop_waker(data);
    }
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: the waker refers to the task, or its loop does, which polls it.
    unsafe {
        let task = task_of(data);
        if !with_innermost(|lp| lp.is_some_and(|lp| lp.wake_task(task.as_ref()))) {
            body::post(task);
        }
    }
}

unsafe fn drop_waker(data: *const ()) {
    // SAFETY: the waker's reference is given up.
    unsafe { body::release(task_of(data)) }
}

impl Loop {
    /// Puts a task of this loop into the ready queue; false if it is another loop's, or if there is no memory. Inside of a run.
    #[inline]
    fn wake_task(&self, task: &Header) -> bool {
        if !task.is_of(self) {
            return false;
        }
        let Some(handle) = task.handle.get().filter(|_| self.check_not_forked().is_ok()) else { return true };
        let mut schedule = self.schedule.borrow_mut();
        // What was posted before comes before (S26).
        let woken = self.collect_posts(&mut schedule).and_then(|()| schedule.reserve_wake());
        if woken.is_ok() {
            schedule.wake_task(handle);
        }
        woken.is_ok()
    }
}

/// Wakes whoever polled something on this thread: without an atomic instruction if that was a task of the loop that runs here.
pub(crate) enum Notify {
    Task(Local),
    Other(Waker),
}

/// A reference of the loop's thread to a task.
pub(crate) struct Local(NonNull<Header>);

impl Notify {
    #[inline]
    pub(crate) fn of(waker: &Waker) -> Notify {
        with_innermost(|lp| lp.and_then(|lp| Local::of(waker, lp)))
            .map_or_else(|| Notify::Other(waker.clone()), Notify::Task)
    }

    /// Whether it wakes the same as this waker does.
    pub(crate) fn is_for(&self, waker: &Waker) -> bool {
        match self {
            Notify::Task(local) => local.is_for(waker),
            Notify::Other(other) => other.will_wake(waker),
        }
    }

    #[inline]
    pub(crate) fn wake(self) {
        match self {
            Notify::Task(local) => local.wake(),
            Notify::Other(waker) => waker.wake(),
        }
    }
}

impl Local {
    /// The task that a waker wakes, if it is one of the loop that is running on this thread.
    #[inline]
    pub(super) fn of(waker: &Waker, lp: &Loop) -> Option<Local> {
        if !is_of_task(waker) {
            return None;
        }
        let task = task_of(waker.data());
        // SAFETY: the waker refers to it.
        let header = unsafe { task.as_ref() };
        (header.is_of(lp) && header.own()).then(|| Local(task))
    }

    /// Whether this is the task that a waker wakes.
    #[inline]
    pub(super) fn is_for(&self, waker: &Waker) -> bool {
        std::ptr::eq(self.0.as_ptr().cast(), waker.data()) && is_of_task(waker)
    }

    /// The reference that `own` has counted.
    ///
    /// # Safety
    /// It becomes this one's.
    pub(super) unsafe fn from_owned(task: NonNull<Header>) -> Local {
        Local(task)
    }

    pub(super) fn header(&self) -> &Header {
        // SAFETY: this refers to it.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn as_ptr(&self) -> NonNull<Header> {
        self.0
    }

    #[inline]
    pub(super) fn wake(&self) {
        let task = self.header();
        // One that has ended may have lost its loop.
        if task.status.get() == Status::Running && !with_innermost(|lp| lp.is_some_and(|lp| lp.wake_task(task))) {
            // SAFETY: a task that has not ended stands in a slot of its loop.
            unsafe { body::post(self.0) };
        }
    }
}

impl Drop for Local {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the reference is given up. It is not `Send`, so this is the loop's thread.
        unsafe { body::disown(self.0) };
    }
}

fn is_of_task(waker: &Waker) -> bool {
    std::ptr::eq(waker.vtable(), &VTABLE)
}
