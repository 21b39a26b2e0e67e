//! Waiting for a time: the loop's timers, awaited.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::reach;
use super::waker::Notify;
use crate::callback::Callback;
use crate::counted::Counted;
use crate::error::{Error, Result};
use crate::event_loop::Loop;
use crate::handle::Handle;
use crate::remote::Shared;
use crate::time::Time;

/// Waits until a time on the loop's clock; made by [`sleep`] and [`sleep_until`].
///
/// It is a timer of the loop's, from the first poll on: never early, not rounded, and cancelled when this is dropped.
/// Polled again after it was ready, it is ready at once.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Sleep {
    until: Until,
    timer: Option<Timer>,
}

#[derive(Clone, Copy, Debug)]
enum Until {
    /// So long after the first poll.
    Delay(Duration),
    At(Time),
}

/// The timer of a sleep that has begun.
#[derive(Debug)]
struct Timer {
    shared: Counted<Shared>,
    handle: Handle,
    /// Whom it wakes.
    waker: (*const (), *const ()),
}

/// Waits for `delay`, from the first poll on (S2, S3). One timer of the loop's: some 150 ns, no allocation.
///
/// Errors: EINVAL when no loop is running on this thread; ENOMEM; ESHUTDOWN.
pub fn sleep(delay: Duration) -> Sleep {
    Sleep { until: Until::Delay(delay), timer: None }
}

/// As [`sleep`], until `when`: a time that is past already is over in the next iteration.
pub fn sleep_until(when: Time) -> Sleep {
    Sleep { until: Until::At(when), timer: None }
}

impl Sleep {
    fn poll_on(&mut self, lp: &Loop, waker: &Waker) -> Poll<Result<()>> {
        let is_here = |timer: &&mut Timer| Counted::is_same(&timer.shared, &lp.shared);
        match self.timer.as_mut().filter(is_here) {
            // A timer is pending until its callback begins (S15).
            Some(timer) if !lp.is_pending(timer.handle) => Poll::Ready(Ok(())),
            Some(timer) if timer.waker == identity(waker) => Poll::Pending,
            _ => match self.begin(lp, waker) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            },
        }
    }

    #[inline]
    fn begin(&mut self, lp: &Loop, waker: &Waker) -> Result<()> {
        self.end();
        lp.check_open()?;
        let when = match self.until {
            Until::Delay(delay) => lp.time() + delay,
            Until::At(when) => when,
        };
        self.until = Until::At(when);
        let notify = Notify::of(waker);
        let handle = lp.schedule_at(when.as_nanos(), Callback::once(move |_: &Loop| notify.wake())?)?;
        self.timer = Some(Timer { shared: lp.shared.clone(), handle, waker: identity(waker) });
        Ok(())
    }

    fn end(&mut self) {
        if let Some(timer) = self.timer.take() {
            reach::cancel(&timer.shared, timer.handle);
        }
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

/// Tells wakers apart. What a timer wakes lives as long as the timer, so no other is at its address meanwhile.
fn identity(waker: &Waker) -> (*const (), *const ()) {
    (waker.data(), std::ptr::from_ref(waker.vtable()).cast())
}

/// Awaits `future`, for `limit` at most: then ETIMEDOUT, and the future has been dropped, which cancels what it awaited. A future that
/// is ready in the same iteration as its limit wins.
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

/// Ticks every `period`, for the first time a period from now; made by [`interval`].
#[derive(Debug)]
pub struct Interval {
    period: u64,
    next: Time,
    sleep: Option<Sleep>,
    skipped: u64,
}

/// Ticks every `period`, in phase: the k-th tick is due at `start + k * period`, whatever is done between them, and ticks that nobody
/// came for in time are left out and counted (S16).
///
/// Errors: EINVAL when the period is zero, or no loop is running on this thread.
pub fn interval(period: Duration) -> Result<Interval> {
    let period = crate::calls::period_of(crate::time::nanos(period))?;
    let now = Loop::with_running(|lp| lp.map(Loop::time)).ok_or(Error::NO_LOOP)?;
    Ok(Interval { period, next: now + Duration::from_nanos(period), sleep: None, skipped: 0 })
}

impl Interval {
    /// Waits for the next tick, and tells when it was due. Dropped before that, it loses no tick. Errors: those of [`sleep`].
    pub async fn tick(&mut self) -> Result<Time> {
        let sleep = self.sleep.get_or_insert_with(|| sleep_until(self.next));
        sleep.await?;
        self.sleep = None;
        let due = self.next;
        let now = Loop::with_running(|lp| lp.map(Loop::time)).ok_or(Error::NO_LOOP)?;
        let missed = (now - due).as_nanos() as u64 / self.period;
        self.skipped += missed;
        self.next = due + Duration::from_nanos(self.period.saturating_mul(missed + 1));
        Ok(due)
    }

    /// How many ticks have been left out, as nobody came for them in time.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}
