//! The gap of dense timers (S3): how far a sleep may reach beyond the earliest deadline, so that
//! timers which follow closely share one wakeup.
//!
//! This is only data: the loop reports how its sleeps ended. A deadline that stands alone is never
//! delayed; see `Schedule::wake_up`.

/// The gap and its measurements.
#[derive(Debug)]
pub(super) struct Gap {
    /// How late recent sleeps ended, in nanoseconds: a ring of `SAMPLES`, and the number of all.
    latencies: [u32; SAMPLES],
    measured: usize,
    /// The median of `latencies`.
    latency: u32,
    /// When the loop, after a sleep, last found a timer due.
    found_due_at: u64,
    /// The number of live periods from 2^i to 2^(i+1) ns.
    short_periods: [u32; CLASSES],
}

const SAMPLES: usize = 64;

/// The median is computed anew after so many sleeps. Before the first time, it is `INITIAL`.
const EVERY: usize = 16;
const INITIAL: u32 = 50_000;

/// The gap is so many latencies, so the mean lateness of a dense stream is two and a half.
const LATENCIES: u64 = 4;
const LEAST: u64 = 10_000;
const MOST: u64 = 200_000;

/// Half of a longer period is more than `MOST`.
const CLASSES: usize = 19;

impl Gap {
    pub(super) fn new() -> Gap {
        Gap {
            latencies: [0; SAMPLES],
            measured: 0,
            latency: INITIAL,
            found_due_at: 0,
            short_periods: [0; CLASSES],
        }
    }

    /// Notes how long a sleep was to last that an exactly armed timeout has ended, and how late it
    /// ended. Sleeps that end with a gap do not count: they would feed back through the idle states
    /// of the processor. Nor do deadlines that come before the thread is asleep.
    pub(super) fn measured(&mut self, length: u64, latency: u64) {
        if length < LEAST {
            return;
        }
        self.latencies[self.measured % SAMPLES] = u32::try_from(latency).unwrap_or(u32::MAX);
        self.measured += 1;
        if self.measured.is_multiple_of(EVERY) {
            let mut sorted = self.latencies;
            let sorted = &mut sorted[..self.measured.min(SAMPLES)];
            let middle = sorted.len() / 2;
            self.latency = *sorted.select_nth_unstable(middle).1;
        }
    }

    /// Notes that the loop, after a sleep, has found a timer due.
    pub(super) fn found_due(&mut self, now: u64) {
        self.found_due_at = now;
    }

    pub(super) fn period_begins(&mut self, period: u64) {
        if let Some(count) = self.class_of(period) {
            *count += 1;
        }
    }

    pub(super) fn period_ends(&mut self, period: u64) {
        if let Some(count) = self.class_of(period) {
            *count -= 1;
        }
    }

    fn class_of(&mut self, period: u64) -> Option<&mut u32> {
        self.short_periods.get_mut(period.checked_ilog2()? as usize)
    }

    /// In nanoseconds: at most half of the shortest period.
    fn len(&self) -> u64 {
        let gap = (LATENCIES * u64::from(self.latency)).clamp(LEAST, MOST);
        let shortest = self.short_periods.iter().position(|&count| count > 0);
        shortest.map_or(gap, |class| gap.min((1 << class) / 2))
    }

    /// The latest time for which a sleep may leave out an earlier deadline.
    pub(super) fn end(&self) -> u64 {
        self.found_due_at.saturating_add(self.len())
    }

    /// The latency and the gap, in nanoseconds.
    pub(super) fn figures(&self) -> (u64, u64) {
        (self.latency.into(), self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::handle::Handle;
    use crate::pending::callback::Callback;
    use crate::pending::{Schedule, WakeUp};

    const T: u64 = 1 << 40;

    /// A loop that woke at `T` and found a timer due, with timers so many nanoseconds later.
    fn woken(delays: &[u64]) -> (Schedule<()>, Vec<Handle>) {
        let mut schedule = Schedule::new(0, T);
        schedule.gap.found_due(T);
        let handles = delays.iter().map(|&delay| timer(&mut schedule, delay)).collect();
        (schedule, handles)
    }

    fn timer(schedule: &mut Schedule<()>, delay: u64) -> Handle {
        schedule.reserve_timer(T + delay).unwrap();
        schedule.call_at(T + delay, Callback::EMPTY)
    }

    fn exactly(delay: u64) -> Option<WakeUp> {
        Some(WakeUp { time: T + delay, is_exact: true })
    }

    fn gap(delay: u64) -> Option<WakeUp> {
        Some(WakeUp { time: T + delay, is_exact: false })
    }

    #[test]
    fn s03_only_a_timer_that_another_follows_within_the_gap_waits() {
        let cases: [(&[u64], _); 9] = [
            (&[], None),
            (&[50_000], exactly(50_000)),
            (&[50_000, 50_000], exactly(50_000)),
            (&[50_000, 50_001], gap(200_000)),
            (&[60_000, 50_000, 1 << 40], gap(200_000)),
            (&[50_000, 200_000], gap(200_000)),
            (&[50_000, 200_001], exactly(50_000)),
            (&[199_999, 1 << 30], exactly(199_999)),
            (&[200_000, 200_001], exactly(200_000)),
        ];
        for (delays, wake_up) in cases {
            assert_eq!(woken(delays).0.wake_up(), wake_up, "{delays:?}");
        }
        // The gap counts from the last sleep, not from the timer.
        let (mut schedule, _) = woken(&[300_000, 300_001]);
        assert_eq!(schedule.wake_up(), exactly(300_000));
        schedule.gap.found_due(T + 150_000);
        assert_eq!(schedule.wake_up(), gap(350_000));
    }

    #[test]
    fn s03_cancelled_timers_make_no_stream_dense() {
        let (mut schedule, handles) = woken(&[50_000, 60_000, 70_000, 1 << 30]);
        for &handle in &handles[1..3] {
            assert_eq!(schedule.wake_up(), gap(200_000));
            drop(schedule.cancel(handle).unwrap());
        }
        assert_eq!(schedule.wake_up(), exactly(50_000));
    }

    #[test]
    fn s03_a_timer_that_follows_only_cancelled_ones_is_alone() {
        let (mut schedule, handles) = woken(&[50_000; 200]);
        timer(&mut schedule, 50_500);
        for handle in handles {
            drop(schedule.cancel(handle).unwrap());
        }
        assert_eq!(schedule.wake_up(), exactly(50_500));
    }

    #[test]
    fn s03_a_dense_stream_is_found_in_a_large_bucket() {
        let far: Vec<u64> = (0..5000).map(|n| (1 << 30) + n).collect();
        let (mut schedule, _) = woken(&far);
        assert_eq!(schedule.wake_up(), exactly(1 << 30));
        schedule.gap.found_due(T + (1 << 30) - 100_000);
        assert_eq!(schedule.wake_up(), gap((1 << 30) + 100_000));
    }

    #[test]
    fn s03_the_gap_is_at_most_half_of_the_shortest_period() {
        let (mut schedule, _) = woken(&[20_000, 30_000]);
        let mut every = |period| {
            schedule.reserve_repeating_timer(u64::MAX).unwrap();
            schedule.call_every(u64::MAX, period, Callback::EMPTY)
        };
        let periods = [1, 100_000, 300_000, 399_999, 400_000, 1_000_000_000];
        let handles = periods.map(&mut every);
        for (handle, period) in handles.into_iter().zip(periods) {
            let len = schedule.gap.len();
            assert!(len <= period / 2 && len >= (period / 4).min(MOST / 2), "{period}: {len}");
            drop(schedule.cancel(handle).unwrap());
        }
        assert_eq!(schedule.gap.len(), 200_000);
    }

    #[test]
    fn s03_the_gap_is_four_times_the_median_of_exact_sleeps() {
        let (mut schedule, _) = woken(&[]);
        let mut sleep = |is_exact, length, latency, count| {
            let wake_up = WakeUp { time: T, is_exact };
            (0..count).for_each(|_| schedule.slept(T - length, wake_up, T + latency));
            schedule.gap.figures()
        };
        // Too few, and those that do not count.
        assert_eq!(sleep(true, 10_000, 10_000, 15), (50_000, 200_000));
        assert_eq!(sleep(false, 10_000, 900_000, 99), (50_000, 200_000));
        assert_eq!(sleep(true, 9999, 900_000, 99), (50_000, 200_000));
        assert_eq!(sleep(true, 10_000, 10_000, 1), (10_000, 40_000));
        assert_eq!(sleep(true, 10_000, 1000, 64), (1000, 10_000));
        assert_eq!(sleep(true, 10_000, 70_000, 16), (1000, 10_000));
        assert_eq!(sleep(true, 10_000, u64::MAX - T, 48), (u64::from(u32::MAX), 200_000));
    }
}
