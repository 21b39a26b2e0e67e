//! What other threads may do with a loop: post to it, wake it, stop it. A remote may outlive its
//! loop (S23).

use std::fmt;
use std::time::Duration;

use super::{Callback, Held, Loop, Schedule, Shared};
use crate::error::{Error, Result};
use crate::pending::event::Event;
use crate::pending::posts::{Posted, PostedBox};
use crate::sys::memory::TryArc;
use crate::time;

/// A loop as other threads know it: they post callbacks to it, wake it, stop it.
///
/// It is cheap to clone, and may outlive the loop: then everything says ESHUTDOWN. Everything here
/// is for any thread, the loop's own and those of other loops included, and takes no lock (but that
/// of the file where there is a trace). In a forked child everything says EOWNERDEAD (S33).
///
/// ```
/// use ringloop::Loop;
///
/// let lp = Loop::new()?;
/// let remote = lp.remote();
/// let worker = std::thread::spawn(move || {
///     let sum: u64 = (1..=1000).sum();
///     remote.call_soon(move |lp| {
///         println!("the sum is {sum}");
///         lp.stop().unwrap();
///     })
/// });
/// lp.run_forever()?;
/// worker.join().unwrap()?;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Clone)]
pub struct Remote {
    shared: TryArc<Shared>,
}

/// A callback that a loop did not take, and why.
pub struct Refused<F> {
    /// The callback, as it was.
    pub callback: F,
    /// Why it was refused.
    pub error: Error,
}

impl Remote {
    pub(crate) fn new(shared: TryArc<Shared>) -> Remote {
        Remote { shared }
    }

    /// Runs `f` on the loop's thread, as soon as the loop comes to it: after what this thread has
    /// posted before, and in order with the loop's own `call_soon` by the time of the call (S26).
    /// It counts for [`Loop::run`] from then on.
    ///
    /// Costs a compare-and-swap, now and then an allocation, and a system call (some 5 µs) only if
    /// the loop sleeps and nobody else has woken it. Errors, which give `f` back: ESHUTDOWN when
    /// the loop is shut down, closing or gone; EOWNERDEAD in a forked child; ENOMEM. An `f` that
    /// was accepted runs, or is dropped when the loop is closed (S23).
    pub fn call_soon<F: FnOnce(&Loop) + Send + 'static>(
        &self,
        f: F,
    ) -> std::result::Result<(), Refused<F>> {
        self.shared.post_closure(f, None)
    }

    /// As [`call_soon`](Remote::call_soon), `delay` from now.
    pub fn call_later<F: FnOnce(&Loop) + Send + 'static>(
        &self,
        delay: Duration,
        f: F,
    ) -> std::result::Result<(), Refused<F>> {
        self.shared.post_closure(f, Some(time::nanos(delay)))
    }

    /// Makes the loop's sleep return at once, or its next one if it is awake (S27).
    /// Async-signal-safe; leaves errno alone.
    ///
    /// Errors: ESHUTDOWN when the loop is shut down, closing or gone; EOWNERDEAD.
    pub fn wakeup(&self) -> Result<()> {
        self.shared.wakeup()
    }

    /// Has the loop call [`Loop::stop`], in order with what else is posted. Errors: those of
    /// [`call_soon`](Remote::call_soon).
    pub fn stop(&self) -> Result<()> {
        self.shared.stop()
    }
}

impl Loop {
    /// The loop as other threads know it. O(1), allocates nothing.
    pub fn remote(&self) -> Remote {
        Remote::new(self.shared.clone())
    }

    /// S5 (b): appends to the ready queue all that other threads have posted, the handlers of the
    /// signals that have come, and the work that is done. What there is no memory for goes back to
    /// the inbox, in order. A load when there is nothing.
    #[inline(always)]
    pub(crate) fn collect_posts(&self, schedule: &mut Schedule) -> Result<()> {
        if self.shared.inbox.has_posts() { self.take_posts(schedule) } else { Ok(()) }
    }

    #[cold]
    fn take_posts(&self, schedule: &mut Schedule) -> Result<()> {
        let shared = &self.shared;
        let time_of =
            |when| if shared.is_virtual() { self.clock.now().saturating_add(when) } else { when };
        let done =
            |schedule: &mut Schedule, ticket, post| self.executor.take(schedule, ticket, post);
        let collected = schedule.collect_posts(shared.inbox.take(), time_of, done);
        let collected = collected.and_then(|()| shared.collect_signals(schedule));
        let collected = collected.and_then(|()| self.executor.collect(schedule));
        if collected.is_err() {
            // The rest is taken the next time.
            shared.inbox.signal();
        }
        collected
    }
}

impl Shared {
    fn post_closure<F>(&self, f: F, delay: Option<u64>) -> std::result::Result<(), Refused<F>>
    where
        F: FnOnce(&Loop) + Send + 'static,
    {
        self.post(Closure(f), delay)
            .map_err(|(Closure(callback), error)| Refused::from((callback, error)))
    }

    /// Has the loop call `stop`, in order with what else is posted.
    pub(crate) fn stop(&self) -> Result<()> {
        let stop = |lp: &Loop| {
            // It fails on a loop that is being closed, which has stopped.
            let _ = lp.stop();
        };
        self.post_closure(stop, None).map_err(Error::from)
    }
}

/// A closure that is posted.
struct Closure<F>(F);

impl<F: FnOnce(&Loop) + Send + 'static> Posted<Loop> for Closure<F> {
    fn unpack(closure: PostedBox<Loop, Closure<F>>) -> Held {
        let callback = if Callback::is_inline::<F>() {
            Callback::once(closure.open().0)
        } else {
            Callback::once_for::<F, _>(move |lp: &Loop, _: &Event| (closure.open().0)(lp))
        };
        // Both are inline, which is never refused.
        Held { callback: callback.unwrap_or(Callback::EMPTY), release: None }
    }
}

impl<F> From<(F, Error)> for Refused<F> {
    fn from((callback, error): (F, Error)) -> Refused<F> {
        Refused { callback, error }
    }
}

impl<F> From<Refused<F>> for Error {
    fn from(refused: Refused<F>) -> Error {
        refused.error
    }
}

impl<F> fmt::Debug for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<F> fmt::Display for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<F> std::error::Error for Refused<F> {}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}
