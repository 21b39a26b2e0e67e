//! Sleeps: the loop's timers as futures.
//!
//! A sleep has the guarantees of a timer (S2, S3, S43). The only sleep of a task costs less,
//! because the task's own slot is in the timer queue then. The precision is that of the loop: see
//! `slack_ns`.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::current::cancel;
use super::header::{Notify, TaskRef};
use crate::abi::handle::Handle;
use crate::error::{Error, Result};
use crate::event_loop::{Callback, Loop, Shared};
use crate::sys::memory::TryArc;
use crate::time::Time;

/// Waits until a time on the loop's clock; made by [`sleep`] and [`sleep_until`].
///
/// From the first poll on, it is a timer of the loop: never early, not rounded, and cancelled when
/// this is dropped. Polled again after it was ready, it is ready at once.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Sleep {
    until: Until,
    wait: Wait,
}

#[derive(Clone, Copy, Debug)]
enum Until {
    /// A delay after the first poll.
    Delay(Duration),
    At(u64),
}

/// The wakeup of a sleep.
enum Wait {
    Nothing,
    /// The task's own slot is in the timer queue, for the sleep of this number.
    Slot(TaskRef, u32),
    /// A timer: for the second of two simultaneous sleeps, and for a poller that is not a task of
    /// the loop. The timer keeps its waker alive, so no other has that address.
    Timer {
        shared: TryArc<Shared>,
        handle: Handle,
        waker: (*const (), *const ()),
    },
}

/// Waits for `delay`, from the first poll on (S2, S3). In a task it needs no allocation and no
/// memory besides the task's.
///
/// Errors: EINVAL when no loop is running on this thread; ENOMEM; ESHUTDOWN.
pub fn sleep(delay: Duration) -> Sleep {
    Sleep { until: Until::Delay(delay), wait: Wait::Nothing }
}

/// As [`sleep`], until `when`: a time in the past completes in the next iteration.
pub fn sleep_until(when: Time) -> Sleep {
    Sleep { until: Until::At(when.as_nanos()), wait: Wait::Nothing }
}

impl Sleep {
    fn poll_on(&mut self, lp: &Loop, waker: &Waker) -> Poll<Result<()>> {
        let is_pending = match &self.wait {
            Wait::Nothing => false,
            Wait::Slot(task, count) => {
                let is_polled = task.is_for(waker);
                is_polled && task.sleeps.get() == *count && lp.is_task_asleep(task.handle())
            }
            Wait::Timer { shared, handle, waker: of_timer } => {
                *of_timer == identity(waker)
                    && TryArc::is_same(shared, lp.shared())
                    && lp.is_pending(*handle)
            }
        };
        match self.until {
            _ if is_pending => Poll::Pending,
            Until::At(when) if !matches!(self.wait, Wait::Nothing) && lp.is_past(when) => {
                Poll::Ready(Ok(()))
            }
            _ => self
                .begin(lp, waker)
                .map_or_else(|error| Poll::Ready(Err(error)), |()| Poll::Pending),
        }
    }

    /// Begins the wait, or begins it again.
    #[inline]
    fn begin(&mut self, lp: &Loop, waker: &Waker) -> Result<()> {
        self.end();
        lp.check_open()?;
        let when = match self.until {
            Until::Delay(delay) => (lp.time() + delay).as_nanos(),
            Until::At(when) => when,
        };
        self.until = Until::At(when);
        if let Some(task) = TaskRef::of(waker, lp) {
            // A task that has used up its numbers gets timers.
            let count = task.sleeps.get().checked_add(1);
            if let Some(count) = count
                && lp.sleep_task_until(task.handle(), when)?
            {
                task.sleeps.set(count);
                self.wait = Wait::Slot(task, count);
                return Ok(());
            }
        }
        let notify = Notify::of(waker);
        let (is_task, waker) = match &notify {
            Notify::Task(_) => (true, identity(waker)),
            // The address of a clone may differ. It lives as long as the timer.
            Notify::Other(clone) => (false, identity(clone)),
        };
        let handle = lp.schedule_at(when, Callback::once(move |_: &Loop| notify.wake())?)?;
        if is_task {
            // The task itself keeps the run alive.
            lp.unref(handle)?;
        }
        self.wait = Wait::Timer { shared: lp.shared().clone(), handle, waker };
        Ok(())
    }

    fn end(&mut self) {
        match std::mem::replace(&mut self.wait, Wait::Nothing) {
            Wait::Nothing => {}
            // Outside a run the sleep stays; the task is then polled once needlessly.
            Wait::Slot(task, count) => {
                if let Some(shared) = task.shared_if_running()
                    && task.sleeps.get() == count
                {
                    Loop::if_running(shared, |lp| lp.stop_sleeping(task.handle()));
                }
            }
            Wait::Timer { shared, handle, .. } => cancel(&shared, handle),
        }
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wait::Nothing => "Nothing",
            Wait::Slot(..) => "Slot",
            Wait::Timer { .. } => "Timer",
        })
    }
}

impl Future for Sleep {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Loop::with_running(|lp| match lp {
            Some(lp) => self.poll_on(lp, context.waker()),
            None => Poll::Ready(Err(Error::NO_LOOP)),
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.end();
    }
}

fn identity(waker: &Waker) -> (*const (), *const ()) {
    (waker.data(), std::ptr::from_ref(waker.vtable()).cast())
}

/// Awaits `future` for at most `limit`; then fails with ETIMEDOUT. The future has been dropped
/// then, which cancels what it awaited. A future that is ready in the same iteration as its limit
/// succeeds.
///
/// Errors: those of [`sleep`] as well.
///
/// ```
/// use std::future::pending;
/// use std::time::Duration;
/// use ringloop::{Loop, task::timeout};
///
/// let lp = Loop::new()?;
/// let late = lp.run_until_complete(timeout(Duration::from_millis(1), pending::<()>()))?;
/// assert_eq!(late.unwrap_err().raw_os_error(), libc::ETIMEDOUT);
/// # Ok::<(), ringloop::Error>(())
/// ```
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output> {
    let mut future = pin!(future);
    let mut limit = sleep(limit);
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut limit).poll(context).map(|slept| Err(slept.err().unwrap_or(Error::TIMED_OUT)))
    })
    .await
}

/// Ticks every `period`, for the first time one period from now; made by [`interval`].
#[derive(Debug)]
pub struct Interval {
    period: u64,
    next: Time,
    sleep: Option<Sleep>,
    skipped: u64,
}

/// Ticks every `period`, in phase: the k-th tick is due at `start + k * period`, however long the
/// code between ticks takes. Ticks that are awaited too late are skipped and counted (S16).
///
/// Errors: EINVAL when the period is zero, or no loop is running on this thread.
pub fn interval(period: Duration) -> Result<Interval> {
    let period = crate::event_loop::calls::period_of(crate::time::nanos(period))?;
    Ok(Interval { period, next: now()? + Duration::from_nanos(period), sleep: None, skipped: 0 })
}

/// The time of the loop that is running on this thread.
pub(crate) fn now() -> Result<Time> {
    Loop::with_running(|lp| lp.map(Loop::time)).ok_or(Error::NO_LOOP)
}

impl Interval {
    /// Waits for the next tick, and returns the time at which it was due. Dropping the future loses
    /// no tick. Errors: those of [`sleep`].
    pub async fn tick(&mut self) -> Result<Time> {
        let sleep = self.sleep.get_or_insert_with(|| sleep_until(self.next));
        sleep.await?;
        self.sleep = None;
        let due = self.next;
        let missed = (now()? - due).as_nanos() as u64 / self.period;
        self.skipped += missed;
        self.next = due + Duration::from_nanos(self.period.saturating_mul(missed + 1));
        Ok(due)
    }

    /// The number of ticks that were skipped because they were awaited too late.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}
