//! Helpers that the tests share: loops, times, and a list of events.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use libc::ENOENT;
use nix::time::{ClockId, clock_gettime};
use ringloop::{Handle, Loop, Time};

use crate::support::Watched;

/// The time at which the virtual clocks start.
pub(crate) const START: Time = Time::from_nanos(1_000_000);

/// Longer than any test takes.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A loop on the real clock.
pub(crate) fn real_loop() -> Watched {
    Watched::new(Loop::new().unwrap())
}

/// A loop on a virtual clock that starts at `START`.
pub(crate) fn virtual_loop() -> Watched {
    Watched::new(Loop::builder().virtual_time(START).build().unwrap())
}

/// The time `nanos` nanoseconds after `START`.
pub(crate) fn at(nanos: u64) -> Time {
    START + ns(nanos)
}

pub(crate) const fn ns(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// CLOCK_MONOTONIC, read without the library.
pub(crate) fn monotonic() -> Time {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    Time::from_nanos(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// Spins for `duration` of real time, as a callback that takes long.
pub(crate) fn be_busy(duration: Duration) {
    let end = monotonic() + duration;
    while monotonic() < end {
        std::hint::spin_loop();
    }
}

/// The events of a test, in their order.
#[derive(Debug)]
pub(crate) struct Trace<T = &'static str>(Rc<RefCell<Vec<T>>>);

impl<T> Clone for Trace<T> {
    fn clone(&self) -> Trace<T> {
        Trace(Rc::clone(&self.0))
    }
}

impl<T: Clone + 'static> Trace<T> {
    pub(crate) fn new() -> Trace<T> {
        Trace(Rc::default())
    }

    pub(crate) fn add(&self, what: T) {
        self.0.borrow_mut().push(what);
    }

    /// A callback that adds `what`.
    pub(crate) fn note(&self, what: T) -> impl FnMut(&Loop) + 'static + use<T> {
        let trace = self.clone();
        move |_| trace.add(what.clone())
    }

    /// A value that adds `what` when it is dropped.
    pub(crate) fn on_drop(&self, what: T) -> OnDrop<T> {
        OnDrop(self.clone(), what)
    }

    /// All events since the last call of this function.
    pub(crate) fn take(&self) -> Vec<T> {
        self.0.take()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

/// A callback that adds the loop's time.
pub(crate) fn note_time(trace: &Trace<Time>) -> impl FnMut(&Loop) + 'static + use<> {
    let trace = trace.clone();
    move |lp| trace.add(lp.time())
}

pub(crate) struct OnDrop<T: Clone + 'static>(Trace<T>, T);

impl<T: Clone + 'static> Drop for OnDrop<T> {
    fn drop(&mut self) {
        self.0.add(self.1.clone());
    }
}

/// A value whose Drop panics.
pub(crate) struct Bomb(pub(crate) &'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        panic(self.0);
    }
}

/// Panics without a message on stderr.
pub(crate) fn panic(what: &'static str) -> ! {
    resume_unwind(Box::new(what))
}

/// The string that `panic` was called with.
pub(crate) fn payload(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("another payload")
}

/// The string with which `f` panicked, if it did.
pub(crate) fn panic_in<R>(f: impl FnOnce() -> R) -> Option<&'static str> {
    catch_unwind(AssertUnwindSafe(f)).err().map(|caught| payload(&*caught))
}

/// The errno of a result that must be an error.
pub(crate) fn errno<T: std::fmt::Debug>(result: Result<T, ringloop::Error>) -> i32 {
    result.expect_err("this must fail").raw_os_error()
}

/// Random-looking numbers, the same ones in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        // Constants of Knuth's MMIX; the low bits of such a generator are poor.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 20
    }

    /// One of `0..end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Checks that every function treats the handle as stale.
pub(crate) fn check_stale(lp: &Loop, handle: Handle) {
    assert_eq!(errno(lp.cancel(handle)), ENOENT);
    assert_eq!(errno(lp.reschedule(handle, START)), ENOENT);
    assert_eq!(errno(lp.when(handle)), ENOENT);
    assert_eq!(errno(lp.skipped(handle)), ENOENT);
    assert_eq!(errno(lp.ref_(handle)), ENOENT);
    assert_eq!(errno(lp.unref(handle)), ENOENT);
    assert_eq!(errno(lp.on_release(handle, |_| panic!("a hook has run"))), ENOENT);
    assert!(!lp.is_pending(handle) && !lp.has_ref(handle));
}

/// A place for a handle that a callback needs, and that exists once it is scheduled.
pub(crate) type Place = Rc<Cell<Option<Handle>>>;

/// A place for the handle of a callback that uses its own handle.
pub(crate) fn later() -> (Place, Place) {
    let place = Rc::new(Cell::new(None));
    (Rc::clone(&place), place)
}
