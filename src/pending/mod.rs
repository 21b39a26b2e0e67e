//! What is pending on a loop: the slots, and the queues that refer to them.
//!
//! Everything here is data. It runs no user code and knows no ring and no clock: a callback that is to run, or to be
//! dropped, is handed out, so that the loop can do it with no borrow held. Nothing changes when memory is refused.

#[allow(unsafe_code)]
pub(crate) mod callback;
mod children;
#[allow(unsafe_code)]
pub(crate) mod driver;
pub(crate) mod event;
mod hooks;
mod operations;
mod posts;
pub(crate) mod ready;
pub(crate) mod slots;
mod tasks;
pub(crate) mod timers;
mod watches;

use std::collections::HashMap;

use libc::c_int;

use self::callback::Callback;
use self::event::Event;
use crate::abi::handle::{Handle, Kind};
use crate::error::{Error, Result};
use crate::observe::inspect::Info;
use crate::observe::metrics::Metrics;
use crate::pending::ready::ReadyQueue;
use crate::pending::slots::{Held, Liveness, Location, SlotRef, Slots};
use crate::pending::timers::Timers;
use crate::sys::signals::Registration;
use crate::threads::inbox::Posts;

pub(crate) use self::children::Child;
use self::children::Children;
pub(crate) use self::operations::DeferredSubmission;
use self::operations::Operations;
use self::watches::Watches;

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
pub(crate) struct Schedule<L: 'static> {
    slots: Slots<L>,
    ready: ReadyQueue,
    /// The posts of other threads that are ready, in the order of their turns.
    posts: Posts,
    timers: Timers,
    operations: Operations,
    watches: Watches,
    children: Children,
    hooks: [Vec<Handle>; 2],
    dead_hooks: usize,
    /// The signal handlers, the oldest first.
    signals: Vec<(c_int, Handle)>,
    /// What few slots have and the others do not pay for, by the slot's index.
    extras: HashMap<u32, Extra<L>, IndexHash>,
    /// How many slots count for `run` (S19).
    referenced: usize,
    /// The one of those that stay in their slots whose callback is on the stack, and so not in its slot.
    on_stack: Option<u32>,
    /// The first and the last of those that have ended and wait in their slots for their release; `when` is the next one.
    deferred: Option<(u32, u32)>,
    /// The clock when due timers were last collected: what a repeating timer is late by is counted from here.
    collected_at: u64,
    pub(crate) metrics: Metrics,
}

/// How everything ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Operations are asked to.
    Ask,
    /// They will see no result any more. What the kernel may still use is never freed.
    Now,
}

/// What came of cancelling.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cancelled {
    /// It has ended: its callback will not run again.
    Gone,
    /// It is an operation, which the kernel has been asked to end: its final callback is still to come (S13).
    Asked,
}

/// A callback that is to run now.
#[derive(Debug)]
pub(crate) struct Call<L: 'static> {
    pub(crate) callback: Callback<L>,
    /// None for a post.
    pub(crate) handle: Option<Handle>,
    pub(crate) kind: Kind,
    /// The deadline of a timer.
    pub(crate) due: Option<u64>,
    index: u32,
    release: Option<Callback<L>>,
    /// Whether it goes back to its slot afterwards.
    stays: bool,
    /// What it is called for.
    pub(crate) event: Event,
}

/// What a repeating timer, a signal handler, a child watcher, or anything with a release hook has beside its slot.
#[derive(Debug)]
struct Extra<L: 'static> {
    signal: Option<Registration>,
    child: Option<Child>,
    /// Zero unless it repeats.
    period: u64,
    skipped: u64,
    release: Option<Callback<L>>,
}

impl<L: 'static> Default for Extra<L> {
    fn default() -> Extra<L> {
        Extra { signal: None, child: None, period: 0, skipped: 0, release: None }
    }
}

/// Hashes a slot's index: one multiplication spreads it well enough.
#[derive(Clone, Copy, Default, Debug)]
struct IndexHasher(u64);

type IndexHash = std::hash::BuildHasherDefault<IndexHasher>;

impl std::hash::Hasher for IndexHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(byte.into()));
    }

    fn write_u32(&mut self, index: u32) {
        self.0 = (self.0 ^ u64::from(index)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl<L: 'static> Schedule<L> {
    /// An empty schedule: `seed` is for the slots, `now` for the timers.
    pub(crate) fn new(seed: u64, now: u64) -> Schedule<L> {
        Schedule {
            slots: Slots::new(seed),
            ready: ReadyQueue::default(),
            posts: Posts::NONE,
            timers: Timers::new(now),
            operations: Operations::default(),
            watches: Watches::default(),
            children: Children::default(),
            hooks: [Vec::new(), Vec::new()],
            dead_hooks: 0,
            signals: Vec::new(),
            extras: HashMap::default(),
            referenced: 0,
            on_stack: None,
            deferred: None,
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
    #[inline(always)]
    pub(crate) fn call_soon(&mut self, callback: Callback<L>) -> Handle {
        let slot = self.slots.fill(Kind::Call, Location::Ready, u64::MAX, callback);
        self.referenced += 1;
        self.ready.push(slot);
        self.slots.handle(slot.index)
    }

    /// Makes sure that the next `call_at` needs no memory.
    #[inline]
    pub(crate) fn reserve_timer(&mut self, when: u64) -> Result<()> {
        self.slots.reserve()?;
        self.reserve_ready()?;
        self.reserve_timers(when)
    }

    /// Queues a timer that runs once.
    #[inline(always)]
    pub(crate) fn call_at(&mut self, when: u64, callback: Callback<L>) -> Handle {
        self.add_timer(Kind::Timer, when, callback)
    }

    /// Makes sure that the next `call_every` needs no memory.
    pub(crate) fn reserve_repeating_timer(&mut self, first: u64) -> Result<()> {
        self.extras.try_reserve(1)?;
        self.reserve_timer(first)
    }

    /// Queues a timer that repeats.
    pub(crate) fn call_every(&mut self, first: u64, period: u64, callback: Callback<L>) -> Handle {
        let handle = self.add_timer(Kind::Repeat, first, callback);
        self.slots[handle.index()].set_has_extra(true);
        self.extras.insert(handle.index(), Extra { period, ..Extra::default() });
        handle
    }

    #[inline(always)]
    fn add_timer(&mut self, kind: Kind, when: u64, callback: Callback<L>) -> Handle {
        let slot = self.slots.fill(kind, location_of_timer(when), when, callback);
        self.referenced += 1;
        if when != u64::MAX {
            self.timers.insert(when, slot);
        }
        self.slots.handle(slot.index)
    }

    /// Ends what a handle names, if it is a call or a timer that leaves nothing to be dropped; else false, and nothing has changed.
    #[inline]
    pub(crate) fn cancel_plain(&mut self, handle: Handle) -> Result<bool> {
        let index = self.slots.find(handle)?;
        let is_plain = self.slots[index].is_plain_data();
        if is_plain {
            debug_assert!(!self.slots.callback(index).needs_drop());
            self.leave(index);
            self.slots.discard(index);
        }
        Ok(is_plain)
    }

    /// Ends what a handle names, or asks an operation to end. What it held is handed out if it has to be dropped, and unless its
    /// callback is on the stack: `finished` does it then.
    pub(crate) fn cancel(&mut self, handle: Handle) -> Result<(Kind, Cancelled, Option<Held<L>>)> {
        let index = self.slots.find(handle)?;
        let kind = self.slots[index].kind();
        let (cancelled, held) = self.end(index);
        Ok((kind, cancelled, held))
    }

    /// As `cancel`; but what would be handed out stays in its slot until `next_deferred` hands it out. Allocates nothing.
    pub(crate) fn cancel_deferred(&mut self, handle: Handle) -> Result<Cancelled> {
        let index = self.slots.find(handle)?;
        let cancelled = self.detach(index);
        if cancelled == Cancelled::Gone && self.on_stack != Some(index) {
            self.slots[index].set_when(u64::MAX);
            match self.deferred {
                Some((_, last)) => self.slots[last].set_when(index.into()),
                None => self.deferred = Some((index, index)),
            }
            self.deferred = self.deferred.map(|(first, _)| (first, index));
        }
        Ok(cancelled)
    }

    /// Hands out what `cancel_deferred` has ended, the oldest first.
    pub(crate) fn next_deferred(&mut self) -> Option<Held<L>> {
        let (first, last) = self.deferred?;
        self.deferred = (first != last).then(|| (self.slots[first].when() as u32, last));
        Some(self.empty(first))
    }

    /// Whether anything that has not ended stands in a slot.
    #[inline]
    pub(crate) fn is_filled(&self, index: u32) -> bool {
        self.slots[index].is_filled()
    }

    /// Ends what stands in a slot that is filled.
    pub(crate) fn end_at(&mut self, index: u32, end: End) -> Option<Held<L>> {
        match (self.slots[index].kind(), end) {
            (kind, End::Now) if kind.is_operation() => self.end_operation(index),
            _ => self.end(index).1,
        }
    }

    #[cold]
    fn end(&mut self, index: u32) -> (Cancelled, Option<Held<L>>) {
        let cancelled = self.detach(index);
        let is_there = cancelled == Cancelled::Gone && self.on_stack != Some(index);
        (cancelled, is_there.then(|| self.empty(index)))
    }

    /// Ends what stands in a slot, or asks an operation to end. What it held is still there, and its handle is stale.
    fn detach(&mut self, index: u32) -> Cancelled {
        if self.slots[index].kind().is_operation() {
            self.ask_to_end(index);
            return Cancelled::Asked;
        }
        self.leave(index);
        match self.slots[index].kind() {
            Kind::Signal => self.leave_signal(index),
            Kind::Watch => self.leave_watch(index),
            Kind::Child => self.leave_child(index),
            _ => {}
        }
        self.slots.end_later(index);
        Cancelled::Gone
    }

    /// What ends leaves its queue, and does not count any more.
    #[inline(always)]
    fn leave(&mut self, index: u32) {
        self.unqueue(index);
        let slot = &self.slots[index];
        self.referenced -= usize::from(slot.is_referenced());
        self.metrics.timers_cancelled += u64::from(slot.is_timer());
    }

    /// Empties a slot that is in no queue.
    #[inline]
    fn empty(&mut self, index: u32) -> Held<L> {
        let release = if self.slots[index].has_extra() { self.remove_extra(index) } else { None };
        // The entry of a child in the kernel keeps the slot until its completion has come.
        let is_held = self.slots[index].kind() == Kind::Child && self.operations.is_in_kernel(index);
        let callback = if is_held { self.slots.keep_internally(index) } else { self.slots.empty(index) };
        Held { callback, release }
    }

    #[cold]
    fn remove_extra(&mut self, index: u32) -> Option<Callback<L>> {
        self.extras.remove(&index).and_then(|extra| extra.release)
    }

    /// Moves a timer to another deadline, behind those that have it already (S15).
    #[inline]
    pub(crate) fn reschedule(&mut self, handle: Handle, when: u64) -> Result<()> {
        let index = self.find_timer(handle)?;
        self.reserve_timers(when)?;
        self.unqueue(index);
        self.queue_timer(index, when);
        Ok(())
    }

    pub(crate) fn when(&self, handle: Handle) -> Result<u64> {
        Ok(self.slots[self.find_timer(handle)?].when())
    }

    pub(crate) fn skipped(&self, handle: Handle) -> Result<u64> {
        let index = self.find_timer(handle)?;
        Ok(self.extras.get(&index).map_or(0, |extra| extra.skipped))
    }

    pub(crate) fn is_pending(&self, handle: Handle) -> bool {
        self.slots.find(handle).is_ok()
    }

    pub(crate) fn set_referenced(&mut self, handle: Handle, referenced: bool) -> Result<()> {
        let index = self.slots.find(handle)?;
        let slot = &mut self.slots[index];
        if !slot.kind().can_be_referenced() {
            return Err(if slot.kind() == Kind::Hook { Error::HOOK_REFERENCE } else { Error::SIGNAL_REFERENCE });
        }
        self.referenced = self.referenced + usize::from(referenced) - usize::from(slot.is_referenced());
        slot.set_referenced(referenced);
        Ok(())
    }

    pub(crate) fn has_ref(&self, handle: Handle) -> bool {
        self.slots.find(handle).is_ok_and(|index| self.slots[index].is_referenced())
    }

    /// Makes sure that the next `on_release` for this handle needs no memory.
    pub(crate) fn reserve_release(&mut self, handle: Handle) -> Result<()> {
        self.slots.find(handle)?;
        Ok(self.extras.try_reserve(1)?)
    }

    /// Sets or removes the release hook of what a handle names; the former one is handed out.
    pub(crate) fn on_release(&mut self, handle: Handle, release: Option<Callback<L>>) -> Result<Option<Callback<L>>> {
        let index = self.slots.find(handle)?;
        self.slots[index].set_has_extra(true);
        let extra = self.extras.entry(index).or_default();
        Ok(std::mem::replace(&mut extra.release, release))
    }

    /// The callback that a handle names.
    #[cfg(feature = "capi")]
    pub(crate) fn source(&self, handle: Handle) -> Result<crate::abi::source::Source> {
        Ok(self.slots.callback(self.slots.find(handle)?).source())
    }

    /// Whether a callback stands in the ready queue.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How much counts for `run`.
    pub(crate) fn referenced(&self) -> usize {
        self.referenced
    }

    /// Whether anything counts for `run`.
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        self.referenced > 0
    }

    /// Whether the clock has to be read for timers: to see which are due, or what those are late by that a batch which was
    /// broken off has left.
    #[inline]
    pub(crate) fn has_timers(&self) -> bool {
        !self.timers.is_empty() || self.ready.has_rest()
    }

    /// A time that no deadline is before: the earliest one, or that of a timer that has been cancelled. O(1).
    #[inline]
    pub(crate) fn deadline_bound(&self) -> Option<u64> {
        self.timers.earliest_bound()
    }

    /// As `deadline_bound`, and seldom that of a timer that has been cancelled: for sleeping until then.
    pub(crate) fn wake_up_bound(&mut self) -> Option<u64> {
        let Schedule { slots, timers, .. } = self;
        timers.earliest_bound_cleaned(slots)
    }

    /// The clock as it was when due timers were last collected.
    #[inline]
    pub(crate) fn collected_at(&self) -> u64 {
        self.collected_at
    }

    /// Whether a timer is due at `now`. O(1) amortized.
    #[inline]
    pub(crate) fn is_due(&mut self, now: u64) -> bool {
        self.deadline_bound().is_some_and(|bound| bound <= now)
            && self.next_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// The earliest deadline of the timers that are not ready yet.
    pub(crate) fn next_deadline(&mut self) -> Option<u64> {
        let Schedule { slots, timers, .. } = self;
        timers.earliest(slots)
    }

    /// Appends every timer that is due to the ready queue, in the order of deadlines (S5 c). If the ready queue cannot grow,
    /// the rest waits for the next iteration: there is room for one at least.
    #[inline]
    pub(crate) fn collect_due(&mut self, now: u64) -> Result<()> {
        self.collected_at = now;
        loop {
            let Schedule { slots, timers, ready, .. } = self;
            if timers.earliest_bound().is_none_or(|bound| bound > now) {
                return Ok(());
            }
            if let Err(error) = ready.reserve(slots) {
                return if ready.is_empty() { Err(error) } else { Ok(()) };
            }
            let Some((when, slot)) = timers.pop_due(now, slots) else { return Ok(()) };
            if slots[slot.index].is_timer() {
                ready.push(slot);
                slots[slot.index].set_location(Location::Ready);
                self.metrics.became_ready(now - when);
            } else if slots[slot.index].is_task() {
                self.sleeper_is_due(slot, now - when);
            } else {
                self.deadline_came(slot.index);
            }
        }
    }

    #[inline]
    pub(crate) fn begin_batch(&mut self) {
        self.ready.begin_batch();
    }

    /// Takes the next reference out of the batch. What it refers to is then to be taken, too.
    #[inline(always)]
    pub(crate) fn next_in_batch(&mut self) -> Option<SlotRef> {
        let Schedule { slots, ready, .. } = self;
        if let Some(upcoming) = ready.upcoming() {
            slots.prefetch_all(upcoming);
        }
        ready.pop(slots)
    }

    /// Whether what is next runs once and has no release hook: then `take_plain` will do for `take_call`.
    #[inline]
    pub(crate) fn is_plain(&self, next: SlotRef) -> bool {
        self.slots.is_plain(next)
    }

    /// Ends what is next, which is plain, and hands its callback out.
    #[inline]
    pub(crate) fn take_plain(&mut self, next: SlotRef) -> (Handle, Callback<L>) {
        let slot = &self.slots[next.index];
        self.metrics.callbacks += 1;
        self.metrics.timers_fired += u64::from(slot.is_timer());
        self.referenced -= usize::from(slot.is_referenced());
        (self.slots.handle(next.index), self.slots.empty(next.index))
    }

    /// Hands out the callback of what is next, of any kind. When memory is refused, it stays next in the batch.
    pub(crate) fn take_call(&mut self, next: SlotRef) -> Result<Call<L>> {
        let index = next.index;
        let kind = self.slots[index].kind();
        if matches!(kind, Kind::Signal | Kind::Task) {
            self.metrics.callbacks += 1;
            self.slots[index].set_location(Location::Unqueued);
            let call = self.borrow_out(index);
            return Ok(match kind {
                Kind::Signal => Call { event: Event::Signal(self.signal_of(index)), ..call },
                _ => call,
            });
        }
        if kind == Kind::Watch {
            return Ok(self.take_watch(index));
        }
        if kind != Kind::Repeat {
            let due = self.due_of(index);
            if kind == Kind::Child {
                self.leave_child(index);
            }
            let release = self.remove_extra(index);
            let (handle, callback) = self.take_plain(next);
            return Ok(Call {
                callback,
                handle: Some(handle),
                kind,
                due,
                index,
                release,
                stays: false,
                event: Event::Turn,
            });
        }
        let due = self.due_of(index);
        let (when, missed) = self.next_call_of(index);
        if let Err(error) = self.reserve_timers(when) {
            self.ready.put_back(next);
            return Err(error);
        }
        self.metrics.callbacks += 1;
        self.metrics.timers_fired += 1;
        self.rearm(index, when, missed);
        Ok(Call { due, ..self.borrow_out(index) })
    }

    /// Takes back what a call leaves: a callback that repeats goes back to its slot, the rest is handed out.
    #[inline]
    pub(crate) fn finished(&mut self, call: Call<L>) -> Held<L> {
        let Call { callback, index, release, stays, event, .. } = call;
        if !stays {
            return Held { callback, release };
        }
        self.on_stack = None;
        if let Event::Completed(result) = event {
            self.result_seen(index, result);
        }
        if self.slots[index].location() == Location::Ended {
            let Held { release, .. } = self.empty(index);
            return Held { callback, release };
        }
        Held { callback: self.slots.replace_callback(index, callback), release: None }
    }

    /// How many slots there are, filled or not.
    pub(crate) fn len(&self) -> u32 {
        self.slots.len()
    }

    /// What stands in a slot, for `walk`.
    pub(crate) fn info(&self, index: u32) -> Option<Info> {
        let slot = &self.slots[index];
        let handle = self.slots.handle(index);
        let source = || self.slots.callback(index).source();
        let fd = || self.descriptor_of(index);
        // A watcher has its events there.
        let when = if slot.kind() == Kind::Watch { u64::MAX } else { slot.when() };
        slot.is_filled().then(|| Info::new(slot.kind(), handle, source(), when, slot.is_referenced(), fd()))
    }

    /// Forgets every callback without dropping what it carries: a forked child runs no user code (S33). Tells whether there were tasks,
    /// which then neither end nor go.
    pub(crate) fn forget_all(&mut self) -> bool {
        let has_tasks =
            (0..self.slots.len()).any(|at| self.slots[at].is_task() && self.slots[at].location() != Location::Free);
        for (_, extra) in self.extras.drain() {
            std::mem::forget((extra.release, extra.child));
        }
        for index in 0..self.slots.len() {
            if self.is_filled(index) {
                std::mem::forget(self.end_at(index, End::Now));
            }
            // That of a task which was being polled is in its slot still.
            std::mem::forget(self.slots.replace_callback(index, Callback::EMPTY));
        }
        has_tasks
    }

    #[inline]
    fn find_timer(&self, handle: Handle) -> Result<u32> {
        let index = self.slots.find(handle)?;
        if self.slots[index].is_timer() { Ok(index) } else { Err(Error::NOT_A_TIMER) }
    }

    #[inline]
    fn reserve_ready(&mut self) -> Result<()> {
        let Schedule { slots, ready, .. } = self;
        ready.reserve(slots)
    }

    #[inline]
    fn reserve_timers(&mut self, when: u64) -> Result<()> {
        let Schedule { slots, timers, .. } = self;
        timers.reserve(when, slots)
    }

    /// Puts a slot that is in no queue into the timer queue, which has room.
    #[inline]
    fn queue_timer(&mut self, index: u32, when: u64) {
        let slot = &mut self.slots[index];
        slot.set_when(when);
        slot.set_location(location_of_timer(when));
        if when != u64::MAX {
            self.timers.insert(when, self.slots.reference(index));
        }
    }

    /// Takes a slot out of its queue: tells the queue that its reference is dead, and makes it so.
    #[inline]
    fn unqueue(&mut self, index: u32) {
        if self.slots[index].location() == Location::Timers {
            self.timers.note_cancelled();
        } else if !self.leave_queues(index) {
            return;
        }
        if !self.slots.restamp(index) {
            self.sweep_for(index, None);
        }
    }

    /// As `unqueue`, for what is no timer; false if it is in no queue that has a reference to it.
    fn leave_queues(&mut self, index: u32) -> bool {
        let is_asleep = self.is_asleep_at(index);
        if is_asleep {
            self.timers.note_cancelled();
        }
        match self.slots[index].location() {
            Location::Ready => self.ready.note_cancelled(),
            // Hooks are known by their handles.
            Location::Hooks => self.dead_hooks += 1,
            _ => return is_asleep,
        }
        self.slots[index].location() == Location::Ready
    }

    /// Rids the queues of all that is dead, when the stamps of a slot have come round. It is in no queue; but a reference in the ready
    /// queue may be left, for the caller to replace.
    #[cold]
    fn sweep_for(&mut self, index: u32, left: Option<SlotRef>) {
        let Schedule { slots, ready, timers, .. } = self;
        let is_live = |slot: SlotRef| slot.index != index && slots.is_live(slot);
        ready.sweep(&|slot: SlotRef| Some(slot) == left || is_live(slot));
        timers.sweep(&is_live);
    }

    /// The deadline of what is in a slot, if it has one.
    fn due_of(&self, index: u32) -> Option<u64> {
        let slot = &self.slots[index];
        slot.is_timer().then(|| slot.when())
    }

    /// When a repeating timer is due next, in phase and after now, and how many calls are left out for that (S16).
    fn next_call_of(&self, index: u32) -> (u64, u64) {
        let when = self.slots[index].when();
        let period = self.extras.get(&index).map_or(u64::MAX, |extra| extra.period);
        let missed = self.collected_at.saturating_sub(when) / period;
        (when.saturating_add(period.saturating_mul(missed.saturating_add(1))), missed)
    }

    /// Queues the next call of a repeating timer.
    fn rearm(&mut self, index: u32, when: u64, missed: u64) {
        if let Some(extra) = self.extras.get_mut(&index) {
            extra.skipped = extra.skipped.saturating_add(missed);
        }
        self.metrics.timers_skipped = self.metrics.timers_skipped.saturating_add(missed);
        self.queue_timer(index, when);
    }

    /// Takes the callback of what stays in its slot out for the time it runs.
    fn borrow_out(&mut self, index: u32) -> Call<L> {
        self.on_stack = Some(index);
        let handle = Some(self.slots.handle(index));
        let stand_in = self.slots.callback(index).stand_in();
        let callback = self.slots.replace_callback(index, stand_in);
        Call {
            callback,
            handle,
            kind: self.slots[index].kind(),
            due: None,
            index,
            release: None,
            stays: true,
            event: Event::Turn,
        }
    }
}

/// Where a timer stands: a deadline of NEVER stays outside of the queue (S4).
#[inline]
fn location_of_timer(when: u64) -> Location {
    if when == u64::MAX { Location::Unqueued } else { Location::Timers }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(schedule: &mut Schedule<()>, when: u64) -> Handle {
        schedule.reserve_timer(when).unwrap();
        schedule.call_at(when, Callback::EMPTY)
    }

    #[test]
    fn s10_a_dead_reference_stays_dead_when_the_stamps_come_round() {
        let mut schedule = Schedule::<()>::new(0, 0);
        let first = timer(&mut schedule, 1000);
        drop(schedule.cancel(first).unwrap());
        schedule.slots.use_up_stamps(0);
        let last = timer(&mut schedule, 2000);
        drop(schedule.cancel(last).unwrap());
        // Now in the same slot, with the stamp that the first one had.
        let other = timer(&mut schedule, 3000);
        schedule.collect_due(1500).unwrap();
        assert!(!schedule.is_ready(), "the timer ran at the deadline of one that had been cancelled");
        schedule.collect_due(3000).unwrap();
        assert!(schedule.is_ready() && schedule.is_pending(other));
    }

    #[test]
    fn s13_a_second_deadline_undoes_no_first_one() {
        let mut schedule = Schedule::<()>::new(0, 0);
        schedule.reserve_operations(1).unwrap();
        let handle = schedule.add_operation(&crate::abi::sqe::Sqe::default(), None, Callback::EMPTY);
        for now in [1000, 2000] {
            schedule.set_deadline(handle, now).unwrap();
            schedule.collect_due(now).unwrap();
        }
        schedule.reserve_completions(1).unwrap();
        let number = handle.as_raw() as u64;
        schedule.completed(crate::kernel::uring::Completed { number, result: -libc::ECANCELED, flags: 0 });
        let Event::Completed(given) = schedule.take_result().unwrap().event else { panic!("it is an operation") };
        assert_eq!((given.result, given.flags), (-libc::ETIMEDOUT, event::TIMED_OUT));
    }

    #[test]
    fn s06_a_task_that_sleeps_no_more_keeps_its_turn_when_the_stamps_come_round() {
        let mut schedule = Schedule::<()>::new(0, 0);
        let mut task = || {
            schedule.reserve_task().unwrap();
            schedule.add_task(Callback::EMPTY)
        };
        let (first, second) = (task(), task());
        assert_eq!(schedule.sleep_until(first, 1000), Ok(true));
        // As if it had been asleep and ready in all of its stamps.
        let former = schedule.slots.reference(first.index());
        schedule.slots.use_up_stamps(first.index());
        schedule.ready.replace(former, schedule.slots.reference(first.index()));
        schedule.begin_batch();
        schedule.stop_sleeping(first);
        let turns = [(); 3].map(|()| schedule.next_in_batch().map(|slot| slot.index));
        assert_eq!(turns, [Some(first.index()), Some(second.index()), None]);
        schedule.collect_due(2000).unwrap();
        assert!(!schedule.is_ready() && !schedule.has_timers());
    }
}
