//! What a loop counts about itself (S35). Counting is an addition to memory that is in the cache
//! anyway.

/// Counters of a loop since it was made; see [`Loop::metrics`](crate::Loop::metrics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Iterations begun.
    pub iterations: u64,
    /// Callbacks begun: calls, timers, repeating timers, polls of tasks; hooks not.
    pub callbacks: u64,
    /// Timer callbacks begun, every call of a repeating timer included, and sleeps of tasks that
    /// have come to their time.
    pub timers_fired: u64,
    /// Timers cancelled before they ended by themselves, those that close and shutdown cancel
    /// included; sleeps of tasks not.
    pub timers_cancelled: u64,
    /// Calls of repeating timers that were left out because the loop came too late for them.
    pub timers_skipped: u64,
    /// Nanoseconds asleep in the kernel, by the loop's clock.
    pub asleep_ns: u64,
    /// Submission queue entries that the kernel took.
    pub submitted: u64,
    /// Completions that the loop took.
    pub completed: u64,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// How often the completion queue was found to have overflowed: it costs system calls.
    pub overflows: u64,
    /// Posts of other threads that the loop took.
    pub posts: u64,
    /// Wakes that others sent because the loop was asleep.
    pub wakes: u64,
    /// How late timers became ready: `late[i]` counts those that were 2^i ns late or more and less
    /// than 2^(i+1); `late[0]` has those under 2 ns too, the last one all from 2.1 s.
    pub late: [u64; 32],
}

impl Metrics {
    /// Counts a timer that became ready so many nanoseconds late.
    #[inline]
    pub(crate) fn became_ready(&mut self, late: u64) {
        let bucket = late.checked_ilog2().unwrap_or(0).min(31);
        self.late[bucket as usize] += 1;
    }
}
