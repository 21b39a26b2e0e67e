//! The functions of a loop for other threads: post, wake, stop.
//!
//! A remote may outlive its loop (S23); its functions fail then. A post needs no lock. This relies
//! on the inbox in `threads::shared`, and on the loop's thread to run the posts.

use std::fmt;
use std::time::Duration;

use super::{Callback, Held, Loop, Schedule, Shared};
use crate::error::{Error, Result};
use crate::pending::event::Event;
use crate::pending::posts::{Census, Open, Posted};
use crate::sys::memory::TryArc;
use crate::time;

/// A handle to a loop for other threads, which post callbacks to the loop, wake it and stop it.
///
/// A remote is cheap to clone and may outlive the loop; after that, all functions fail with
/// ESHUTDOWN. All functions are for any thread, the loop's own and those of other loops included.
/// They take no lock, except that of the trace file, if there is one. In a forked child, all fail
/// with EOWNERDEAD (S33).
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

/// A callback that a loop did not accept, with the error.
pub struct Refused<F> {
    /// The callback, unchanged.
    pub callback: F,
    /// Why the loop refused the callback.
    pub error: Error,
}

impl Remote {
    pub(crate) fn new(shared: TryArc<Shared>) -> Remote {
        Remote { shared }
    }

    /// Runs `f` on the loop's thread in a following iteration: after earlier posts of this thread,
    /// and in order with the loop's own `call_soon` by the time of the call (S26). From now on, the
    /// post keeps [`Loop::run`] alive.
    ///
    /// Costs a compare-and-swap and sometimes an allocation. Makes a system call, about 5 µs, only
    /// if the loop sleeps and no other thread has woken it. Errors, which return `f`: ESHUTDOWN
    /// when the loop is shut down, closing or closed; EOWNERDEAD in a forked child; ENOMEM. An
    /// accepted `f` runs, or is dropped when the loop is closed (S23).
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

    /// Ends the loop's sleep at once, or its next one if the loop is awake (S27).
    /// Async-signal-safe; preserves errno.
    ///
    /// Errors: ESHUTDOWN when the loop is shut down, closing or closed; EOWNERDEAD.
    pub fn wakeup(&self) -> Result<()> {
        self.shared.wakeup()
    }

    /// Makes the loop call [`Loop::stop`], in order with other posts. Errors: those of
    /// [`call_soon`](Remote::call_soon).
    pub fn stop(&self) -> Result<()> {
        self.shared.stop()
    }
}

impl Loop {
    /// A handle to the loop for other threads. O(1), allocates nothing.
    pub fn remote(&self) -> Remote {
        Remote::new(self.shared.clone())
    }

    /// S5 (b): appends to the ready queue the posts of other threads, the handlers of signals that
    /// have arrived, and completed work. Posts for which memory is refused return to the inbox, in
    /// order. Without posts, costs one atomic load.
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
        let mut census = Census::default();
        let came = shared.inbox.take(|post| census.count(post));
        self.flood.took(census.len());
        let collected = schedule.collect_posts(came, census, time_of, done);
        let collected = collected.and_then(|()| shared.collect_signals(schedule));
        let collected = collected.and_then(|()| self.executor.collect(schedule));
        if collected.is_err() {
            // The next iteration takes the rest.
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

    /// Makes the loop call `stop`, in order with other posts.
    pub(crate) fn stop(&self) -> Result<()> {
        let stop = |lp: &Loop| {
            // Fails on a loop that is being closed, which has stopped already.
            let _ = lp.stop();
        };
        self.post_closure(stop, None).map_err(Error::from)
    }
}

/// A posted closure.
struct Closure<F>(F);

impl<F: FnOnce(&Loop) + Send + 'static> Posted<Loop> for Closure<F> {
    fn unpack(closure: impl Open<Closure<F>>) -> Held {
        let callback = if Callback::is_inline::<F>() {
            Callback::once(closure.open().0)
        } else {
            Callback::once_for::<F, _>(move |lp: &Loop, _: &Event| (closure.open().0)(lp))
        };
        // Both callbacks are stored inline, so neither allocates.
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
