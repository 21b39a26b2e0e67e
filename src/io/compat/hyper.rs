//! The executor and the timer that hyper requires, besides streams.
//!
//! Both use the loop that is running on the current thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::abi::handle::Handle;
use crate::error::{Error, Result};
use crate::event_loop::{Loop, Shared};
use crate::sys::memory::TryArc;
use crate::task::{cancel, now, spawn};

/// Starts tasks on the loop that is running on this thread; they need not be `Send`. Without a loop
/// or memory, the future is dropped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Executor;

impl<F: Future + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        drop(spawn(future));
    }
}

/// Timers of a loop for hyper, which requires `Send` and `Sync`. Their times are those of the loop,
/// also with a virtual clock.
///
/// A sleep begins when it is polled on the loop. If no timer can be made, for example because the
/// loop is shut down, the sleep ends at once.
#[derive(Clone, Copy, Debug)]
pub struct Timer {
    /// The `Instant` that corresponds to `time`.
    instant: Instant,
    time: crate::Time,
}

impl Timer {
    /// Timers of the loop that is running on this thread. Errors: EINVAL when none is.
    pub fn new() -> Result<Timer> {
        Ok(Timer { time: now()?, instant: Instant::now() })
    }

    fn time_of(&self, instant: Instant) -> crate::Time {
        self.time + instant.saturating_duration_since(self.instant)
    }
}

impl hyper::rt::Timer for Timer {
    fn sleep(&self, delay: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        // Adding a delay to a `Time` saturates; adding it to an `Instant` may panic.
        Box::pin(Sleep { when: self.time_of(self.now()) + delay, timer: None })
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep { when: self.time_of(deadline), timer: None })
    }

    fn now(&self) -> Instant {
        now().map_or_else(|_| Instant::now(), |time| self.instant + (time - self.time))
    }
}

struct Sleep {
    when: crate::Time,
    timer: Option<(TryArc<Shared>, Handle, TryArc<Alarm>)>,
}

/// The state that the timer and the sleep share, possibly on different threads.
#[derive(Default)]
struct Alarm {
    is_over: AtomicBool,
    sleeper: Mutex<Option<Waker>>,
}

impl Alarm {
    fn set_sleeper(&self, sleeper: Option<Waker>) -> Option<Waker> {
        std::mem::replace(&mut self.sleeper.lock().unwrap_or_else(PoisonError::into_inner), sleeper)
    }
}

/// Rings the alarm when the timer expires or is dropped.
struct Ringing(TryArc<Alarm>);

impl Drop for Ringing {
    fn drop(&mut self) {
        self.0.is_over.store(true, Relaxed);
        self.0.set_sleeper(None).into_iter().for_each(Waker::wake);
    }
}

impl Sleep {
    fn begin(&self) -> Result<(TryArc<Shared>, Handle, TryArc<Alarm>)> {
        Loop::with_running(|lp| {
            let lp = lp.ok_or(Error::NO_LOOP)?;
            let alarm = TryArc::new(Alarm::default())?;
            let ringing = Ringing(alarm.clone());
            let handle = lp.call_at(self.when, move |_| drop(ringing))?;
            Ok((lp.shared().clone(), handle, alarm))
        })
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.timer.is_none() {
            self.timer = self.begin().ok();
        }
        let Some((_, _, alarm)) = &self.timer else { return Poll::Ready(()) };
        drop(alarm.set_sleeper(Some(context.waker().clone())));
        // `is_over` is set before the sleeper is taken under the lock, so no wake is lost.
        if alarm.is_over.load(Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl hyper::rt::Sleep for Sleep {}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((shared, handle, alarm)) = self.timer.take() {
            drop(alarm.set_sleeper(None));
            cancel(&shared, handle);
        }
    }
}
