//! The cases with ringloop through its Rust API.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ringloop::{Handle, Loop, Result};
use ringloop_bench::*;

fn new_loop() -> Loop {
    let spin = Duration::from_micros(option("spin_us"));
    let (slack, exact) = (Duration::from_micros(option("slack_us")), option("exact") == 1);
    let builder = Loop::builder().spin(spin);
    must(if exact || slack > Duration::ZERO { builder.slack(slack) } else { builder }.build())
}

#[track_caller]
fn must<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

fn count(fired: &Cell<u64>) {
    fired.set(fired.get() + 1);
}

fn again(lp: &Loop, fired: &'static Cell<u64>, wanted: u64) {
    count(fired);
    if fired.get() < wanted {
        must(lp.call_soon(move |lp| again(lp, fired, wanted)));
    } else {
        must(lp.stop());
    }
}

fn soon_chain() {
    let (lp, fired, wanted) = (new_loop(), counter(), option("n"));
    if option("far") == 1 {
        must(lp.call_later(AN_HOUR, move |_| count(fired)));
    }
    let measure = Measure::start();
    must(lp.call_soon(move |lp| again(lp, fired, wanted)));
    let _ = must(lp.run_forever());
    let used = measure.stop();
    check(fired.get() == wanted, "not all callbacks ran");
    used.report(wanted);
}

fn soon_bulk() {
    let (lp, fired, wanted) = (new_loop(), counter(), option("n"));
    last_of_rounds(|| {
        fired.set(0);
        let measure = Measure::start();
        for _ in 0..wanted {
            must(lp.call_soon(move |_| count(fired)));
        }
        let _ = must(lp.run());
        let used = measure.stop();
        check(fired.get() == wanted, "not all callbacks ran");
        used
    })
    .report(wanted);
}

fn timers() {
    let (lp, fired, wanted) = (new_loop(), counter(), option("n"));
    let (span, whole, mut random) = (option("span_ms"), option("whole") == 1, Random::new());
    let measure = Measure::start();
    let base = lp.time();
    for _ in 0..wanted {
        must(lp.call_at(base + random.delay(span, whole), move |_| count(fired)));
    }
    let _ = must(lp.run());
    let used = measure.stop();
    check(fired.get() == wanted, "not all timers fired");
    used.report(wanted);
}

fn timers_cancel() {
    let (lp, fired, batches) = (new_loop(), counter(), batches(option("n")));
    let (pending, mut random) = (option("pending") as usize, Random::new());
    let now = lp.time();
    let mut handles: Vec<Handle> = (0..pending)
        .map(|_| must(lp.call_at(now + random.timeout(), move |_| count(fired))))
        .collect();
    let measure = Measure::start();
    for _ in 0..batches {
        let now = lp.time();
        for _ in 0..BATCH {
            let handle = &mut handles[random.index(pending)];
            must(lp.cancel(*handle));
            *handle = must(lp.call_at(now + random.timeout(), move |_| count(fired)));
        }
        must(lp.run_once(Duration::ZERO));
    }
    let used = measure.stop();
    handles
        .into_iter()
        .for_each(|handle| check(lp.cancel(handle).is_ok(), "a timer was not pending"));
    check(fired.get() == 0, "a timer fired");
    used.report(batches * BATCH);
}

fn timers_move() {
    let (lp, fired, batches) = (new_loop(), counter(), batches(option("n")));
    let (connections, mut random) = (option("connections") as usize, Random::new());
    let timeout = Duration::from_millis(option("timeout_ms"));
    let handles: Vec<Handle> =
        (0..connections).map(|_| must(lp.call_later(timeout, move |_| count(fired)))).collect();
    let measure = Measure::start();
    for _ in 0..batches {
        let when = lp.time() + timeout;
        for _ in 0..BATCH {
            must(lp.reschedule(handles[random.index(connections)], when));
        }
        must(lp.run_once(Duration::ZERO));
    }
    check(fired.get() == 0, "a timer fired too soon");
    let _ = must(lp.run());
    let used = measure.stop();
    check(fired.get() == connections as u64, "not all timers fired");
    used.report(batches * BATCH);
}

fn timers_memory() {
    let (lp, fired, pending, mut random) =
        (new_loop(), counter(), option("pending"), Random::new());
    must(lp.run_once(Duration::ZERO));
    let before = Memory::now();
    let now = lp.time();
    for _ in 0..pending {
        must(lp.call_at(now + random.timeout(), move |_| count(fired)));
    }
    must(lp.run_once(Duration::ZERO));
    Used::default().report_memory(pending, before);
    check(fired.get() == 0, "a timer fired");
}

fn next(lp: &Loop, lateness: Rc<RefCell<Lateness>>) {
    let delay = lateness.borrow_mut().next_delay();
    must(lp.call_later(delay, move |lp| {
        if lateness.borrow_mut().fired() {
            next(lp, lateness);
        }
    }));
}

fn lateness() {
    let lp = new_loop();
    let lateness = Rc::new(RefCell::new(Lateness::begin()));
    next(&lp, lateness.clone());
    let _ = must(lp.run());
    lateness.borrow_mut().report();
}

fn idle() {
    let (lp, fired, mut random) = (new_loop(), counter(), Random::new());
    for _ in 0..option("pending") {
        must(lp.call_later(random.far(), move |_| count(fired)));
    }
    idle_begin();
    let _ = must(lp.run());
}

fn start() {
    let times = option("n");
    let measure = Measure::start();
    for _ in 0..times {
        check(new_loop().close().is_ok(), "the loop does not close");
    }
    let used = measure.stop();
    let before = Memory::now();
    let _open: Vec<Loop> = (0..option("open")).map(|_| new_loop()).collect();
    used.report_memory(times, before);
}

// ---- posts from other threads ----

struct Ringloop(Loop);

#[derive(Clone)]
struct Remote(ringloop::Remote);

impl threads::Peer for Ringloop {
    type Remote = Remote;

    fn new() -> (Ringloop, Remote) {
        let lp = new_loop();
        let remote = Remote(lp.remote());
        (Ringloop(lp), remote)
    }

    fn run(&mut self) {
        let _ = must(self.0.run_forever());
    }
}

impl threads::Remote for Remote {
    fn post(&self, callback: impl FnOnce() + Send + 'static) {
        must(self.0.call_soon(move |_| callback()).map_err(ringloop::Error::from));
    }

    fn stop(&self) {
        must(self.0.stop());
    }
}

fn main() {
    ringloop_bench::main(&loop_cases!(), &threads::cases::<Ringloop>());
}
