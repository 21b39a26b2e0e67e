//! The counters of a loop (S35), which never reset. Counting costs an addition to memory that is in
//! the cache.

/// Counters of a loop since it was made; see [`Loop::metrics`](crate::Loop::metrics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Iterations begun.
    pub iterations: u64,
    /// Callbacks begun: calls, timers, repeating timers, polls of tasks; not hooks.
    pub callbacks: u64,
    /// Timer callbacks begun, including every call of a repeating timer, and sleeps of tasks that
    /// have expired.
    pub timers_fired: u64,
    /// Timers cancelled before their end, also by close and shutdown; not sleeps of tasks.
    pub timers_cancelled: u64,
    /// Calls of repeating timers that were skipped because the loop was too late.
    pub timers_skipped: u64,
    /// Nanoseconds asleep in the kernel, on the loop's clock.
    pub asleep_ns: u64,
    /// Submission queue entries that the kernel took.
    pub submitted: u64,
    /// Completions that the loop took.
    pub completed: u64,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// The number of times that the completion queue had overflowed, which costs system calls.
    pub overflows: u64,
    /// Posts of other threads that the loop took.
    pub posts: u64,
    /// Wakes that other threads sent because the loop was asleep.
    pub wakes: u64,
    /// The lateness of timers: `late[i]` counts those that became ready at least 2^i and less than
    /// 2^(i+1) ns late; `late[0]` includes those under 2 ns, the last one all from 2.1 s.
    pub late: [u64; 32],
    /// Not a counter: how late the kernel ends a sleep, in nanoseconds. The median of the last 64
    /// sleeps that ended at a deadline, computed after each 16. The value is 50,000 before the
    /// first 16 sleeps, with a slack other than zero, and with spin.
    pub wake_latency_ns: u64,
    /// Not a counter: by how much a timer in a dense stream may be late, in nanoseconds, besides
    /// `wake_latency_ns` (S3); 0 where each deadline is exact.
    pub gap_ns: u64,
}

impl Metrics {
    /// Counts a timer that became ready `late` nanoseconds late.
    #[inline]
    pub(crate) fn became_ready(&mut self, late: u64) {
        let bucket = late.checked_ilog2().unwrap_or(0).min(31);
        self.late[bucket as usize] += 1;
    }
}
