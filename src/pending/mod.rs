//! What is pending on a loop: the slots, and the queues that refer to them.
//!
//! Everything here is data. It runs no user code and knows no ring and no clock: a callback that is
//! to run, or to be dropped, is handed out, so that the loop can do it with no borrow held. The
//! loop gives back what a call leaves before it takes the next one.
//!
//! What adds something comes in two steps: after `reserve_...`, the next such call needs no memory,
//! nor whatever becomes of what it adds. Nothing changes when memory is refused.

#[allow(unsafe_code)]
pub(crate) mod callback;
#[allow(unsafe_code)]
pub(crate) mod chain;
mod children;
mod deadlines;
pub(crate) mod driver;
mod ending;
pub(crate) mod event;
mod hooks;
mod operations;
#[allow(unsafe_code)]
pub(crate) mod post_box;
#[allow(unsafe_code)]
pub(crate) mod posts;
pub(crate) mod ready;
pub(crate) mod slots;
mod tasks;
pub(crate) mod timers;
mod turns;
mod watches;

use std::collections::HashMap;

use libc::c_int;

use self::callback::Callback;
use crate::abi::handle::{Handle, Kind};
use crate::error::{Error, Result};
use crate::observe::inspect::Info;
use crate::observe::metrics::Metrics;
use crate::pending::ready::ReadyQueue;
use crate::pending::slots::{Location, Slots};
use crate::pending::timers::Timers;
use crate::sys::signals::Registration;
use crate::time::Time;

pub(crate) use self::children::Child;
use self::children::Children;
pub(crate) use self::ending::{Cancelled, End};
pub(crate) use self::operations::DeferredSubmission;
use self::operations::Operations;
use self::posts::Posts;
pub(crate) use self::turns::Call;
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
    posts: Posts<L>,
    /// Those that have come, and that there was no memory for.
    incoming: Posts<L>,
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
    /// The one of those that stay in their slots whose callback is on the stack, and so not in its
    /// slot.
    on_stack: Option<u32>,
    /// The first and the last of those that have ended and wait in their slots for their release;
    /// `when` is the next one.
    deferred: Option<(u32, u32)>,
    /// The clock when due timers were last collected: what a repeating timer is late by is counted
    /// from here.
    collected_at: u64,
    pub(crate) metrics: Metrics,
}

/// What a repeating timer, a signal handler, a child watcher, or anything with a release hook has
/// beside its slot.
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
    /// `seed` is for the slots, `now` for the timers.
    pub(crate) fn new(seed: u64, now: u64) -> Schedule<L> {
        Schedule {
            slots: Slots::new(seed),
            ready: ReadyQueue::default(),
            posts: Posts::NONE,
            incoming: Posts::NONE,
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

    /// For `call_soon` and `add_task`.
    #[inline]
    pub(crate) fn reserve_call(&mut self) -> Result<()> {
        self.slots.reserve()?;
        self.reserve_ready()
    }

    #[inline(always)]
    pub(crate) fn call_soon(&mut self, callback: Callback<L>) -> Handle {
        let slot = self.slots.fill(Kind::Call, Location::Ready, u64::MAX, callback);
        self.referenced += 1;
        self.ready.push(slot);
        self.slots.handle(slot.index)
    }

    /// Whether anything that has not ended stands in a slot.
    #[inline]
    pub(crate) fn is_filled(&self, index: u32) -> bool {
        self.slots[index].is_filled()
    }

    pub(crate) fn is_pending(&self, handle: Handle) -> bool {
        self.slots.find(handle).is_ok()
    }

    pub(crate) fn set_referenced(&mut self, handle: Handle, referenced: bool) -> Result<()> {
        let index = self.slots.find(handle)?;
        let slot = &mut self.slots[index];
        if !slot.kind().can_be_referenced() {
            return Err(if slot.kind() == Kind::Hook {
                Error::HOOK_REFERENCE
            } else {
                Error::SIGNAL_REFERENCE
            });
        }
        self.referenced =
            self.referenced + usize::from(referenced) - usize::from(slot.is_referenced());
        slot.set_referenced(referenced);
        Ok(())
    }

    pub(crate) fn has_ref(&self, handle: Handle) -> bool {
        self.slots.find(handle).is_ok_and(|index| self.slots[index].is_referenced())
    }

    pub(crate) fn reserve_release(&mut self, handle: Handle) -> Result<()> {
        self.slots.find(handle)?;
        Ok(self.extras.try_reserve(1)?)
    }

    /// Sets or removes the release hook of what a handle names; the former one is handed out.
    pub(crate) fn on_release(
        &mut self,
        handle: Handle,
        release: Option<Callback<L>>,
    ) -> Result<Option<Callback<L>>> {
        let index = self.slots.find(handle)?;
        self.slots[index].note_extra();
        let extra = self.extras.entry(index).or_default();
        Ok(std::mem::replace(&mut extra.release, release))
    }

    /// Puts something beside a slot. There is room for it.
    fn add_extra(&mut self, index: u32, extra: Extra<L>) {
        self.slots[index].note_extra();
        self.extras.insert(index, extra);
    }

    #[cfg(feature = "capi")]
    pub(crate) fn source(&self, handle: Handle) -> Result<crate::abi::source::Source> {
        Ok(self.slots.callback(self.slots.find(handle)?).source())
    }

    /// How many slots and posts count for `run`.
    pub(crate) fn referenced(&self) -> usize {
        self.referenced
    }

    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        self.referenced > 0
    }

    pub(crate) fn len(&self) -> u32 {
        self.slots.len()
    }

    pub(crate) fn info(&self, index: u32) -> Option<Info> {
        let slot = &self.slots[index];
        let handle = self.slots.handle(index);
        // A watcher has its events there.
        let when = if slot.kind() == Kind::Watch { u64::MAX } else { slot.when() };
        slot.is_filled().then(|| Info {
            kind: slot.kind(),
            handle,
            source: self.slots.callback(index).source(),
            when: Time::from_nanos(when),
            referenced: slot.is_referenced(),
            fd: self.descriptor_of(index),
        })
    }

    /// For `wake_task`, and whatever else takes a place in the ready queue.
    #[inline]
    pub(crate) fn reserve_ready(&mut self) -> Result<()> {
        let Schedule { slots, ready, .. } = self;
        ready.reserve(slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::completion::{Completed, TIMED_OUT};
    use crate::abi::sqe::Sqe;

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
        assert!(!schedule.is_ready(), "it ran at the deadline of one that had been cancelled");
        schedule.collect_due(3000).unwrap();
        assert!(schedule.is_ready() && schedule.is_pending(other));
    }

    #[test]
    fn s13_a_second_deadline_undoes_no_first_one() {
        let mut schedule = Schedule::<()>::new(0, 0);
        schedule.reserve_operations(1).unwrap();
        let handle = schedule.add_operation(&Sqe::default(), None, Callback::EMPTY);
        for now in [1000, 2000] {
            schedule.set_deadline(handle, now).unwrap();
            schedule.collect_due(now).unwrap();
        }
        schedule.reserve_completions(1).unwrap();
        let number = handle.as_raw() as u64;
        schedule.completed(Completed { number, result: -libc::ECANCELED, flags: 0 });
        let given = schedule.take_result().unwrap().event.completed();
        assert_eq!((given.result, given.flags), (-libc::ETIMEDOUT, TIMED_OUT));
    }

    #[test]
    fn s06_a_task_that_sleeps_no_more_keeps_its_turn_when_the_stamps_come_round() {
        let mut schedule = Schedule::<()>::new(0, 0);
        let mut task = || {
            schedule.reserve_call().unwrap();
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
