//! Hooks, which run in every iteration: a list of handles for each point, from which the dead are
//! swept between rounds.

use super::{Call, HookPoint, Schedule};
use crate::abi::handle::{Handle, Kind};
use crate::error::Result;
use crate::pending::callback::Callback;
use crate::pending::event::Event;
use crate::pending::slots::Location;

impl<L: 'static> Schedule<L> {
    /// Makes sure that the next `add_hook` needs no memory.
    pub(crate) fn reserve_hook(&mut self, point: HookPoint) -> Result<()> {
        self.slots.reserve()?;
        Ok(self.hooks[point as usize - 1].try_reserve(1)?)
    }

    pub(crate) fn add_hook(&mut self, point: HookPoint, callback: Callback<L>) -> Handle {
        let slot = self.slots.fill(Kind::Hook, Location::Hooks, u64::MAX, callback);
        let handle = self.slots.handle(slot.index);
        self.hooks[point as usize - 1].push(handle);
        handle
    }

    /// Whether there are hooks to run.
    #[inline]
    pub(crate) fn has_hooks(&self) -> bool {
        self.hooks.iter().any(|list| !list.is_empty())
    }

    /// Begins a round of hooks and tells how many there are.
    pub(crate) fn begin_hooks(&mut self, point: HookPoint) -> usize {
        self.sweep_hooks();
        self.hooks[point as usize - 1].len()
    }

    /// Drops the dead hooks if they are many. Not during a round, which counts them.
    pub(crate) fn sweep_many_hooks(&mut self) {
        if self.dead_hooks > 64 {
            self.sweep_hooks();
        }
    }

    fn sweep_hooks(&mut self) {
        let Schedule { slots, hooks, .. } = self;
        if self.dead_hooks > 0 {
            hooks.iter_mut().for_each(|list| list.retain(|&handle| slots.find(handle).is_ok()));
            self.dead_hooks = 0;
        }
    }

    /// One hook of the round, if it has not been cancelled since the round began.
    pub(crate) fn hook_call(&mut self, point: HookPoint, at: usize) -> Option<Call<L>> {
        let index = self.slots.find(self.hooks[point as usize - 1][at]).ok()?;
        Some(self.borrow_out(index, Event::Turn))
    }
}
