//! Random programs on the real loop in virtual time, against a model that is too simple to be
//! wrong.
//!
//! A program schedules, cancels, reschedules, stops, breaks and panics, from outside and from
//! inside callbacks: each callback carries a script of further actions. The model is written from
//! the rules, with plain lists and a number for a clock. Everything that can be observed is
//! compared after each step: which callback began when, what each action returned, what was dropped
//! and released, how each run ended, what is left.
//!
//! PROPTEST_CASES raises the number of programs.

use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ringloop::{Loop, Outcome, Time};

use self::model::{Hangs, Model};
use self::real::Real;
use self::support::{Watch, Watched};

mod model;
mod program;
mod real;
#[path = "../support/mod.rs"]
mod support;
mod tasks;

/// What a callback does; actions on handles count back from the thing that was scheduled last.
type Script = Rc<[Action]>;

#[derive(Clone, Debug)]
enum Action {
    CallSoon(Script),
    CallLater(u64, Script),
    CallAt(When, Script),
    CallEvery(u64, Script),
    /// Many timers that do nothing, over a time of so many bits.
    Flood(Many),
    /// Cancels or reschedules two thirds of what there ever was.
    Thin(Many),
    Cancel(usize),
    Reschedule(usize, When),
    When(usize),
    Skipped(usize),
    IsPending(usize),
    Ref(usize),
    Unref(usize),
    OnRelease(usize),
    Stop,
    Break,
    /// A run from inside a callback.
    Run,
    /// From inside a callback.
    Panic,
}

#[derive(Clone, Copy, Debug)]
struct Many {
    count: u64,
    bits: u32,
    seed: u64,
}

impl Many {
    /// The number for the `n`-th of them: looks random, always the same.
    fn number(self, n: u64) -> u64 {
        let mixed = (self.seed ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    fn delay(self, n: u64) -> u64 {
        self.number(n).checked_shr(64 - self.bits).unwrap_or(0)
    }
}

/// A time, by the clock when the action is done.
#[derive(Clone, Copy, Debug)]
enum When {
    Past(u64),
    Ahead(u64),
    Zero,
    Never,
}

impl When {
    fn at(self, now: u64) -> u64 {
        match self {
            When::Past(nanos) => now.saturating_sub(nanos),
            When::Ahead(nanos) => now.saturating_add(nanos),
            When::Zero => 0,
            When::Never => u64::MAX,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Do(Action),
    Run,
    RunForever,
    /// With a limit; `u64::MAX` is none.
    RunOnce(u64),
}

#[derive(Clone, Debug)]
struct Program {
    start: u64,
    slack: u64,
    /// Whether there is an exception handler.
    handles_panics: bool,
    steps: Vec<Step>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Event {
    Began {
        thing: usize,
        time: u64,
    },
    /// What an action returned: a number (0 where there is none), or an errno.
    Did(Result<u64, i32>),
    Dropped(usize),
    Released(usize),
    HandledPanic,
    Returned(Ended),
    Left {
        time: u64,
        is_alive: bool,
        next_deadline: Option<u64>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    Run(Outcome),
    RunOnce(usize),
    Panicked,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Counts {
    iterations: u64,
    callbacks: u64,
    timers_fired: u64,
    timers_cancelled: u64,
    timers_skipped: u64,
    asleep: u64,
}

/// After so many callbacks, not counting one-shots that do nothing, a program comes to its end:
/// scripts are no longer done, each callback asks for a stop.
const ENOUGH: u64 = 300;

/// The index that is `back` before the last one of `len`.
fn newest(len: usize, back: usize) -> Option<usize> {
    if len == 0 { None } else { Some(len - 1 - back % len) }
}

fn check(program: &Program) -> Result<(), TestCaseError> {
    let mut model = Model::new(program);
    let start = Time::from_nanos(program.start);
    let builder = Loop::builder().virtual_time(start).slack(Duration::from_nanos(program.slack));
    let lp = Watched::with(Watch::begin_for(format!("{program:#?}")), builder.build().unwrap());
    let real = Rc::new(Real::new(1));
    if program.handles_panics {
        let real = Rc::clone(&real);
        lp.set_exception_handler(move |_, _| real.add(Event::HandledPanic)).unwrap();
    }
    for step in &program.steps {
        let before = model.clone();
        if let Err(Hangs) = model.step(step) {
            model = before;
            continue;
        }
        real.step(&lp, step);
        prop_assert_eq!(&*real.trace.borrow(), &model.trace, "after {:?}", step);
        real.trace.borrow_mut().clear();
        model.trace.clear();
    }
    let m = lp.metrics();
    let counts = Counts {
        iterations: m.iterations,
        callbacks: m.callbacks,
        timers_fired: m.timers_fired,
        timers_cancelled: m.timers_cancelled,
        timers_skipped: m.timers_skipped,
        asleep: m.asleep_ns,
    };
    prop_assert_eq!(counts, model.counts);
    prop_assert_eq!((m.enters, m.submitted, m.completed), (0, 0, 0));
    lp.close().unwrap();
    model.close();
    // In which order close drops is nobody's business; that each Drop comes once, and before its
    // release hook, is.
    let by_thing = |events: &[Event]| {
        let mut events = events.to_vec();
        events.sort_by_key(|event| match event {
            Event::Dropped(thing) | Event::Released(thing) => *thing,
            _ => usize::MAX,
        });
        events
    };
    prop_assert_eq!(by_thing(&real.trace.borrow()), by_thing(&model.trace));
    Ok(())
}

/// The same program on the real clock: which times come about is not known, but what is promised of
/// each callback is.
fn check_in_time(program: &Program) -> Result<(), TestCaseError> {
    // Deadlines of up to 0.2 ms, and some that no test lives to see.
    let real = Rc::new(Real::new(2000));
    let builder = Loop::builder().slack(Duration::from_nanos(1000 * program.slack));
    let lp = Watched::with(Watch::begin_for(format!("{program:#?}")), builder.build().unwrap());
    let is_embedded = program.start == 0;
    if program.handles_panics {
        lp.set_exception_handler(|_, _| {}).unwrap();
    }
    if is_embedded {
        lp.fd().unwrap();
    }
    for step in &program.steps {
        if is_embedded {
            lp.flush().unwrap();
        }
        real.step_in_time(&lp, step);
    }
    real.settle(&lp);
    Ok(())
}

fn run(check: fn(&Program) -> Result<(), TestCaseError>, cases: u32) {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    config.cases = config.cases.max(cases);
    let mut runner = TestRunner::new(config);
    if let Err(failure) = runner.run(&program::program(), |program| check(&program)) {
        panic!("{failure}");
    }
}

/// The rules S4 to S8, S10, S11, S14 to S20, S30, S35 and S36, all at once.
#[test]
fn the_loop_agrees_with_the_model() {
    run(check, 2000);
}

/// The rules S2, S11, S15 and S19 on the real clock: nothing runs early, nothing that has ended,
/// nothing that is due is left, no sleep is cut short, none is for ever.
#[test]
fn the_loop_keeps_its_word_on_the_real_clock() {
    run(check_in_time, 1000);
}
