//! S5 (d): runs the callbacks of ready slots, and handles the end of each callback.
//!
//! No borrow is held while user code runs: callbacks, hooks, handlers, and the Drop of their
//! values. After each, the loop checks whether this is a forked child, where it runs nothing more
//! (S33).

use std::cell::RefMut;
use std::mem::ManuallyDrop;

use super::release::attempt;
use super::{Call, Callback, Loop, Schedule};
use crate::abi::handle::{Handle, Kind};
use crate::error::{Error, Result};
use crate::pending::HookPoint;
use crate::pending::event::Event;
use crate::pending::ready::{List, list_of};
use crate::pending::slots::SlotRef;

impl Loop {
    /// S5 (d): runs the current contents of the ready queue, and returns the number of callbacks.
    #[inline(always)]
    pub(super) fn run_batch(&self) -> Result<usize> {
        self.schedule.borrow_mut().begin_batch();
        self.slow.restart();
        let mut ran = 0;
        while !self.breaking.get() {
            let mut schedule = self.schedule.borrow_mut();
            let Some(next) = schedule.next_in_batch() else { break };
            if schedule.is_plain(next) && !self.slow.is_on() {
                let (handle, callback) = schedule.take_plain(next);
                drop(schedule);
                self.invoke_plain(Some(handle), callback)?;
            } else if let Some(list) = list_of(next) {
                self.take_turn(list, schedule)?;
            } else if schedule.is_task(next) && !self.slow.is_on() {
                self.poll_task(schedule, next)?;
            } else if !self.run_call(schedule, next)? {
                continue;
            }
            ran += 1;
        }
        Ok(ran)
    }

    /// Runs the next entry, of any kind; false if it needs no callback.
    #[inline(never)]
    fn run_call(&self, mut schedule: RefMut<'_, Schedule>, next: SlotRef) -> Result<bool> {
        let Some(call) = self.take_call(&mut schedule, next)? else { return Ok(false) };
        drop(schedule);
        self.invoke(call).map(|()| true)
    }

    /// Runs a callback without release hook, report or event: the fast path of `invoke`.
    #[inline(always)]
    fn invoke_plain(&self, handle: Option<Handle>, callback: Callback) -> Result<()> {
        self.current.set(handle);
        let in_callback = attempt(|| callback.call_once(self, &Event::Turn));
        self.current.set(None);
        if in_callback.is_some() && self.owner.process().is_current() {
            self.handle_panics([in_callback, None, None]);
        }
        self.check_not_forked()
    }

    /// The fast path of `invoke` for a task, which usually stays pending.
    #[inline(never)]
    fn poll_task(&self, mut schedule: RefMut<'_, Schedule>, next: SlotRef) -> Result<()> {
        let (handle, callback) = schedule.begin_task(next);
        drop(schedule);
        let mut callback = ManuallyDrop::new(callback);
        self.current.set(Some(handle));
        let in_callback = attempt(|| callback.call(self, &Event::Turn));
        self.current.set(None);
        self.check_not_forked()?;
        let ended = self.schedule.borrow_mut().task_returned(next, &mut callback);
        if ended.is_none() && in_callback.is_none() {
            return Ok(());
        }
        let in_release = ended.and_then(|ended| self.release(ended));
        if in_callback.is_some() || in_release.is_some() {
            self.handle_panics([in_callback, in_release, None]);
        }
        self.check_not_forked()
    }

    /// Runs the next post or result.
    #[inline(never)]
    fn take_turn(&self, list: List, mut schedule: RefMut<'_, Schedule>) -> Result<()> {
        match list {
            List::Posts => {
                let Some(post) = schedule.take_post() else { return Ok(()) };
                drop(schedule);
                let held = post.unpack();
                if held.release.is_none() && !self.slow.is_on() {
                    self.invoke_plain(None, held.callback)
                } else {
                    self.invoke(Call::last(None, Kind::Call, held, Event::Turn))
                }
            }
            List::Results => {
                let Some(call) = schedule.take_result() else { return Ok(()) };
                drop(schedule);
                self.invoke(call)
            }
        }
    }

    #[inline(always)]
    pub(super) fn run_hooks(&self, point: HookPoint) -> Result<()> {
        if self.schedule.borrow().has_hooks() { self.run_hooks_at(point) } else { Ok(()) }
    }

    #[cold]
    fn run_hooks_at(&self, point: HookPoint) -> Result<()> {
        let count = self.schedule.borrow_mut().begin_hooks(point);
        self.slow.restart();
        for at in 0..count {
            if self.breaking.get() {
                break;
            }
            let call = self.schedule.borrow_mut().hook_call(point, at);
            if let Some(call) = call {
                self.invoke(call)?;
            }
        }
        Ok(())
    }

    /// Runs one callback, then reports it if it was slow, releases it, and handles its panic.
    ///
    /// When it returns in a forked child, nothing of the loop runs there any more (S33).
    fn invoke(&self, mut call: Call) -> Result<()> {
        let watched = self.slow.begin(self, &call);
        self.current.set(call.handle);
        let in_callback = attempt(|| call.callback.call(self, &call.event));
        self.current.set(None);
        let in_report = match watched {
            Some(watched) if self.owner.process().is_current() => {
                attempt(|| self.slow.end(self, watched))
            }
            _ => None,
        };
        if let Err(error) = self.check_not_forked() {
            std::mem::forget(call);
            return Err(error);
        }
        let ended = self.schedule.borrow_mut().finished(call);
        let in_release = if ended.is_empty() {
            None
        } else {
            // The release must not count as time of the next callback.
            self.slow.restart();
            self.release(ended)
        };
        if in_callback.is_some() || in_report.is_some() || in_release.is_some() {
            self.handle_panics([in_callback, in_report, in_release]);
        }
        self.check_not_forked()
    }

    /// Called after all user code, which may have forked. In the child, nothing of the loop may
    /// run.
    #[inline]
    pub(crate) fn check_not_forked(&self) -> Result<()> {
        if self.owner.process().is_current() { Ok(()) } else { Err(Error::FORKED) }
    }
}
