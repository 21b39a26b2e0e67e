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

use super::body::{self, Header};
use crate::counted::Counted;
use crate::event_loop::Loop;
use crate::running::with_innermost;

/// The functions of wakers. The data of a waker is a task, which it refers to.
static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

/// A waker that refers to no more than the task's owner does.
///
/// # Safety
/// The caller refers to the task for as long as the waker is used.
pub(super) unsafe fn borrowed(task: NonNull<Header>) -> ManuallyDrop<Waker> {
    // SAFETY: the functions are those for a task, and keep the contract of RawWaker; the waker is not dropped.
    ManuallyDrop::new(unsafe { Waker::new(task.as_ptr().cast(), &VTABLE) })
}

fn task_of(data: *const ()) -> NonNull<Header> {
    NonNull::new(data.cast_mut().cast()).expect("a waker's data is a task")
}

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: the waker refers to the task.
    unsafe { task_of(data).as_ref() }.state.retain();
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
    // SAFETY: the waker refers to the task.
    unsafe { wake_task(task_of(data)) }
}

unsafe fn drop_waker(data: *const ()) {
    // SAFETY: the waker's reference is given up.
    unsafe { body::release(task_of(data)) }
}

/// # Safety
/// The caller refers to the task.
pub(super) unsafe fn wake_task(task: NonNull<Header>) {
    if !with_innermost(|lp| lp.is_some_and(|lp| lp.wake_task(task))) {
        // SAFETY: as the caller says.
        unsafe { post(task) };
    }
}

/// # Safety
/// The caller refers to the task.
#[cold]
unsafe fn post(task: NonNull<Header>) {
    // SAFETY: as the caller says.
    let header = unsafe { task.as_ref() };
    if header.shared.process().is_current() && header.state.begin_post() {
        // SAFETY: the head stands at the beginning of the task, in no inbox; the inbox refers to the task until it is taken out. It is
        // given a pointer to the whole of it, since `woken` uses that.
        if !unsafe { header.shared.post_wake(task.cast()) } {
            // SAFETY: the inbox is closed; its reference is given up.
            unsafe { body::release(task) };
        }
    }
}

impl Loop {
    /// Puts a task of this loop into the ready queue; false if it is another loop's, or if there is no memory. Inside of a run.
    #[inline]
    fn wake_task(&self, task: NonNull<Header>) -> bool {
        // SAFETY: the caller refers to the task.
        let header = unsafe { task.as_ref() };
        if !Counted::is_same(&self.shared, &header.shared) {
            return false;
        }
        let Some(handle) = header.handle.get().filter(|_| self.check_not_forked().is_ok()) else { return true };
        let mut schedule = self.schedule.borrow_mut();
        // What was posted before comes before (S26).
        let room = self.collect_mail(&mut schedule).and_then(|()| schedule.reserve_wake());
        if room.is_ok() {
            schedule.wake_task(handle);
        }
        room.is_ok()
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
    pub(crate) fn of(waker: &Waker) -> Notify {
        match own_task(waker) {
            Some(task) => {
                // SAFETY: the waker refers to it.
                body::own(unsafe { task.as_ref() });
                Notify::Task(Local(task))
            }
            None => Notify::Other(waker.clone()),
        }
    }

    /// Whether it wakes the same as this waker does.
    pub(crate) fn is_for(&self, waker: &Waker) -> bool {
        match self {
            Notify::Task(local) => std::ptr::eq(local.0.as_ptr().cast(), waker.data()) && is_ours(waker),
            Notify::Other(other) => other.will_wake(waker),
        }
    }

    pub(crate) fn wake(self) {
        match self {
            // SAFETY: `local` refers to it.
            Notify::Task(local) => unsafe { wake_task(local.0) },
            Notify::Other(waker) => waker.wake(),
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // SAFETY: the reference is given up. It is not `Send`, so this is the loop's thread.
        unsafe { body::disown(self.0) };
    }
}

fn is_ours(waker: &Waker) -> bool {
    std::ptr::eq(waker.vtable(), &VTABLE)
}

/// The task that a waker wakes, if it is one of the loop that is running on this thread.
fn own_task(waker: &Waker) -> Option<NonNull<Header>> {
    if !is_ours(waker) {
        return None;
    }
    let task = task_of(waker.data());
    // SAFETY: the waker refers to it.
    let header = unsafe { task.as_ref() };
    let is_here = with_innermost(|lp| lp.is_some_and(|lp| Counted::is_same(&lp.shared, &header.shared)));
    // A task that has ended may be referred to by wakers alone: the thread's own references have come to their end then.
    (is_here && header.owners.get() > 0).then_some(task)
}
