//! The loop that is running on this thread, for code without a `&Loop`: tasks and their callees.
//!
//! A loop is identified by the part that it shares with its remotes, because it may be moved or
//! closed between two runs. A call for a loop that is not the innermost running one here fails, and
//! does not access the loop.

use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use crate::abi::handle::Handle;
use crate::error::{Error, Result};
use crate::event_loop::remote::Remote;
use crate::event_loop::{Loop, Shared};
use crate::sys::memory::TryArc;
use crate::task::JoinHandle;
use crate::time::Time;

/// The running loop, for its tasks; made by [`Loop::current`]. It can be kept across awaits and in
/// structures, unlike a `&Loop`, because a loop may be moved between two runs.
///
/// All functions are for the loop's thread, while the loop is the innermost one that runs there;
/// otherwise they fail with EINVAL. [`with`](Current::with) gives access to all others of [`Loop`].
///
/// ```
/// use std::time::Duration;
/// use ringloop::{Loop, Result, task};
///
/// let lp = Loop::new()?;
/// let task = lp.spawn(async {
///     let lp = Loop::current()?;
///     lp.call_later(Duration::from_millis(1), |_| println!("a callback"))?;
///     task::sleep(Duration::from_millis(2)).await?;
///     println!("a task at {:?}", lp.time()?);
///     Result::Ok(())
/// })?;
/// lp.run()?;
/// # drop(task);
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Clone)]
pub struct Current {
    shared: TryArc<Shared>,
    /// Makes the type not `Send`.
    thread: PhantomData<*const ()>,
}

impl Loop {
    /// The loop that is running on this thread, the innermost one if loops are nested. Errors:
    /// EINVAL when none is.
    pub fn current() -> Result<Current> {
        Loop::with_running(|lp| {
            let shared = lp.ok_or(Error::NO_LOOP)?.shared().clone();
            Ok(Current { shared, thread: PhantomData })
        })
    }
}

impl Current {
    /// Calls `f` with the loop.
    pub fn with<R>(&self, f: impl FnOnce(&Loop) -> R) -> Result<R> {
        Loop::if_running(&self.shared, f).ok_or(Error::NO_LOOP)
    }

    /// [`Loop::time`].
    pub fn time(&self) -> Result<Time> {
        self.with(Loop::time)
    }

    /// [`Loop::call_soon`].
    pub fn call_soon(&self, f: impl FnOnce(&Loop) + 'static) -> Result<Handle> {
        self.with(|lp| lp.call_soon(f))?
    }

    /// [`Loop::call_later`].
    pub fn call_later(&self, delay: Duration, f: impl FnOnce(&Loop) + 'static) -> Result<Handle> {
        self.with(|lp| lp.call_later(delay, f))?
    }

    /// [`Loop::call_at`].
    pub fn call_at(&self, when: Time, f: impl FnOnce(&Loop) + 'static) -> Result<Handle> {
        self.with(|lp| lp.call_at(when, f))?
    }

    /// [`Loop::cancel`].
    pub fn cancel(&self, handle: Handle) -> Result<()> {
        self.with(|lp| lp.cancel(handle))?
    }

    /// [`Loop::spawn`].
    pub fn spawn<F: Future + 'static>(&self, future: F) -> Result<JoinHandle<F::Output>> {
        self.with(|lp| lp.spawn(future))?
    }

    /// [`Loop::stop`].
    pub fn stop(&self) -> Result<()> {
        self.with(Loop::stop)?
    }

    /// [`Loop::remote`]: a handle for other threads, also if the loop is not running.
    pub fn remote(&self) -> Remote {
        Remote::new(self.shared.clone())
    }
}

/// Cancels an entry, unless it has ended: at once inside a run of its loop, otherwise in the next
/// iteration.
pub(crate) fn cancel(shared: &TryArc<Shared>, handle: Handle) {
    let cancel = move |lp: &Loop| {
        // The handle may be stale.
        let _ = lp.cancel(handle);
    };
    if Loop::if_running(shared, cancel).is_none() {
        // If the post is refused, the entry ends with the loop, or by itself if memory is refused.
        drop(Remote::new(shared.clone()).call_soon(cancel));
    }
}

debug!(Current);
