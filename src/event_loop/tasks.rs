//! The functions of a loop for tasks: a slot, turns in the ready queue, sleep until a time.
//!
//! The loop has a task's handle and the callback that polls it. It does not drop the callback
//! during its call. Posts that came before a wake or a sleep run before it (S26, S8). The room
//! `task` handles futures, wakers and outputs.

use std::mem::ManuallyDrop;

use super::{Callback, Loop, Shared};
use crate::abi::handle::Handle;
use crate::error::Result;
use crate::sys::memory::TryArc;

impl Loop {
    /// The part of the loop that remotes share, which identifies the loop after its end.
    #[inline]
    pub(crate) fn shared(&self) -> &TryArc<Shared> {
        &self.shared
    }

    /// Calls `f` with the loop of this shared part, if it is the innermost running loop of this
    /// thread.
    pub(crate) fn if_running<R>(shared: &TryArc<Shared>, f: impl FnOnce(&Loop) -> R) -> Option<R> {
        Loop::with_running(|lp| lp.filter(|lp| TryArc::is_same(&lp.shared, shared)).map(f))
    }

    /// Gives a task a slot. From now on, `poll` is called at each turn of the task, for the first
    /// time in a later iteration. When memory is refused, `poll` is dropped.
    #[inline(always)]
    pub(crate) fn add_task(&self, poll: Callback) -> Result<Handle> {
        let poll = ManuallyDrop::new(poll);
        let mut schedule = self.schedule.borrow_mut();
        let posts = self.collect_posts(&mut schedule);
        if let Err(error) = posts.and_then(|()| schedule.reserve_call()) {
            drop(schedule);
            Callback::refuse(poll);
            return Err(error);
        }
        Ok(schedule.add_task(ManuallyDrop::into_inner(poll)))
    }

    /// Appends a task to the ready queue, unless it is in there already or has ended; false if
    /// memory is refused.
    #[inline]
    pub(crate) fn wake_task(&self, handle: Handle) -> bool {
        let mut schedule = self.schedule.borrow_mut();
        let woken = self.collect_posts(&mut schedule).and_then(|()| schedule.reserve_ready());
        if woken.is_ok() {
            schedule.wake_task(handle);
        }
        woken.is_ok()
    }

    /// Marks the task that is being polled as ended. Its callback is dropped when this poll has
    /// returned.
    #[inline(always)]
    pub(crate) fn complete_task(&self, handle: Handle) {
        self.schedule.borrow_mut().complete_task(handle);
    }

    /// Ends the task that is being polled. Its slot drops the callback when the poll has returned.
    pub(crate) fn end_task(&self, handle: Handle) {
        // The callback is handed out later.
        drop(self.schedule.borrow_mut().cancel(handle));
    }

    /// Wakes a task at a time. False if the task waits for another time already, or has been
    /// cancelled.
    #[inline]
    pub(crate) fn sleep_task_until(&self, handle: Handle, when: u64) -> Result<bool> {
        let mut schedule = self.schedule.borrow_mut();
        self.collect_posts(&mut schedule)?;
        schedule.sleep_until(handle, when)
    }

    /// Whether a task waits for a time.
    #[inline]
    pub(crate) fn is_task_asleep(&self, handle: Handle) -> bool {
        self.schedule.borrow().is_asleep(handle)
    }

    /// Cancels a task's wait for a time.
    #[inline]
    pub(crate) fn stop_sleeping(&self, handle: Handle) {
        self.schedule.borrow_mut().stop_sleeping(handle);
    }

    /// Whether a time has passed on the loop's clock. Does not read the clock if timers of that
    /// time have been collected.
    #[inline]
    pub(crate) fn is_past(&self, when: u64) -> bool {
        self.schedule.borrow().collected_at() >= when || self.time().as_nanos() >= when
    }

    /// Clears a `stop` that has stopped nothing, so that it does not affect the next run.
    pub(crate) fn take_back_stop(&self) {
        self.stopping.set(false);
    }
}
