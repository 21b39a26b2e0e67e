//! What tasks ask of their loop: a slot, turns in the ready queue, a time to sleep until.
//!
//! The loop knows a task by its handle and calls what polls it. It promises that this is not
//! dropped while it is being called, and that posts which came before a wake or a sleep have their
//! turn before it (S26, S8). Futures, wakers and outputs are the tasks' own business.

use std::mem::ManuallyDrop;

use super::{Callback, Loop, Shared};
use crate::abi::handle::Handle;
use crate::error::Result;
use crate::sys::memory::TryArc;

impl Loop {
    /// What the loop and its remotes share, by which those that may outlive the loop know it.
    #[inline]
    pub(crate) fn shared(&self) -> &TryArc<Shared> {
        &self.shared
    }

    /// Hands the loop with this shared part to `f` if it is the innermost one that runs on this
    /// thread.
    pub(crate) fn if_running<R>(shared: &TryArc<Shared>, f: impl FnOnce(&Loop) -> R) -> Option<R> {
        Loop::with_running(|lp| lp.filter(|lp| TryArc::is_same(&lp.shared, shared)).map(f))
    }

    /// Gives a task its slot: from now on, `poll` is called whenever the task has its turn, for the
    /// first time in a later iteration. When memory is refused, `poll` is dropped.
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

    /// Puts a task at the end of the ready queue, unless it stands there already or has ended;
    /// false if there is no memory.
    #[inline]
    pub(crate) fn wake_task(&self, handle: Handle) -> bool {
        let mut schedule = self.schedule.borrow_mut();
        let woken = self.collect_posts(&mut schedule).and_then(|()| schedule.reserve_ready());
        if woken.is_ok() {
            schedule.wake_task(handle);
        }
        woken.is_ok()
    }

    /// The task that is being polled has ended: what polls it is dropped when this poll has
    /// returned.
    #[inline(always)]
    pub(crate) fn complete_task(&self, handle: Handle) {
        self.schedule.borrow_mut().complete_task(handle);
    }

    /// The task whose turn it is is not polled any more: its slot drops what polls it when that
    /// returns.
    pub(crate) fn end_task(&self, handle: Handle) {
        // What it held is handed out later.
        drop(self.schedule.borrow_mut().cancel(handle));
    }

    /// Has a task woken at a time. False: it waits for another one already, or has been cancelled.
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

    /// Has a task that waits for a time wait no more.
    #[inline]
    pub(crate) fn stop_sleeping(&self, handle: Handle) {
        self.schedule.borrow_mut().stop_sleeping(handle);
    }

    /// Whether a time is past on the loop's clock. That is not read if timers of that time have
    /// been collected.
    #[inline]
    pub(crate) fn is_past(&self, when: u64) -> bool {
        self.schedule.borrow().collected_at() >= when || self.time().as_nanos() >= when
    }

    /// A `stop` that has not stopped anything is not for the next run.
    pub(crate) fn take_back_stop(&self) {
        self.stopping.set(false);
    }
}
