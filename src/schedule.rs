//! What is pending on a loop: the slots, and the queues that refer to them.
//!
//! Everything here is data. It runs no user code and knows no ring and no clock: a callback that is to run, or to be
//! dropped, is handed out, so that the loop can do it with no borrow held. Nothing changes when memory is refused.

use crate::callback::{Callback, try_box};
use crate::error::{Error, Result};
use crate::handle::{Ended, Extra, Handle, Kind, Place, SlotRef, Slots};
use crate::inspect::Info;
use crate::metrics::Metrics;
use crate::ready::ReadyQueue;
use crate::timers::Timers;

/// When in an iteration a hook runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum HookPoint {
    /// Before the loop submits and waits.
    BeforeWait = 1,
    /// After it has collected what is ready, before it runs it.
    AfterWait = 2,
}

#[derive(Debug)]
pub(crate) struct Schedule {
    slots: Slots,
    ready: ReadyQueue,
    timers: Timers,
    hooks: [Vec<SlotRef>; 2],
    dead_hooks: usize,
    /// How many slots count for `run` (S19).
    referenced: usize,
    /// The repeating timer or hook whose callback is on the stack, and so not in its slot.
    on_stack: Option<u32>,
    /// The clock when due timers were last collected: what a repeating timer is late by is counted from here.
    collected_at: u64,
    pub(crate) metrics: Metrics,
}

/// A callback that is to run now.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) callback: Callback,
    pub(crate) handle: Handle,
    pub(crate) kind: Kind,
    index: u32,
    extra: Option<Box<Extra>>,
}

impl Schedule {
    pub(crate) fn new(seed: u64) -> Schedule {
        Schedule {
            slots: Slots::new(seed),
            ready: ReadyQueue::default(),
            timers: Timers::default(),
            hooks: [Vec::new(), Vec::new()],
            dead_hooks: 0,
            referenced: 0,
            on_stack: None,
            collected_at: 0,
            metrics: Metrics::default(),
        }
    }

    /// Makes sure that the next `call_soon` needs no memory. What adds something comes in two steps, so that a closure
    /// for which there is no memory is dropped where no borrow is held.
    #[inline]
    pub(crate) fn reserve_call(&mut self) -> Result<()> {
        self.slots.reserve()?;
        self.reserve_ready()
    }

    /// Puts a call at the end of the ready queue.
    #[inline]
    pub(crate) fn call_soon(&mut self, callback: Callback) -> Handle {
        let index = self.slots.fill(Kind::Call, u64::MAX, callback);
        self.referenced += 1;
        self.make_ready(index);
        self.slots.handle(index)
    }

    /// Makes sure that the next `call_at` needs no memory.
    pub(crate) fn reserve_timer(&mut self) -> Result<()> {
        self.slots.reserve()?;
        self.reserve_timers()
    }

    /// Queues a timer; one with a period in its extra repeats.
    pub(crate) fn call_at(&mut self, when: u64, extra: Option<Box<Extra>>, callback: Callback) -> Handle {
        let kind = if extra.is_some() { Kind::Repeat } else { Kind::Timer };
        let index = self.slots.fill(kind, when, callback);
        self.slots[index].extra = extra;
        self.referenced += 1;
        self.queue_timer(index);
        self.slots.handle(index)
    }

    /// Makes sure that the next `add_hook` needs no memory.
    pub(crate) fn reserve_hook(&mut self, point: HookPoint) -> Result<()> {
        self.slots.reserve()?;
        Ok(self.hooks[point as usize - 1].try_reserve(1)?)
    }

    pub(crate) fn add_hook(&mut self, point: HookPoint, callback: Callback) -> Handle {
        let index = self.slots.fill(Kind::Hook, u64::MAX, callback);
        self.slots[index].place = Place::Hooks;
        let slot = self.slots.restamp(index);
        self.hooks[point as usize - 1].push(slot);
        self.slots.handle(index)
    }

    /// Ends what a handle names. What it held is handed out unless its callback is on the stack: `finished` does it then.
    pub(crate) fn cancel(&mut self, handle: Handle) -> Result<Option<Ended>> {
        let index = self.slots.find(handle)?;
        Ok(self.end(index))
    }

    /// Ends what stands in a slot, if anything does.
    pub(crate) fn end_at(&mut self, index: u32) -> Option<Ended> {
        match self.slots[index].place {
            Place::Free | Place::Ended => None,
            _ => self.end(index),
        }
    }

    fn end(&mut self, index: u32) -> Option<Ended> {
        self.unqueue(index);
        let slot = &self.slots[index];
        self.referenced -= usize::from(slot.referenced);
        self.metrics.timers_cancelled += u64::from(slot.kind.is_timer());
        if self.on_stack == Some(index) {
            self.slots.end_later(index);
            None
        } else {
            Some(self.slots.empty(index))
        }
    }

    /// Moves a timer to another deadline, behind those that have it already (S15).
    pub(crate) fn reschedule(&mut self, handle: Handle, when: u64) -> Result<()> {
        let index = self.find_timer(handle)?;
        self.reserve_timers()?;
        self.unqueue(index);
        self.slots[index].when = when;
        self.queue_timer(index);
        Ok(())
    }

    pub(crate) fn when(&self, handle: Handle) -> Result<u64> {
        Ok(self.slots[self.find_timer(handle)?].when)
    }

    pub(crate) fn skipped(&self, handle: Handle) -> Result<u64> {
        Ok(self.slots[self.find_timer(handle)?].extra.as_ref().map_or(0, |extra| extra.skipped))
    }

    pub(crate) fn is_pending(&self, handle: Handle) -> bool {
        self.slots.find(handle).is_ok()
    }

    pub(crate) fn set_referenced(&mut self, handle: Handle, referenced: bool) -> Result<()> {
        let index = self.slots.find(handle)?;
        let slot = &mut self.slots[index];
        if slot.kind == Kind::Hook {
            return Err(Error::HOOK_REFERENCE);
        }
        self.referenced = self.referenced + usize::from(referenced) - usize::from(slot.referenced);
        slot.referenced = referenced;
        Ok(())
    }

    pub(crate) fn has_ref(&self, handle: Handle) -> bool {
        self.slots.find(handle).is_ok_and(|index| self.slots[index].referenced)
    }

    /// Makes sure that the next `on_release` for this handle needs no memory.
    pub(crate) fn reserve_release(&mut self, handle: Handle) -> Result<()> {
        let index = self.slots.find(handle)?;
        let slot = &mut self.slots[index];
        if slot.extra.is_none() {
            slot.extra = Some(try_box(Extra::default())?);
        }
        Ok(())
    }

    /// Sets or removes the release hook of what a handle names; the former one is handed out.
    pub(crate) fn on_release(&mut self, handle: Handle, release: Option<Callback>) -> Result<Option<Callback>> {
        let index = self.slots.find(handle)?;
        let slot = &mut self.slots[index];
        Ok(slot.extra.as_mut().and_then(|extra| std::mem::replace(&mut extra.release, release)))
    }

    /// The callback that a handle names.
    #[cfg(feature = "capi")]
    pub(crate) fn source(&self, handle: Handle) -> Result<crate::callback::Source> {
        Ok(self.slots[self.slots.find(handle)?].callback.source())
    }

    /// Whether a callback stands in the ready queue.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether anything counts for `run`.
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        self.referenced > 0
    }

    /// The earliest deadline of the timers that are not ready yet.
    #[inline]
    pub(crate) fn next_deadline(&mut self) -> Option<u64> {
        let Schedule { slots, timers, .. } = self;
        timers.earliest(|slot| slots.is_live(slot))
    }

    /// Appends every timer that is due to the ready queue, in the order of deadlines (S5 c). When memory is refused,
    /// the rest stays where it is.
    pub(crate) fn collect_due(&mut self, now: u64) -> Result<()> {
        self.collected_at = now;
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.reserve_ready()?;
            let Schedule { slots, timers, .. } = self;
            let Some(slot) = timers.pop_due(now, |slot| slots.is_live(slot)) else { break };
            let late = now - self.slots[slot.index].when;
            self.metrics.became_ready(late);
            self.make_ready(slot.index);
        }
        Ok(())
    }

    pub(crate) fn begin_batch(&mut self) -> Result<()> {
        self.ready.begin_batch()
    }

    /// The next callback of the batch. When memory is refused, it stays in the batch.
    #[inline]
    pub(crate) fn next_call(&mut self) -> Result<Option<Call>> {
        let Schedule { slots, ready, .. } = self;
        let Some(SlotRef { index, .. }) = ready.next_in_batch(|slot| slots.is_live(slot)) else { return Ok(None) };
        let kind = self.slots[index].kind;
        if kind == Kind::Repeat {
            self.reserve_timers()?;
        }
        self.ready.take();
        self.metrics.callbacks += 1;
        self.metrics.timers_fired += u64::from(kind.is_timer());
        if kind == Kind::Repeat {
            self.rearm(index);
            return Ok(Some(self.borrow_out(index)));
        }
        let handle = self.slots.handle(index);
        self.referenced -= usize::from(self.slots[index].referenced);
        let Ended { callback, extra } = self.slots.empty(index);
        Ok(Some(Call { callback, handle, kind, index, extra }))
    }

    /// Begins a round of hooks and tells how many there are.
    #[inline]
    pub(crate) fn begin_hooks(&mut self, point: HookPoint) -> usize {
        let Schedule { slots, hooks, .. } = self;
        if self.dead_hooks > 0 {
            hooks.iter_mut().for_each(|list| list.retain(|&slot| slots.is_live(slot)));
            self.dead_hooks = 0;
        }
        hooks[point as usize - 1].len()
    }

    /// One hook of the round, if it has not been cancelled since the round began.
    pub(crate) fn hook_call(&mut self, point: HookPoint, at: usize) -> Option<Call> {
        let slot = self.hooks[point as usize - 1][at];
        self.slots.is_live(slot).then(|| self.borrow_out(slot.index))
    }

    /// Takes back what a call leaves: a callback that repeats goes back to its slot, the rest is handed out.
    #[inline]
    pub(crate) fn finished(&mut self, call: Call) -> Ended {
        let Call { callback, kind, index, extra, .. } = call;
        if !matches!(kind, Kind::Repeat | Kind::Hook) {
            return Ended { callback, extra };
        }
        self.on_stack = None;
        if self.slots[index].place == Place::Ended {
            let Ended { extra, .. } = self.slots.empty(index);
            return Ended { callback, extra };
        }
        self.slots[index].callback = callback;
        Ended { callback: Callback::EMPTY, extra: None }
    }

    /// How many slots there are, filled or not.
    pub(crate) fn len(&self) -> u32 {
        self.slots.len()
    }

    /// What stands in a slot, for `walk`.
    pub(crate) fn info(&self, index: u32) -> Option<Info> {
        let slot = &self.slots[index];
        (!matches!(slot.place, Place::Free | Place::Ended))
            .then(|| Info::new(slot.kind, self.slots.handle(index), slot.callback.source(), slot.when, slot.referenced))
    }

    /// Forgets every callback without dropping what it carries: a forked child runs no user code (S33).
    pub(crate) fn forget_all(&mut self) {
        for index in 0..self.slots.len() {
            std::mem::forget(self.end_at(index));
        }
    }

    fn find_timer(&self, handle: Handle) -> Result<u32> {
        let index = self.slots.find(handle)?;
        if self.slots[index].kind.is_timer() { Ok(index) } else { Err(Error::NOT_A_TIMER) }
    }

    #[inline]
    fn reserve_ready(&mut self) -> Result<()> {
        let Schedule { slots, ready, .. } = self;
        ready.reserve(|slot| slots.is_live(slot))
    }

    fn reserve_timers(&mut self) -> Result<()> {
        let Schedule { slots, timers, .. } = self;
        timers.reserve(|slot| slots.is_live(slot))
    }

    /// Puts a slot that is in no queue into the ready queue, which has room.
    #[inline]
    fn make_ready(&mut self, index: u32) {
        let slot = self.slots.restamp(index);
        self.slots[index].place = Place::Ready;
        self.ready.push(slot);
    }

    /// Puts a slot that is in no queue into the timer queue, which has room. A deadline of NEVER stays outside (S4).
    fn queue_timer(&mut self, index: u32) {
        let when = self.slots[index].when;
        let slot = self.slots.restamp(index);
        if when == u64::MAX {
            self.slots[index].place = Place::Aside;
        } else {
            self.slots[index].place = Place::Timers;
            self.timers.insert(when, slot);
        }
    }

    /// Tells the queue that holds a slot that its reference is dead; the stamp makes it so.
    fn unqueue(&mut self, index: u32) {
        match self.slots[index].place {
            Place::Ready => self.ready.died(),
            Place::Timers => self.timers.died(),
            Place::Hooks => self.dead_hooks += 1,
            Place::Free | Place::Aside | Place::Ended => {}
        }
        self.slots.restamp(index);
    }

    /// Queues the next call of a repeating timer: in phase, and after now (S16).
    fn rearm(&mut self, index: u32) {
        let slot = &mut self.slots[index];
        if let Some(extra) = &mut slot.extra {
            let missed = self.collected_at.saturating_sub(slot.when) / extra.period;
            extra.skipped += missed;
            self.metrics.timers_skipped += missed;
            slot.when = slot.when.saturating_add(extra.period.saturating_mul(missed.saturating_add(1)));
        }
        self.queue_timer(index);
    }

    /// Takes the callback of a repeating timer or a hook out of its slot for the time it runs.
    fn borrow_out(&mut self, index: u32) -> Call {
        self.on_stack = Some(index);
        let handle = self.slots.handle(index);
        let slot = &mut self.slots[index];
        let stand_in = slot.callback.stand_in();
        let callback = std::mem::replace(&mut slot.callback, stand_in);
        Call { callback, handle, kind: slot.kind, index, extra: None }
    }
}
