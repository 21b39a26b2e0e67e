//! Metrics and `walk`: a loop's counters, and one `Info` for each pending thing.
//!
//! `walk` shows everything that was pending when it began and still is. It holds no borrow while
//! the caller's function runs, and promises no order.

use crate::error::Result;
use crate::event_loop::{Loop, UserCode};
use crate::observe::inspect::Info;
use crate::observe::metrics::Metrics;

impl Loop {
    /// The counters since the loop was made (S35).
    pub fn metrics(&self) -> Metrics {
        let traffic = self.kernel.borrow().traffic();
        let metrics = self.schedule.borrow().metrics;
        Metrics {
            submitted: traffic.submitted,
            completed: traffic.completed,
            enters: traffic.enters,
            overflows: traffic.overflows,
            wakes: self.shared.wakes(),
            ..metrics
        }
    }

    /// Shows everything that is pending to `f`, in no order that is promised: to find leaks. `f`
    /// may call anything, cancel included; what it schedules may or may not be shown. Posts of
    /// other threads have no handles and are not shown, but for delayed ones. O(n). Errors:
    /// ESHUTDOWN while closing.
    pub fn walk(&self, mut f: impl FnMut(&Loop, &Info)) -> Result<()> {
        self.check()?;
        let _user_code = UserCode::begin(self);
        self.walk_pending(|info| {
            f(self, info);
            self.check_not_forked()
        })
    }

    pub(crate) fn walk_pending(&self, mut f: impl FnMut(&Info) -> Result<()>) -> Result<()> {
        let slots = self.schedule.borrow().len();
        for index in 0..slots {
            let info = self.schedule.borrow().info(index);
            if let Some(info) = info {
                f(&info)?;
            }
        }
        Ok(())
    }
}
