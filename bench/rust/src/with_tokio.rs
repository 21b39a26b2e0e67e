//! The cases with tokio's current-thread runtime. Its timers count in milliseconds.
//!
//! tokio has futures instead of callbacks. A call is a task, and so is a timer that fires. A timer
//! that is cancelled or moved is a `Sleep` that was polled once, as in `timeout()` and `select!`,
//! which is cheaper than a task.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;

use ringloop_bench::*;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::yield_now;
use tokio::time::{Duration, Instant, Sleep, sleep_until};

/// The counters are atomic because tasks must be `Send`. One thread counts with a load and a store.
static FIRED: AtomicU64 = AtomicU64::new(0);
static STARTED: AtomicU64 = AtomicU64::new(0);
static LAST: Notify = Notify::const_new();

fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    // no_io=1: a runtime with only timers and tasks, without epoll.
    if option("no_io") == 1 {
        builder.enable_time()
    } else {
        builder.enable_all()
    };
    builder.build().expect("a runtime")
}

/// Counts the end of a task; the last task wakes the main task.
fn count(wanted: u64) {
    FIRED.store(FIRED.load(Relaxed) + 1, Relaxed);
    if FIRED.load(Relaxed) == wanted {
        LAST.notify_one();
    }
}

fn soon_chain() {
    let wanted = option("n");
    runtime().block_on(async {
        if option("far") == 1 {
            tokio::spawn(async {
                sleep_until(Instant::now() + AN_HOUR).await;
                count(0);
            });
            yield_now().await;
        }
        let measure = Measure::start();
        for _ in 0..wanted {
            yield_now().await;
            FIRED.store(FIRED.load(Relaxed) + 1, Relaxed);
        }
        let used = measure.stop();
        check(FIRED.load(Relaxed) == wanted, "not all yields returned");
        used.report(wanted);
    });
}

fn soon_bulk() {
    let (runtime, wanted) = (runtime(), option("n"));
    last_of_rounds(|| {
        runtime.block_on(async {
            FIRED.store(0, Relaxed);
            let measure = Measure::start();
            for _ in 0..wanted {
                tokio::spawn(async move { count(wanted) });
            }
            LAST.notified().await;
            let used = measure.stop();
            check(FIRED.load(Relaxed) == wanted, "not all tasks ran");
            used
        })
    })
    .report(wanted);
}

fn timers() {
    let (wanted, span, whole, mut random) =
        (option("n"), option("span_ms"), option("whole") == 1, Random::new());
    runtime().block_on(async {
        let measure = Measure::start();
        let base = Instant::now();
        for _ in 0..wanted {
            let when = base + random.delay(span, whole);
            tokio::spawn(async move {
                sleep_until(when).await;
                count(wanted);
            });
        }
        LAST.notified().await;
        let used = measure.stop();
        check(FIRED.load(Relaxed) == wanted, "not all timers fired");
        used.report(wanted);
    });
}

/// A timer that is pending: the first poll registers it.
async fn pending_sleep(when: Instant) -> Pin<Box<Sleep>> {
    let mut sleep = Box::pin(sleep_until(when));
    poll_fn(|context| {
        check(sleep.as_mut().poll(context).is_pending(), "a timer fired too soon");
        Poll::Ready(())
    })
    .await;
    sleep
}

fn timers_cancel() {
    let (batches, pending, mut random) =
        (batches(option("n")), option("pending") as usize, Random::new());
    runtime().block_on(async {
        let now = Instant::now();
        let mut sleeps = Vec::with_capacity(pending);
        for _ in 0..pending {
            sleeps.push(pending_sleep(now + random.timeout()).await);
        }
        let measure = Measure::start();
        for _ in 0..batches {
            let now = Instant::now();
            for _ in 0..BATCH {
                let sleep = &mut sleeps[random.index(pending)];
                *sleep = pending_sleep(now + random.timeout()).await;
            }
            yield_now().await;
        }
        let used = measure.stop();
        sleeps.iter().for_each(|sleep| check(!sleep.is_elapsed(), "a timer fired"));
        used.report(batches * BATCH);
    });
}

fn timers_move() {
    let (batches, connections, mut random) =
        (batches(option("n")), option("connections") as usize, Random::new());
    let timeout = Duration::from_millis(option("timeout_ms"));
    runtime().block_on(async {
        let now = Instant::now();
        let mut sleeps = Vec::with_capacity(connections);
        for _ in 0..connections {
            sleeps.push(pending_sleep(now + timeout).await);
        }
        let measure = Measure::start();
        for _ in 0..batches {
            let when = Instant::now() + timeout;
            for _ in 0..BATCH {
                sleeps[random.index(connections)].as_mut().reset(when);
            }
            yield_now().await;
        }
        sleeps.iter().for_each(|sleep| check(!sleep.is_elapsed(), "a timer fired too soon"));
        for sleep in &mut sleeps {
            sleep.await;
        }
        let used = measure.stop();
        sleeps.iter().for_each(|sleep| check(sleep.is_elapsed(), "not all timers fired"));
        used.report(batches * BATCH);
    });
}

fn timers_memory() {
    let (pending, mut random) = (option("pending"), Random::new());
    runtime().block_on(async {
        yield_now().await;
        let before = Memory::now();
        let now = Instant::now();
        for _ in 0..batches(pending) {
            for _ in 0..BATCH {
                let when = now + random.timeout();
                tokio::spawn(async move {
                    STARTED.store(STARTED.load(Relaxed) + 1, Relaxed);
                    sleep_until(when).await;
                    count(pending);
                });
            }
            // Each task runs once, up to its sleep.
            yield_now().await;
        }
        while STARTED.load(Relaxed) < pending {
            yield_now().await;
        }
        Used::default().report_memory(pending, before);
        check(FIRED.load(Relaxed) == 0, "a timer fired");
    });
}

fn lateness() {
    runtime().block_on(async {
        let mut lateness = Lateness::begin();
        loop {
            sleep_until(lateness.next_deadline().into()).await;
            if !lateness.fired() {
                break;
            }
        }
        lateness.report();
    });
}

thread_local!(static DENSE: RefCell<Lateness> = RefCell::new(Lateness::begin()));

fn dense() {
    let (wanted, span, lead) =
        (option("n"), option("span_ms"), Duration::from_millis(option("lead_ms")));
    let mut random = Random::new();
    runtime().block_on(async {
        DENSE.with(|_| ());
        let base = Instant::now() + lead;
        for _ in 0..wanted {
            let when = base + random.delay(span, false);
            tokio::spawn(async move {
                STARTED.store(STARTED.load(Relaxed) + 1, Relaxed);
                if STARTED.load(Relaxed) == wanted {
                    check(Instant::now() <= base, "lead_ms is too short");
                }
                sleep_until(when).await;
                if !DENSE.with_borrow_mut(|late| late.fired_at(when.into_std())) {
                    LAST.notify_one();
                }
            });
        }
        LAST.notified().await;
        DENSE.with_borrow_mut(Lateness::report);
    });
}

fn idle() {
    let (pending, mut random) = (option("pending"), Random::new());
    runtime().block_on(async {
        let now = Instant::now();
        for _ in 0..pending {
            let when = now + random.far();
            tokio::spawn(async move {
                sleep_until(when).await;
                count(pending);
            });
        }
        idle_begin();
        LAST.notified().await;
    });
}

fn start() {
    let times = option("n");
    let measure = Measure::start();
    for _ in 0..times {
        drop(runtime());
    }
    let used = measure.stop();
    let before = Memory::now();
    let _open: Vec<Runtime> = (0..option("open")).map(|_| runtime()).collect();
    used.report_memory(times, before);
}

// ---- posts from other threads ----

/// Each callback is a task.
struct Tokio(Runtime, Arc<Notify>);

#[derive(Clone)]
struct Remote(Handle, Arc<Notify>);

impl threads::Peer for Tokio {
    type Remote = Remote;

    fn new() -> (Tokio, Remote) {
        let (runtime, end) = (runtime(), Arc::new(Notify::new()));
        let remote = Remote(runtime.handle().clone(), end.clone());
        (Tokio(runtime, end), remote)
    }

    fn run(&mut self) {
        self.0.block_on(self.1.notified());
    }
}

impl threads::Remote for Remote {
    fn post(&self, callback: impl FnOnce() + Send + 'static) {
        self.0.spawn(async move { callback() });
    }

    fn stop(&self) {
        self.1.notify_one();
    }
}

type Call = Box<dyn FnOnce() + Send>;

/// mpsc=1: one task runs the callbacks that come through a channel.
struct Mpsc(Runtime, UnboundedReceiver<Option<Call>>);

#[derive(Clone)]
struct Sender(UnboundedSender<Option<Call>>);

impl threads::Peer for Mpsc {
    type Remote = Sender;

    fn new() -> (Mpsc, Sender) {
        let (sender, receiver) = unbounded_channel();
        (Mpsc(runtime(), receiver), Sender(sender))
    }

    fn run(&mut self) {
        let Mpsc(runtime, receiver) = self;
        runtime.block_on(async {
            while let Some(call) = receiver.recv().await.expect("a sender is left") {
                call();
            }
        });
    }
}

impl threads::Remote for Sender {
    fn post(&self, callback: impl FnOnce() + Send + 'static) {
        check(self.0.send(Some(Box::new(callback))).is_ok(), "a post is refused");
    }

    fn stop(&self) {
        check(self.0.send(None).is_ok(), "a stop is refused");
    }
}

fn main() {
    let more =
        if option("mpsc") == 1 { threads::cases::<Mpsc>() } else { threads::cases::<Tokio>() };
    let cases = [&loop_cases!()[..], &[("dense", dense)]].concat();
    ringloop_bench::main(&cases, &more);
}
