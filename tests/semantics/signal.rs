//! Signals that only the calling thread gets: every millisecond, or once.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

thread_local!(static RECEIVED: AtomicU64 = const { AtomicU64::new(0) });

/// Interrupts the thread that created this value, until the value is dropped.
pub(crate) struct Interruptions(libc::timer_t);

impl Interruptions {
    /// Interrupts every millisecond with a signal whose handler is installed with `flags`:
    /// SA_RESTART or 0. Different flags need different signals.
    pub(crate) fn begin(signal: libc::c_int, flags: libc::c_int) -> Interruptions {
        Interruptions::arm(signal, flags, Duration::from_millis(1), Duration::from_millis(1))
    }

    /// Interrupts once, after `delay`.
    pub(crate) fn once(signal: libc::c_int, delay: Duration) -> Interruptions {
        Interruptions::arm(signal, 0, delay, Duration::ZERO)
    }

    fn arm(
        signal: libc::c_int,
        flags: libc::c_int,
        first: Duration,
        interval: Duration,
    ) -> Interruptions {
        extern "C" fn count(_: libc::c_int) {
            RECEIVED.with(|received| received.fetch_add(1, SeqCst));
        }
        // SAFETY: a zeroed sigaction is a valid one; its fields are set below.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = count as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = flags;
        // SAFETY: the handler does nothing that is not async-signal-safe, and `action` is
        // initialized.
        assert_eq!(unsafe { libc::sigaction(signal, &action, ptr::null_mut()) }, 0);

        // SAFETY: a zeroed sigevent is a valid one; its fields are set below.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        // SAFETY: gettid has no preconditions.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer = ptr::null_mut();
        // SAFETY: both pointers are to live variables.
        assert_eq!(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) }, 0);

        let timespec = |duration: Duration| libc::timespec {
            tv_sec: 0,
            tv_nsec: duration.subsec_nanos().into(),
        };
        let times = libc::itimerspec { it_interval: timespec(interval), it_value: timespec(first) };
        // SAFETY: the timer was created above.
        assert_eq!(unsafe { libc::timer_settime(timer, 0, &times, ptr::null_mut()) }, 0);
        Interruptions(timer)
    }
}

impl Drop for Interruptions {
    fn drop(&mut self) {
        // SAFETY: the timer was created by `arm` and is deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// The number of signals that the calling thread has handled so far.
pub(crate) fn received() -> u64 {
    RECEIVED.with(|received| received.load(SeqCst))
}
