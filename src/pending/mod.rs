//! The pending entries of a loop: the slots, and the queues that refer to them.
//!
//! This room is only data. It runs no user code and uses no ring and no clock. It hands out a
//! callback that is to run or to be dropped, so that the loop can do so with no borrow held. The
//! loop returns each call before it takes the next one.
//!
//! Adding takes two steps: after `reserve_...`, the next matching call needs no memory, and neither
//! does the further life of the entry. When memory is refused, nothing changes.

#[allow(unsafe_code)]
pub(crate) mod callback;
#[allow(unsafe_code)]
pub(crate) mod chain;
mod children;
mod deadlines;
pub(crate) mod driver;
mod ending;
pub(crate) mod event;
mod gap;
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
pub(crate) use self::deadlines::WakeUp;
pub(crate) use self::ending::{Cancelled, End};
use self::gap::Gap;
pub(crate) use self::operations::DeferredSubmission;
use self::operations::Operations;
use self::posts::Posts;
pub(crate) use self::turns::Call;
use self::watches::Watches;

/// The point in an iteration at which a hook runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum HookPoint {
    /// Before the loop submits and waits.
    BeforeWait = 1,
    /// After the loop has collected ready callbacks, before it runs them.
    AfterWait = 2,
}

/// Everything that is pending on a loop.
#[derive(Debug)]
pub(crate) struct Schedule<L: 'static> {
    slots: Slots<L>,
    ready: ReadyQueue,
    /// The ready posts of other threads, in the order of their turns.
    posts: Posts<L>,
    /// Posts that arrived while memory was refused.
    incoming: Posts<L>,
    timers: Timers,
    gap: Gap,
    operations: Operations,
    watches: Watches,
    children: Children,
    hooks: [Vec<Handle>; 2],
    dead_hooks: usize,
    /// The signal handlers, the oldest first.
    signals: Vec<(c_int, Handle)>,
    /// Data that only few slots have, by the slot's index.
    extras: HashMap<u32, Extra<L>, IndexHash>,
    /// The number of slots and posts that count for `run` (S19).
    referenced: usize,
    /// The slot whose callback is on the stack, if the entry stays in its slot.
    on_stack: Option<u32>,
    /// The first and the last ended slot that waits for its release; `when` links to the next one.
    deferred: Option<(u32, u32)>,
    /// The clock when due timers were last collected; the lateness of a repeating timer counts from
    /// it.
    collected_at: u64,
    pub(crate) metrics: Metrics,
}

/// The data of a repeating timer, a signal handler, a child watcher or a release hook beside its
/// slot.
#[derive(Debug)]
struct Extra<L: 'static> {
    signal: Option<Registration>,
    child: Option<Child>,
    /// Zero unless the timer repeats.
    period: u64,
    skipped: u64,
    release: Option<Callback<L>>,
}

impl<L: 'static> Default for Extra<L> {
    fn default() -> Extra<L> {
        Extra { signal: None, child: None, period: 0, skipped: 0, release: None }
    }
}

/// Hashes a slot's index with one multiplication, which spreads it well enough.
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
            gap: Gap::new(),
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

    /// Reserves for `call_soon` and `add_task`.
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

    /// Whether a slot has an entry that has not ended.
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

    /// Sets or removes the release hook of an entry; hands out the former one.
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

    /// Adds an `Extra` to a slot. Needs reserved space.
    fn add_extra(&mut self, index: u32, extra: Extra<L>) {
        self.slots[index].note_extra();
        self.extras.insert(index, extra);
    }

    #[cfg(feature = "capi")]
    pub(crate) fn source(&self, handle: Handle) -> Result<crate::abi::source::Source> {
        Ok(self.slots.callback(self.slots.find(handle)?).source())
    }

    /// The number of slots and posts that count for `run`.
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
        // `when` of a watcher holds its events.
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

    /// Reserves for `wake_task` and other additions to the ready queue.
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
        // In the same slot now, with the first one's stamp.
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
        // As if the task had used all of its stamps while asleep and ready.
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
