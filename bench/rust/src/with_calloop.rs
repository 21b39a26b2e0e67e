//! The cases with calloop. Inserting, cancelling and firing a timer each search all timers.
//!
//! calloop has no call_soon. The nearest is an idle callback, which runs at the end of an
//! iteration. It does not keep the loop from sleeping, so the loop is told not to sleep.

use std::cell::Cell;
use std::time::{Duration, Instant};

use calloop::channel::{Event, Sender, channel};
use calloop::timer::{TimeoutAction, Timer};
use calloop::{Dispatcher, EventLoop, LoopHandle, LoopSignal, RegistrationToken};
use ringloop_bench::*;

fn new_loop() -> EventLoop<'static, ()> {
    EventLoop::try_new().expect("a loop")
}

fn count(fired: &Cell<u64>) {
    fired.set(fired.get() + 1);
}

fn add_timer(
    handle: &LoopHandle<'static, ()>,
    when: Instant,
    fired: &'static Cell<u64>,
) -> RegistrationToken {
    let fire = move |_, _: &mut (), _: &mut ()| {
        count(fired);
        TimeoutAction::Drop
    };
    handle.insert_source(Timer::from_deadline(when), fire).expect("a timer")
}

/// Runs one iteration, which does not sleep.
fn turn(event_loop: &mut EventLoop<'static, ()>) {
    event_loop.dispatch(Duration::ZERO, &mut ()).expect("an iteration");
}

/// Runs iterations until the wanted number of callbacks has run.
fn run_until(event_loop: &mut EventLoop<'static, ()>, fired: &Cell<u64>, wanted: u64) {
    while fired.get() < wanted {
        event_loop.dispatch(None, &mut ()).expect("an iteration");
    }
}

fn again(handle: &LoopHandle<'static, ()>, fired: &'static Cell<u64>, wanted: u64) {
    count(fired);
    if fired.get() < wanted {
        let next = handle.clone();
        handle.insert_idle(move |()| again(&next, fired, wanted));
    }
}

fn soon_chain() {
    let (mut event_loop, fired, wanted) = (new_loop(), counter(), option("n"));
    let handle = event_loop.handle();
    if option("far") == 1 {
        add_timer(&handle, Instant::now() + AN_HOUR, fired);
    }
    let measure = Measure::start();
    let first = handle.clone();
    handle.insert_idle(move |()| again(&first, fired, wanted));
    while fired.get() < wanted {
        turn(&mut event_loop);
    }
    let used = measure.stop();
    check(fired.get() == wanted, "not all callbacks ran");
    used.report(wanted);
}

fn soon_bulk() {
    let (mut event_loop, fired, wanted) = (new_loop(), counter(), option("n"));
    let handle = event_loop.handle();
    last_of_rounds(|| {
        fired.set(0);
        let measure = Measure::start();
        for _ in 0..wanted {
            handle.insert_idle(move |()| count(fired));
        }
        turn(&mut event_loop);
        let used = measure.stop();
        check(fired.get() == wanted, "not all callbacks ran");
        used
    })
    .report(wanted);
}

fn timers() {
    let (mut event_loop, fired, wanted) = (new_loop(), counter(), option("n"));
    let (span, whole, mut random) = (option("span_ms"), option("whole") == 1, Random::new());
    let handle = event_loop.handle();
    let measure = Measure::start();
    let base = Instant::now();
    for _ in 0..wanted {
        add_timer(&handle, base + random.delay(span, whole), fired);
    }
    run_until(&mut event_loop, fired, wanted);
    let used = measure.stop();
    check(fired.get() == wanted, "not all timers fired");
    used.report(wanted);
}

fn timers_cancel() {
    let (mut event_loop, fired, batches) = (new_loop(), counter(), batches(option("n")));
    let (pending, mut random) = (option("pending") as usize, Random::new());
    let (handle, now) = (event_loop.handle(), Instant::now());
    let mut tokens: Vec<RegistrationToken> =
        (0..pending).map(|_| add_timer(&handle, now + random.timeout(), fired)).collect();
    let measure = Measure::start();
    for _ in 0..batches {
        let now = Instant::now();
        for _ in 0..BATCH {
            let token = &mut tokens[random.index(pending)];
            handle.remove(*token);
            *token = add_timer(&handle, now + random.timeout(), fired);
        }
        turn(&mut event_loop);
    }
    let used = measure.stop();
    // Checks only every 1,000th timer, since each check searches all timers.
    tokens
        .iter()
        .step_by(1000)
        .for_each(|token| check(handle.update(token).is_ok(), "a timer was not pending"));
    check(fired.get() == 0, "a timer fired");
    used.report(batches * BATCH);
}

fn timers_move() {
    let (mut event_loop, fired, batches) = (new_loop(), counter(), batches(option("n")));
    let (connections, mut random) = (option("connections") as usize, Random::new());
    let (handle, timeout) = (event_loop.handle(), Duration::from_millis(option("timeout_ms")));
    let timers: Vec<_> = (0..connections)
        .map(|_| {
            let fire = move |_, _: &mut (), _: &mut ()| {
                count(fired);
                TimeoutAction::Drop
            };
            let timer = Dispatcher::new(Timer::from_duration(timeout), fire);
            let token = handle.register_dispatcher(timer.clone()).expect("a timer");
            (timer, token)
        })
        .collect();
    let measure = Measure::start();
    for _ in 0..batches {
        let when = Instant::now() + timeout;
        for _ in 0..BATCH {
            let (timer, token) = &timers[random.index(connections)];
            timer.as_source_mut().set_deadline(when);
            handle.update(token).expect("the timer is pending");
        }
        turn(&mut event_loop);
    }
    check(fired.get() == 0, "a timer fired too soon");
    run_until(&mut event_loop, fired, connections as u64);
    let used = measure.stop();
    used.report(batches * BATCH);
}

fn timers_memory() {
    let (mut event_loop, fired, pending, mut random) =
        (new_loop(), counter(), option("pending"), Random::new());
    let handle = event_loop.handle();
    turn(&mut event_loop);
    let before = Memory::now();
    let now = Instant::now();
    for _ in 0..pending {
        add_timer(&handle, now + random.timeout(), fired);
    }
    turn(&mut event_loop);
    Used::default().report_memory(pending, before);
    check(fired.get() == 0, "a timer fired");
}

fn lateness() {
    let mut event_loop: EventLoop<'static, Lateness> = EventLoop::try_new().expect("a loop");
    let (mut lateness, signal) = (Lateness::begin(), event_loop.get_signal());
    let fire = move |_, _: &mut (), lateness: &mut Lateness| {
        if lateness.fired() {
            TimeoutAction::ToInstant(lateness.next_deadline())
        } else {
            signal.stop();
            TimeoutAction::Drop
        }
    };
    event_loop
        .handle()
        .insert_source(Timer::from_deadline(lateness.next_deadline()), fire)
        .expect("a timer");
    event_loop.run(None, &mut lateness, |_| {}).expect("a run");
    lateness.report();
}

fn idle() {
    let (mut event_loop, fired, mut random) = (new_loop(), counter(), Random::new());
    let handle = event_loop.handle();
    for _ in 0..option("pending") {
        add_timer(&handle, Instant::now() + random.far(), fired);
    }
    idle_begin();
    run_until(&mut event_loop, fired, 1);
}

fn start() {
    let times = option("n");
    let measure = Measure::start();
    for _ in 0..times {
        drop(new_loop());
    }
    let used = measure.stop();
    let before = Memory::now();
    let _open: Vec<_> = (0..option("open")).map(|_| new_loop()).collect();
    used.report_memory(times, before);
}

// ---- posts from other threads ----

type Call = Box<dyn FnOnce() + Send>;

struct Calloop(EventLoop<'static, ()>);

#[derive(Clone)]
struct Remote(Sender<Call>, LoopSignal);

impl threads::Peer for Calloop {
    type Remote = Remote;

    fn new() -> (Calloop, Remote) {
        let (event_loop, (sender, receiver)) = (new_loop(), channel::<Call>());
        let posted = |event: Event<Call>, _: &mut (), _: &mut ()| {
            if let Event::Msg(call) = event {
                call();
            }
        };
        event_loop.handle().insert_source(receiver, posted).expect("a channel");
        let signal = event_loop.get_signal();
        (Calloop(event_loop), Remote(sender, signal))
    }

    fn run(&mut self) {
        self.0.run(None, &mut (), |()| {}).expect("a run");
    }
}

impl threads::Remote for Remote {
    fn post(&self, callback: impl FnOnce() + Send + 'static) {
        check(self.0.send(Box::new(callback)).is_ok(), "a post is refused");
    }

    fn stop(&self) {
        self.1.stop();
    }
}

fn main() {
    ringloop_bench::main(&loop_cases!(), &threads::cases::<Calloop>());
}
