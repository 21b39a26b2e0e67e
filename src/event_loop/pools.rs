//! The rings of buffers of a loop, from which the kernel picks.

use super::Loop;
use crate::error::Result;
use crate::kernel::buffers::Pool;
use crate::sys::memory::TryArc;

impl Loop {
    pub(crate) fn new_pool(&self, count: u32, size: u32) -> Result<TryArc<Pool>> {
        self.check_open()?;
        self.kernel.borrow_mut().new_pool(count, size, std::ptr::from_ref(self).cast())
    }

    pub(crate) fn free_pool(&self, pool: &TryArc<Pool>) -> Result<()> {
        self.check()?;
        self.kernel.borrow_mut().free_pool(pool)
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
        self.kernel.borrow().pools().any(|other| TryArc::is_same(other, pool))
    }
}
