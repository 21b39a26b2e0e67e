//! S31: the calls that allocate and those that do not. A refused allocation is an error and loses
//! nothing.
//!
//! The allocator of this program counts for each thread, and refuses on demand.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use libc::{ENOENT, ENOMEM};
use ringloop::task::{JoinHandle, TaskGroup, sleep, yield_now};
use ringloop::{Error, Handle, HookPoint, Kind, Loop, Outcome, Sqe, Time};

use self::support::{Watch, Watched};

mod support;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Allocations less frees of this thread; frees on other threads are not counted.
    static LIVE: Cell<i64> = const { Cell::new(0) };
    /// The number of allocations that succeed before one is refused.
    static UNTIL_REFUSAL: Cell<u64> = const { Cell::new(u64::MAX) };
    /// The number of allocations that are refused then.
    static REFUSALS: Cell<u64> = const { Cell::new(0) };
    static REFUSED: Cell<u64> = const { Cell::new(0) };
    /// The number of refusals when the last error was seen.
    static REPORTED: Cell<u64> = const { Cell::new(0) };
}

/// Whether to refuse an allocation; counts the allocation if not.
fn is_refused() -> bool {
    let left = UNTIL_REFUSAL.get();
    if left > 0 {
        UNTIL_REFUSAL.set(left.saturating_sub(u64::from(left != u64::MAX)));
    } else if REFUSALS.get() > 0 {
        REFUSALS.set(REFUSALS.get() - 1);
        REFUSED.set(REFUSED.get() + 1);
        return true;
    }
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    false
}

// SAFETY: every call is passed on to the system's allocator, or returns null, as an allocator may.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_refused() {
            return std::ptr::null_mut();
        }
        LIVE.set(LIVE.get() + 1);
        // SAFETY: the caller's guarantees are those that `System` needs.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, room: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - 1);
        // SAFETY: as above.
        unsafe { System.dealloc(room, layout) }
    }

    unsafe fn realloc(&self, room: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if is_refused() {
            return std::ptr::null_mut();
        }
        // SAFETY: as above.
        unsafe { System.realloc(room, layout, size) }
    }
}

/// The number of allocations that `f` makes.
fn allocations(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

/// Uses a captured value, so that the closure captures it.
fn keep<T>(carried: T) {
    black_box(carried);
}

/// While this value lives, no allocation is refused: for the needs of the test itself.
struct Exempt(u64);

impl Exempt {
    fn begin() -> Exempt {
        Exempt(UNTIL_REFUSAL.replace(u64::MAX))
    }
}

impl Drop for Exempt {
    fn drop(&mut self) {
        UNTIL_REFUSAL.set(self.0);
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const START: Time = Time::from_nanos(1_000_000);

fn ns(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

fn virtual_loop() -> Watched {
    Watched::new(Loop::builder().virtual_time(START).build().unwrap())
}

/// Runs `f` until its structures have grown, then returns the number of its allocations.
fn steady(lp: &Loop, f: impl Fn(&Loop)) -> u64 {
    (0..4).for_each(|_| f(lp));
    allocations(|| (0..4).for_each(|_| f(lp)))
}

#[test]
fn s31_calls_of_small_closures_allocate_nothing() {
    let lp = virtual_loop();
    let sum = Rc::new(Cell::new(0));
    let made = steady(&lp, |lp| {
        for n in 0..1000 {
            let sum = Rc::clone(&sum);
            // Closures of two words, and of none.
            lp.call_soon(move |_| sum.set(sum.get() + n)).unwrap();
            lp.call_soon(|lp| lp.stop().unwrap()).unwrap();
        }
        assert_eq!(lp.run(), Ok(Outcome::Stopped));
    });
    assert_eq!((made, sum.get()), (0, 8 * 499_500));
}

#[test]
fn s31_timers_of_small_closures_allocate_nothing() {
    let lp = virtual_loop();
    let sum = Rc::new(Cell::new(0));
    let made = steady(&lp, |lp| {
        for n in 0..1000 {
            let sum = Rc::clone(&sum);
            lp.call_later(ns(n * 7919 % 1000), move |_| sum.set(sum.get() + n)).unwrap();
        }
        assert_eq!(lp.run(), Ok(Outcome::Done));
    });
    assert_eq!((made, sum.get()), (0, 8 * 499_500));
}

#[test]
fn s31_scheduling_from_callbacks_allocates_nothing() {
    fn again(lp: &Loop, left: u32) {
        if left > 0 {
            lp.call_soon(move |lp| again(lp, left - 1)).unwrap();
            lp.call_later(ns(1), |_| {}).unwrap();
        }
    }
    let made = steady(&virtual_loop(), |lp| {
        lp.call_soon(|lp| again(lp, 1000)).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
    });
    assert_eq!(made, 0);
}

#[test]
fn s31_tracing_allocates_nothing() {
    fn again(lp: &Loop, left: u32) {
        if left > 0 {
            lp.call_soon(move |lp| again(lp, left - 1)).unwrap();
        }
    }
    let file =
        std::env::temp_dir().join(format!("ringloop-{}-allocations.json", std::process::id()));
    let lp = Watched::new(Loop::builder().virtual_time(START).trace(&file).build().unwrap());
    let run = |calls| {
        again(&lp, calls);
        assert_eq!(lp.run(), Ok(Outcome::Done));
    };
    run(1);
    // Some 500 kB of events, which are buffered up to 60 kB at a time.
    assert_eq!(allocations(|| run(4000)), 0);
    drop(lp);
    assert!(std::fs::metadata(&file).unwrap().len() > 200_000);
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn s31_cancelling_and_rescheduling_allocate_nothing() {
    let lp = virtual_loop();
    let handles = RefCell::new(Vec::with_capacity(1000));
    let made = steady(&lp, |lp| {
        let mut handles = handles.borrow_mut();
        handles.clear();
        for n in 0..1000 {
            let timer = lp.call_later(ns(n), move |_| keep(n)).unwrap();
            handles.push(timer);
            // Far more reschedules than timers: the queue removes the stale entries of moved
            // timers.
            for k in 0..10 {
                lp.reschedule(timer, START + HOUR + ns(n * k)).unwrap();
            }
        }
        assert_eq!(lp.run_once(ns(1)), Ok(0));
        handles.iter().for_each(|&handle| lp.cancel(handle).unwrap());
        for n in 0..1000 {
            let call = lp.call_soon(move |_| keep(n)).unwrap();
            lp.cancel(call).unwrap();
        }
    });
    assert_eq!((made, lp.is_alive()), (0, false));
}

#[test]
fn s31_a_repeating_timer_allocates_nothing_a_call() {
    let lp = virtual_loop();
    let calls = Rc::new(Cell::new(0));
    let inner = Rc::clone(&calls);
    lp.call_every(ns(10), move |_| inner.set(inner.get() + 1)).unwrap();
    let made = steady(&lp, |lp| (0..100).for_each(|_| assert_eq!(lp.run_once(HOUR), Ok(1))));
    assert_eq!((made, calls.get()), (0, 800));
}

#[test]
fn s31_sleeping_allocates_nothing() {
    let lp = Watched::new(Loop::new().unwrap());
    let made = steady(&lp, |lp| {
        lp.call_later(ns(100_000), |_| {}).unwrap();
        lp.call_later(ns(200_000), |_| {}).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(lp.run_once(ns(1000)), Ok(0));
    });
    assert_eq!(made, 0);
}

#[test]
fn s31_posts_allocate_nothing() {
    let lp = Watched::new(Loop::new().unwrap());
    let remote = lp.remote();
    let post = |count: u64| {
        for _ in 0..count {
            remote.call_soon(|_| {}).unwrap();
        }
        assert_eq!(lp.run(), Ok(Outcome::Done));
    };
    // The first call leaves memory for more posts than the following ones need.
    post(16_000);
    assert_eq!(allocations(|| (0..8).for_each(|_| post(1000))), 0);
    assert_eq!(lp.metrics().posts, 24_000);
}

#[test]
fn s31_a_task_costs_one_allocation() {
    let lp = virtual_loop();
    let large = [0u64; 100];
    let made = steady(&lp, |lp| {
        for _ in 0..100 {
            drop(lp.spawn(async move {
                yield_now().await;
                keep(large);
            }));
        }
        assert_eq!(lp.run(), Ok(Outcome::Done));
    });
    assert_eq!(made, 4 * 100);
    let made = steady(&lp, |lp| {
        let large = lp.run_until_complete(async {
            yield_now().await;
            large
        });
        keep(large.unwrap());
    });
    assert_eq!(made, 4);
}

#[test]
fn s31_waking_sleeping_joining_and_aborting_allocate_nothing() {
    let lp = virtual_loop();
    for number in 0..100 {
        drop(lp.spawn(async move {
            loop {
                sleep(ns(10 + number)).await.unwrap();
                yield_now().await;
            }
        }));
    }
    assert_eq!(
        steady(&lp, |lp| (0..1000).for_each(|_| assert!(lp.run_once(HOUR).unwrap() > 0))),
        0
    );
    let lp = virtual_loop();
    let joins: Vec<_> = (0..100).map(|_| lp.spawn(std::future::pending::<()>()).unwrap()).collect();
    let handles: Vec<Handle> = joins.iter().map(JoinHandle::handle).collect();
    let waits = lp.spawn(async move {
        for join in joins {
            assert!(join.await.unwrap_err().is_cancelled());
        }
    });
    lp.run_once(Duration::ZERO).unwrap();
    let made = allocations(|| {
        handles.iter().for_each(|&handle| lp.cancel(handle).unwrap());
        assert_eq!(lp.run(), Ok(Outcome::Done));
    });
    assert!(waits.unwrap().is_finished());
    assert_eq!(made, 0);
}

#[test]
fn s31_a_waker_allocates_nothing_on_any_thread() {
    let lp = virtual_loop();
    let place = Rc::new(RefCell::new(None));
    let inner = Rc::clone(&place);
    let polls = Rc::new(Cell::new(0));
    let count = Rc::clone(&polls);
    drop(lp.spawn(std::future::poll_fn(move |context| {
        count.set(count.get() + 1);
        inner.borrow_mut().get_or_insert_with(|| context.waker().clone());
        std::task::Poll::<()>::Pending
    })));
    lp.run_once(Duration::ZERO).unwrap();
    let waker = place.take().unwrap();
    let wake = |waker: &std::task::Waker| {
        allocations(|| {
            waker.wake_by_ref();
            std::task::Waker::wake(waker.clone());
            drop(waker.clone());
        })
    };
    assert_eq!(wake(&waker), 0);
    let other = waker.clone();
    let made = std::thread::spawn(move || wake(&other)).join().unwrap();
    assert_eq!((made, lp.run_once(Duration::ZERO), polls.get()), (0, Ok(1), 2));
}

#[test]
fn s31_a_task_is_woken_though_no_memory_can_be_had() {
    let lp = virtual_loop();
    let wakers = Rc::new(RefCell::new(Vec::new()));
    let polls = Rc::new(RefCell::new(vec![0; 1000]));
    for number in 0..1000 {
        let (wakers, polls) = (Rc::clone(&wakers), Rc::clone(&polls));
        drop(lp.spawn(std::future::poll_fn(move |context| {
            polls.borrow_mut()[number] += 1;
            if polls.borrow()[number] == 1 {
                wakers.borrow_mut().push(context.waker().clone());
                return std::task::Poll::Pending;
            }
            std::task::Poll::Ready(())
        })));
        // A few tasks at a time, so that the ready queue does not grow to hold all of them.
        lp.run_once(Duration::ZERO).unwrap();
    }
    let inner = Rc::clone(&wakers);
    lp.call_soon(move |_| {
        let _famine = Famine::begin();
        inner.borrow().iter().for_each(std::task::Waker::wake_by_ref);
    })
    .unwrap();
    REFUSED.set(0);
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert!(REFUSED.get() > 0, "memory was not short");
    assert!(polls.borrow().iter().all(|&polls| polls == 2));
}

#[test]
fn s31_a_closure_of_more_than_two_words_costs_one_allocation() {
    let lp = virtual_loop();
    let large = [0u64; 3];
    let schedule = |lp: &Loop| {
        lp.call_soon(move |_| keep(large)).unwrap();
        lp.call_later(ns(1), move |_| keep(large)).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
    };
    assert_eq!(steady(&lp, schedule), 4 * 2);
}

#[test]
fn s31_what_only_looks_or_ends_allocates_nothing() {
    let lp = virtual_loop();
    let large = [0u64; 8];
    let mut handles = Vec::new();
    for n in 0..100 {
        handles.push(lp.call_soon(move |_| keep(n)).unwrap());
        handles.push(lp.call_later(HOUR, move |_| keep(large)).unwrap());
        handles.push(lp.call_every(HOUR, move |_| keep(large)).unwrap());
        handles.push(lp.add_hook(HookPoint::AfterWait, |_| {}).unwrap());
    }
    for &handle in &handles {
        lp.on_release(handle, move |_| keep(large)).unwrap();
    }
    let stale = lp.call_soon(|_| {}).unwrap();
    lp.cancel(stale).unwrap();
    // Hooks that cancel one another, to a greater depth than releases nest.
    let mut last = lp.call_soon(|_| {}).unwrap();
    for _ in 0..100 {
        let next = lp.call_later(HOUR, move |_| keep(large)).unwrap();
        lp.on_release(next, move |lp| lp.cancel(last).unwrap()).unwrap();
        last = next;
    }
    let (first, second) = handles.split_at(200);
    let made = allocations(|| {
        for &handle in &handles {
            let _ = (lp.when(handle), lp.skipped(handle), lp.unref(handle), lp.ref_(handle));
            let _ = (lp.has_ref(handle), lp.is_pending(handle));
        }
        let _ = (lp.time(), lp.metrics(), lp.next_deadline(), lp.is_alive(), lp.current_handle());
        lp.walk(|_, info| assert!(info.kind() != Kind::Hook || !info.is_referenced())).unwrap();
        assert!(lp.cancel(stale).is_err_and(|error| error.raw_os_error() == ENOENT));
        assert!(lp.break_().is_err() && lp.reschedule(stale, START).is_err());
        assert!(lp.call_every(Duration::ZERO, |_| {}).is_err());
        lp.stop().unwrap();
        first.iter().for_each(|&handle| lp.cancel(handle).unwrap());
        lp.cancel(last).unwrap();
    });
    assert_eq!(made, 0);
    let made = allocations(|| {
        lp.shutdown().unwrap();
        assert!(second.iter().all(|&handle| !lp.is_pending(handle)));
    });
    assert_eq!(made, 0);
}

#[test]
fn s31_closing_allocates_nothing_and_frees_everything() {
    let live = || {
        let large = [0u64; 8];
        let lp = Loop::builder().virtual_time(START).build().unwrap();
        lp.set_exception_handler(|_, _| {}).unwrap();
        lp.set_slow_callback(HOUR, |_, _| {}).unwrap();
        for n in 0..1000 {
            lp.call_soon(move |_| keep(n)).unwrap();
            let timer = lp.call_later(HOUR, move |_| keep(large)).unwrap();
            lp.on_release(timer, move |_| keep(large)).unwrap();
            lp.call_every(HOUR, move |_| keep(large)).unwrap();
            lp.add_hook(HookPoint::BeforeWait, |_| {}).unwrap();
        }
        lp.call_soon(|lp| lp.break_().unwrap()).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Broken));
        assert_eq!(allocations(|| lp.close().unwrap()), 0);
        LIVE.get()
    };
    // Memory that lives as long as the thread has been allocated after the first loop.
    assert_eq!(live(), live());
}

/// A program that continues when memory is refused, and knows its expected outcome.
struct Scenario {
    /// The numbers of the callbacks that ran, in order. Its capacity suffices from the start.
    ran: Rc<RefCell<Vec<u32>>>,
    /// The numbers of the accepted callbacks, in the order in which they must run.
    accepted: Vec<u32>,
    /// Each callback carries a clone.
    token: Rc<()>,
}

/// The value, or None after ENOMEM; other errors are failures.
fn accept<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert_eq!(error.raw_os_error(), ENOMEM);
            assert!(
                REFUSED.get() > REPORTED.replace(REFUSED.get()),
                "memory was there, the loop said that it was not"
            );
            None
        }
    }
}

impl Scenario {
    fn new() -> Scenario {
        Scenario {
            ran: Rc::new(RefCell::new(Vec::with_capacity(4096))),
            accepted: Vec::with_capacity(4096),
            token: Rc::new(()),
        }
    }

    /// A callback of five words, which is boxed, and which stores its number.
    fn large(&self, number: u32) -> impl FnMut(&Loop) + 'static + use<> {
        let (ran, token, room) = (Rc::clone(&self.ran), Rc::clone(&self.token), [0u64; 2]);
        move |_| {
            keep((&token, &room));
            ran.borrow_mut().push(number);
        }
    }

    /// A callback of two words.
    fn small(&self, number: u32) -> impl FnMut(&Loop) + 'static + use<> {
        let ran = Rc::clone(&self.ran);
        move |_| ran.borrow_mut().push(number)
    }

    fn expect<T>(&mut self, number: u32, result: Result<T, Error>) -> Option<T> {
        let accepted = accept(result);
        if accepted.is_some() {
            self.accepted.push(number);
        }
        accepted
    }

    /// Runs until the loop is done, however often memory is refused meanwhile.
    fn run(&self, lp: &Loop) -> Outcome {
        loop {
            if let Some(outcome) = accept(lp.run()) {
                return outcome;
            }
            assert!(!lp.is_running());
        }
    }

    /// Checks that every accepted callback has run, in order.
    fn check(&mut self) {
        assert_eq!(*self.ran.borrow(), self.accepted);
        self.ran.borrow_mut().clear();
        self.accepted.clear();
    }

    fn play(&mut self) {
        let lp = loop {
            if let Some(lp) = accept(Loop::builder().virtual_time(START).build()) {
                break lp;
            }
        };
        // This comes first, while the queues have no spare capacity.
        self.repeating(&lp);
        self.calls(&lp);
        self.timers(&lp);
        self.broken_batch(&lp);
        self.tasks(&lp);
        self.handlers(&lp);
        self.pending_at_close(&lp);
        lp.close().unwrap();
        assert_eq!(Rc::strong_count(&self.token), 1, "a closure was leaked");
    }

    fn calls(&mut self, lp: &Loop) {
        for number in 0..70 {
            if number % 3 == 0 {
                self.expect(number, lp.call_soon(self.large(number)));
            } else {
                self.expect(number, lp.call_soon(self.small(number)));
            }
            // A cancelled call does not affect the others.
            if let Some(call) = accept(lp.call_soon(self.large(9999))) {
                lp.cancel(call).unwrap();
            }
        }
        assert_eq!(self.run(lp), Outcome::Done);
        self.check();
    }

    fn timers(&mut self, lp: &Loop) {
        let base = lp.time();
        let exempt = Exempt::begin();
        let mut expected = Vec::with_capacity(256);
        drop(exempt);
        for number in 0..70 {
            let mut when = base + ns(500 - u64::from(number % 7));
            let Some(timer) = accept(lp.call_at(when, self.large(number))) else { continue };
            let mut order = 2 * number;
            let target = base + ns(300 + u64::from(number % 5));
            if number % 3 > 0 && accept(lp.reschedule(timer, target)).is_some() {
                (when, order) = (target, 2 * number + 1);
            }
            // A timer whose rescheduling fails keeps its deadline.
            assert_eq!(lp.when(timer), Ok(when));
            expected.push((when, order, number));
        }
        expected.sort_unstable();
        self.accepted.extend(expected.iter().map(|&(.., number)| number));
        assert_eq!(self.run(lp), Outcome::Done);
        self.check();
        // A late start makes all timers due at once.
        while accept(lp.run_once(ns(1000))).is_none() {}
        for number in 0..300 {
            self.expect(number, lp.call_at(base, self.small(number)));
        }
        assert_eq!(self.run(lp), Outcome::Done);
        self.check();
    }

    fn tasks(&mut self, lp: &Loop) {
        let large = [0u64; 20];
        for number in 0..30 {
            let mut noted = (self.large(number), self.small(number + 1000));
            let join = lp.spawn(async move {
                Loop::with_running(|lp| (noted.0)(lp.unwrap()));
                // A sleep that finds no memory ends at once.
                accept(sleep(ns(3)).await);
                yield_now().await;
                keep(large);
                Loop::with_running(|lp| (noted.1)(lp.unwrap()));
            });
            // A refused future is dropped, once.
            self.expect(number, join.map(drop));
        }
        assert_eq!(self.run(lp), Outcome::Done);
        let begun = self.accepted.len();
        assert_eq!(self.ran.borrow()[..begun], self.accepted);
        // With memory refused, a wake takes a longer path, so that the order may differ.
        self.ran.borrow_mut()[begun..].sort_unstable();
        for at in 0..begun {
            self.accepted.push(self.accepted[at] + 1000);
        }
        self.check();
        let mut borrowed = 0;
        while accept(lp.run_until_complete(async {
            keep(&self.token);
            borrowed += 1;
            accept(sleep(ns(1)).await);
        }))
        .is_none()
        {}
        assert!(borrowed > 0);
    }

    fn broken_batch(&mut self, lp: &Loop) {
        if accept(lp.call_soon(|lp| lp.break_().unwrap())).is_none() {
            return;
        }
        for number in 0..40 {
            self.expect(number, lp.call_soon(self.small(number)));
        }
        assert_eq!(self.run(lp), Outcome::Broken);
        assert_eq!(*self.ran.borrow(), []);
        // The rest of the batch and these calls make a larger batch than any before.
        for number in 40..400 {
            self.expect(number, lp.call_soon(self.small(number)));
        }
        assert_eq!(self.run(lp), Outcome::Done);
        self.check();
    }

    fn repeating(&mut self, lp: &Loop) {
        // In each round a callback schedules one more timer while the due repeating timer is out of
        // the queue: if the queue grows, it grows for the next call of the repeating timer.
        let Some(repeating) = accept(lp.call_every(ns(10), self.large(7))) else { return };
        let Some(()) = accept(lp.on_release(repeating, self.large(8))) else {
            lp.cancel(repeating).unwrap();
            return;
        };
        let exempt = Exempt::begin();
        let fillers = Rc::new(RefCell::new(Vec::with_capacity(256)));
        drop(exempt);
        for _ in 0..100 {
            while accept(lp.reschedule(repeating, lp.time())).is_none() {}
            let (filler, inner) = (self.large(9999), Rc::clone(&fillers));
            accept(lp.call_soon(move |lp| {
                inner.borrow_mut().extend(accept(lp.call_later(HOUR, filler)))
            }));
            while lp.when(repeating) == Ok(lp.time()) {
                accept(lp.run_once(Duration::ZERO));
            }
            assert_eq!(lp.when(repeating), Ok(lp.time() + ns(10)), "a call was lost or came twice");
            self.accepted.push(7);
        }
        fillers.borrow().iter().for_each(|&filler: &Handle| lp.cancel(filler).unwrap());
        lp.cancel(repeating).unwrap();
        self.accepted.push(8);
        self.check();
    }

    fn handlers(&mut self, lp: &Loop) {
        // A handler whose replacement fails stays.
        let large = [0u64; 4];
        let mut handled = self.small(1);
        if accept(lp.set_exception_handler(move |lp, _| handled(lp))).is_some() {
            let mut handled = self.small(1);
            accept(lp.set_exception_handler(move |lp, _| {
                black_box(large);
                handled(lp);
            }));
            // std allocates for a panic, and aborts if it cannot.
            let panics = |_: &Loop| {
                let _exempt = Exempt::begin();
                std::panic::resume_unwind(Box::new(()))
            };
            self.expect(1, lp.call_soon(panics));
        }
        accept(lp.set_slow_callback(HOUR, move |_, _| keep(large)));
        for point in [HookPoint::BeforeWait, HookPoint::AfterWait] {
            if let Some(hook) =
                accept(lp.add_hook(point, |lp| lp.cancel(lp.current_handle().unwrap()).unwrap()))
            {
                accept(lp.on_release(hook, |_| {}));
            }
        }
        self.expect(2, lp.call_soon(self.large(2)));
        assert_eq!(self.run(lp), Outcome::Done);
        self.check();
        lp.clear_exception_handler().unwrap();
        lp.clear_slow_callback().unwrap();
    }

    fn pending_at_close(&mut self, lp: &Loop) {
        for number in 0..20 {
            if let Some(timer) = accept(lp.call_later(HOUR, self.large(number))) {
                accept(lp.on_release(timer, self.large(number)));
            }
            accept(lp.call_soon(self.large(number)));
        }
        lp.stop().unwrap();
    }
}

/// While this value lives, every allocation is refused.
struct Famine;

impl Famine {
    fn begin() -> Famine {
        REFUSALS.set(u64::MAX);
        UNTIL_REFUSAL.set(0);
        Famine
    }
}

impl Drop for Famine {
    fn drop(&mut self) {
        UNTIL_REFUSAL.set(u64::MAX);
    }
}

#[test]
fn s31_what_is_scheduled_runs_though_no_memory_can_be_had() {
    for spread in [1, 100, 100_000, 1 << 40] {
        let lp = virtual_loop();
        let ran = Rc::new(RefCell::new(Vec::with_capacity(4096)));
        let mut expected = Vec::new();
        for number in 0..1000_u64 {
            let inner = Rc::clone(&ran);
            let when = START + ns(1 + number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % spread);
            let timer = lp.call_at(when, move |_| inner.borrow_mut().push(number)).unwrap();
            if number % 3 > 0 {
                expected.push((when, number));
            } else {
                lp.cancel(timer).unwrap();
            }
        }
        let calls = Rc::new(Cell::new(0));
        for number in 1000..1100 {
            let (ran, calls) = (Rc::clone(&ran), Rc::clone(&calls));
            lp.call_soon(move |_| ran.borrow_mut().push(number)).unwrap();
            let repeating = lp.call_every(HOUR, move |_| calls.set(calls.get() + 1)).unwrap();
            lp.unref(repeating).unwrap();
        }
        expected.sort_unstable();
        let mut expected: Vec<u64> = expected.into_iter().map(|(_, number)| number).collect();
        expected.splice(0..0, 1000..1100);

        let famine = Famine::begin();
        let outcome = lp.run();
        let repeated = [lp.run_once(HOUR), lp.run_once(HOUR)];
        let large = [0u64; 64];
        let refused = lp.call_soon(move |_| keep(large)).map_err(|error| error.raw_os_error());
        drop(famine);
        assert_eq!((outcome, repeated), (Ok(Outcome::Done), [Ok(100), Ok(100)]));
        assert_eq!(*ran.borrow(), expected);
        assert_eq!(refused, Err(ENOMEM), "memory was not short");
    }
}

#[test]
fn s31_a_send_that_waits_is_not_lost_when_memory_is_refused() {
    use std::io::Read;
    let lp = Watched::new(Loop::new().unwrap());
    let (one, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
    other.set_nonblocking(true).unwrap();
    let one = Rc::new(one);
    let results = Rc::new(RefCell::new(Vec::with_capacity(10)));
    let mut room = vec![0; 1 << 20];
    let mut handles = Vec::new();
    for number in 0..5 {
        let results = Rc::clone(&results);
        let done = move |_: &Loop, result: Result<usize, Error>, _: Vec<u8>| {
            results.borrow_mut().push((number, result.map_err(|error| error.raw_os_error())));
        };
        handles.push(lp.send_all(Rc::clone(&one), vec![number; 1 << 20], 0, done).unwrap());
    }
    lp.run_once(Duration::ZERO).unwrap();
    let mut outcomes = Vec::with_capacity(100);
    let famine = Famine::begin();
    let cancelled = allocations(|| lp.cancel(handles[1]).unwrap_or_default());
    for _ in 0..100 {
        outcomes.push(lp.run_once(Duration::ZERO));
        while other.read(&mut room).is_ok_and(|count| count > 0) {}
    }
    drop(famine);
    assert_eq!(cancelled, 0);
    assert!(outcomes.iter().all(
        |outcome| outcome.is_ok() || outcome.is_err_and(|error| error.raw_os_error() == ENOMEM)
    ));
    while results.borrow().len() < 3 {
        lp.run_once(Duration::ZERO).unwrap();
        while other.read(&mut room).is_ok_and(|count| count > 0) {}
    }
    results.borrow_mut().sort_unstable();
    assert_eq!(*results.borrow(), [(0, Ok(1 << 20)), (1, Err(libc::ECANCELED)), (2, Ok(1 << 20))]);
    lp.run_once(Duration::ZERO).unwrap();
    let famine = Famine::begin();
    let closed = lp.close();
    drop(famine);
    closed.unwrap();
    // The fourth send has begun, the last has not.
    let mut count = 0;
    drop(one);
    while let Ok(length @ 1..) = other.read(&mut room) {
        assert!(room[..length].iter().all(|&byte| byte == 3));
        count += length;
    }
    assert!(count > 0);
}

#[test]
fn s31_a_signal_is_told_once_to_each_handler_though_memory_is_refused() {
    let lp = virtual_loop();
    // The ready queue has room for a few callbacks.
    lp.call_soon(|_| ()).unwrap();
    lp.run().unwrap();
    let signal = libc::SIGRTMIN() + 6;
    let calls = Rc::new(RefCell::new(vec![0; 100]));
    for handler in 0..100 {
        let calls = Rc::clone(&calls);
        lp.add_signal_handler(signal, move |_| calls.borrow_mut()[handler] += 1).unwrap();
    }
    // SAFETY: the loop handles the signal.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
    let famine = Famine::begin();
    let in_famine = lp.run_once(Duration::ZERO);
    drop(famine);
    assert_ne!(in_famine, Ok(100), "memory was not short");
    while lp.run_once(Duration::ZERO).unwrap() > 0 {}
    assert_eq!(*calls.borrow(), [1; 100]);
}

/// Plays the scenario with `refusals` refused allocations after the first `until`; returns whether
/// any was refused.
fn play(until: u64, refusals: u64) -> bool {
    let live = LIVE.get();
    let mut scenario = Scenario::new();
    REFUSED.set(0);
    REPORTED.set(0);
    REFUSALS.set(refusals);
    UNTIL_REFUSAL.set(until);
    scenario.play();
    UNTIL_REFUSAL.set(u64::MAX);
    drop(scenario);
    assert_eq!(LIVE.get(), live, "memory was leaked");
    REFUSED.get() > 0
}

#[test]
fn s31_memory_that_is_refused_once_is_enomem_and_loses_nothing() {
    let _watch = Watch::begin();
    // Allocates the memory that lives as long as the thread.
    drop(Loop::new().unwrap());
    let mut until = 0;
    while play(until, 1) {
        until += 1;
    }
    assert!(until > 300, "the scenario makes more than {until} allocations");
}

#[test]
fn s31_memory_that_is_refused_for_a_while_is_enomem_and_loses_nothing() {
    let _watch = Watch::begin();
    drop(Loop::new().unwrap());
    for refusals in [2, 3, 10] {
        let mut until = 0;
        while play(until, refusals) {
            until += 1;
        }
        assert!(until > 300, "the scenario makes more than {until} allocations");
    }
}

/// As `steady`, for a future.
async fn steady_async(lp: &Loop, mut f: impl AsyncFnMut()) -> u64 {
    for _ in 0..4 {
        f().await;
    }
    let (before, entered) = (ALLOCATIONS.get(), lp.metrics().enters);
    for _ in 0..4 {
        f().await;
    }
    assert!(lp.metrics().enters - entered <= 16, "a system call for each operation, and no more");
    ALLOCATIONS.get() - before
}

#[test]
fn s31_an_operation_of_a_task_is_one_allocation() {
    let lp = Watched::new(Loop::new().unwrap());
    let work = async {
        let (mut one, mut other) = ringloop::net::UnixStream::pair().unwrap();
        let mut buffers = Some((vec![0; 1000], Vec::with_capacity(1000)));
        let made = steady_async(&lp, async || {
            let (from, to) = buffers.take().unwrap();
            let (written, from) = one.write_all(from).await;
            let (read, mut to) = other.read(to).await;
            assert_eq!((written, read), (Ok(()), Ok(1000)));
            to.clear();
            buffers = Some((from, to));
        })
        .await;
        assert_eq!(made, 8);
    };
    lp.run_until_complete(work).unwrap();
}

#[test]
fn s31_a_buffer_comes_back_when_memory_is_refused() {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    fn refuse(until: u64, refusals: u64) {
        UNTIL_REFUSAL.set(until);
        REFUSALS.set(refusals);
    }
    let lp = Watched::new(Loop::new().unwrap());
    let work = async {
        let (one, _other) = ringloop::net::UnixStream::pair().unwrap();
        let (mut reader, mut writer) = one.into_split();
        let mut refusals = 0;
        for until in 0..10 {
            let (room, text) = (Vec::with_capacity(10), vec![7; 10]);
            let (mut reading, mut writing) =
                (pin!(reader.read(room)), pin!(writer.write_all(text)));
            poll_fn(|context| {
                refuse(until, 1);
                let read = reading.as_mut().poll(context);
                refuse(until, 1);
                let written = writing.as_mut().poll(context);
                refuse(u64::MAX, 0);
                if let Poll::Ready((read, room)) = read {
                    assert_eq!((read.unwrap_err().raw_os_error(), room.capacity()), (ENOMEM, 10));
                    refusals += 1;
                }
                if let Poll::Ready((written, text)) = written {
                    assert_eq!((written.unwrap_err().raw_os_error(), text), (ENOMEM, vec![7; 10]));
                    refusals += 1;
                }
                Poll::Ready(())
            })
            .await;
        }
        assert!(refusals >= 2);
    };
    lp.run_until_complete(work).unwrap();
}

#[test]
fn s46_a_group_that_lives_long_keeps_nothing_of_tasks_that_have_ended() {
    let _watch = Watch::begin();
    let lp = Loop::builder().virtual_time(Time::default()).build().unwrap();
    lp.run_until_complete(async {
        let group: TaskGroup<(), ()> = TaskGroup::new();
        group.spawn(std::future::pending()).unwrap();
        let mut before = 0;
        for round in 0..200 {
            if round == 20 {
                before = ALLOCATIONS.get();
            }
            for _ in 0..100 {
                group.spawn(async { Ok(()) }).unwrap();
            }
            yield_now().await;
            yield_now().await;
            assert_eq!(group.len(), 1);
        }
        // One allocation for each task: no structure has to grow any more.
        assert_eq!(ALLOCATIONS.get() - before, 180 * 100);
    })
    .unwrap();
}

#[test]
fn s31_closing_ends_operations_though_no_memory_can_be_had() {
    const POLL_ADD: u8 = 6;
    let lp = Watched::new(Loop::new().unwrap());
    let (stream, _peer) = UnixStream::pair().unwrap();
    let poll = Sqe {
        opcode: POLL_ADD,
        fd: stream.as_raw_fd(),
        op_flags: libc::POLLIN as u32,
        ..Sqe::default()
    };
    let carried = Rc::new(());
    for _ in 0..120 {
        let carried = Rc::clone(&carried);
        // SAFETY: the entry of a poll has no pointers.
        unsafe { lp.submit(&poll, move |_, _| keep(&carried)) }.unwrap();
    }
    lp.run_once(Duration::ZERO).unwrap();
    // The kernel accepts the connection once it has the entry; no callback sees the result.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    lp.accept(listener, |_, _| panic!("closing runs no callback")).unwrap();
    REFUSED.set(0);
    let famine = Famine::begin();
    let is_closed = lp.close().is_ok();
    drop(famine);
    assert!(is_closed && REFUSED.get() > 0);
    assert_eq!((Rc::strong_count(&carried), client.read(&mut [0]).unwrap()), (1, 0));
}
