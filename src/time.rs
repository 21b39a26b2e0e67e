//! Time: a point on CLOCK_MONOTONIC in whole nanoseconds, and the clock that reads it.
//!
//! The loop caches no "now": every reading asks the clock (S1), which costs about 25 ns through the
//! vDSO. The virtual clock of S36 stands still until the loop moves it to a deadline.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A point in time: nanoseconds on CLOCK_MONOTONIC, or on the virtual clock of a loop that has one.
///
/// Adding a [`Duration`] saturates at [`Time::NEVER`]; the difference of two times saturates at
/// zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// A deadline that never comes (S4). A timer at `NEVER` is pending and can be rescheduled.
    pub const NEVER: Time = Time(u64::MAX);

    /// The time `nanos` nanoseconds after the clock's zero.
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    /// Nanoseconds since the clock's zero.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds since the clock's zero, for printing. A double holds nanoseconds exactly only up to
    /// 104 days.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// CLOCK_MONOTONIC now.
    pub fn now() -> Time {
        Time(monotonic())
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, delay: Duration) -> Time {
        Time(self.0.saturating_add(nanos(delay)))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, delay: Duration) {
        *self = *self + delay;
    }
}

impl Sub for Time {
    type Output = Duration;
    fn sub(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Time::NEVER => f.write_str("never"),
            Time(nanos) => write!(f, "{nanos} ns"),
        }
    }
}

/// A duration in nanoseconds, saturating at [`Time::NEVER`], 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// CLOCK_MONOTONIC now, in nanoseconds.
pub(crate) fn monotonic() -> u64 {
    #[cfg(test)]
    readings::count();
    read(ClockId::CLOCK_MONOTONIC)
}

/// CLOCK_BOOTTIME now, in nanoseconds. The kernel gives the start time of a thread on this clock.
pub(crate) fn boottime() -> u64 {
    read(ClockId::CLOCK_BOOTTIME)
}

fn read(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("every Linux since 2.6.39 has both clocks");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Counts this thread's readings of the clock, for tests (S5).
#[cfg(test)]
pub(crate) mod readings {
    use std::cell::Cell;

    thread_local!(static READINGS: Cell<u64> = const { Cell::new(0) });

    pub(super) fn count() {
        READINGS.set(READINGS.get() + 1);
    }

    pub(crate) fn so_far() -> u64 {
        READINGS.get()
    }
}

/// The clock of one loop. Any thread may read it.
#[derive(Debug)]
pub(crate) enum Clock {
    Monotonic,
    Virtual(AtomicU64),
}

impl Clock {
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        match self {
            Clock::Monotonic => monotonic(),
            Clock::Virtual(now) => now.load(Relaxed),
        }
    }
}
