//! The rings of buffers of a loop, from which the kernel picks.

use super::Loop;
use crate::error::{Error, Result};
use crate::kernel::buffers::Pool;
use crate::sys::memory::TryArc;

impl Loop {
    pub(crate) fn new_pool(&self, count: u32, size: u32) -> Result<TryArc<Pool>> {
        self.check_open()?;
        let mut pools = self.pools.borrow_mut();
        let place = pools.iter().position(Option::is_none).unwrap_or(pools.len());
        // Numbers that a program seldom uses for groups of its own.
        let group = u16::try_from(place)
            .ok()
            .and_then(|place| place.checked_add(0x8000))
            .ok_or(Error::NO_MEMORY)?;
        if place == pools.len() {
            pools.try_reserve(1)?;
            pools.push(None);
        }
        let owner = std::ptr::from_ref(self).cast();
        let pool = Pool::new(count, size, &self.kernel.borrow(), group, owner)?;
        let pool = TryArc::new_or_back(pool).map_err(|pool| {
            // Nothing has used them; a place that is taken would refuse the next.
            let _ = pool.unregister(&self.kernel.borrow());
            Error::NO_MEMORY
        })?;
        pools[place] = Some(pool.clone());
        Ok(pool)
    }

    pub(crate) fn free_pool(&self, pool: &TryArc<Pool>) -> Result<()> {
        self.check()?;
        let mut pools = self.pools.borrow_mut();
        let is_it = |other: &&mut Option<TryArc<Pool>>| {
            other.as_ref().is_some_and(|other| TryArc::is_same(other, pool))
        };
        let place = pools.iter_mut().find(is_it).ok_or(Error::FOREIGN_BUFFERS)?;
        if !pool.is_idle() {
            return Err(Error::BUFFERS_IN_USE);
        }
        pool.unregister(&self.kernel.borrow())?;
        *place = None;
        Ok(())
    }

    /// Gives back a part of a buffer that was kept. Operations that wait for a buffer go on.
    #[cfg(feature = "capi")]
    pub(crate) fn return_part(&self, pool: &Pool, data: *const u8) -> Result<()> {
        self.check()?;
        pool.give_back(data)?;
        self.schedule.borrow_mut().note_resumable(pool.may_resume());
        Ok(())
    }

    pub(crate) fn has_pool(&self, pool: &TryArc<Pool>) -> bool {
        self.pools.borrow().iter().flatten().any(|other| TryArc::is_same(other, pool))
    }
}
