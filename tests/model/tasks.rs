//! Random programs of tasks on the real loop in virtual time, against a model of one FIFO and a
//! list of sleepers.
//!
//! Tasks spawn others, yield, sleep, wait to be woken, wake, abort and join each other. Everything
//! that they do is compared, with the time at which they do it: the order of polls shows in that.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ringloop::task::{JoinHandle, sleep, yield_now};
use ringloop::{Loop, Time};

use crate::support::{Watch, Watched};

type Script = Rc<[Step]>;

/// What a task does; tasks are counted from the first, round and round.
#[derive(Clone, Debug)]
enum Step {
    Yield,
    Spawn(Script),
    /// A call that does nothing, and takes its turn.
    Call,
    Sleep(u64),
    /// Waits until somebody wakes it, if nobody has since it waited last.
    Park,
    Wake(usize),
    /// Wakes for nothing.
    Disturb(usize),
    Abort(usize),
    /// Awaits the end, unless somebody does already.
    Join(usize),
    /// Lets it go on by itself.
    Detach(usize),
    Panic,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    /// Has come to a step.
    Step(usize),
    Call,
    Joined(&'static str),
    Dropped,
    /// Nothing is left to be run: a sleep that was cancelled holds nobody up.
    End,
    /// At the end of the program: whether it has ended.
    Left(bool),
}

/// When, which task, what.
type Event = (u64, usize, What);

fn script() -> impl Strategy<Value = Script> {
    let step = || {
        let other = || 0..12usize;
        prop_oneof![
            4 => Just(Step::Yield),
            1 => Just(Step::Call),
            4 => (0..6u64).prop_map(Step::Sleep),
            3 => Just(Step::Park),
            4 => other().prop_map(Step::Wake),
            2 => other().prop_map(Step::Disturb),
            2 => other().prop_map(Step::Abort),
            4 => other().prop_map(Step::Join),
            1 => other().prop_map(Step::Detach),
            1 => Just(Step::Panic),
        ]
    };
    let leaf = vec(step(), 0..6).prop_map(Script::from).boxed();
    leaf.prop_recursive(3, 24, 4, move |inner| {
        vec(prop_oneof![4 => step(), 3 => inner.prop_map(Step::Spawn)], 0..8).prop_map(Script::from)
    })
}

// ---- the real loop ----

#[derive(Default)]
struct World {
    events: RefCell<Vec<Event>>,
    tasks: RefCell<Vec<Rc<Known>>>,
}

#[derive(Default)]
struct Known {
    join: RefCell<Option<JoinHandle<()>>>,
    waker: RefCell<Option<Waker>>,
    is_woken: Cell<bool>,
}

/// Adds an event when the future is dropped.
struct Own(Rc<World>, usize);

impl Own {
    fn note(&self, what: What) {
        let now = Loop::with_running(|lp| lp.map_or(0, |lp| lp.time().as_nanos()));
        self.0.events.borrow_mut().push((now, self.1, what));
    }

    fn other(&self, number: usize) -> Rc<Known> {
        let tasks = self.0.tasks.borrow();
        Rc::clone(&tasks[number % tasks.len()])
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.note(What::Dropped);
    }
}

fn spawn(lp: &Loop, world: &Rc<World>, script: Script) {
    let known = Rc::new(Known::default());
    let own = Own(Rc::clone(world), world.tasks.borrow().len());
    world.tasks.borrow_mut().push(Rc::clone(&known));
    let join = lp.spawn(play(own, Rc::clone(&known), script)).unwrap();
    *known.join.borrow_mut() = Some(join);
}

async fn play(own: Own, known: Rc<Known>, script: Script) {
    poll_fn(|context| {
        *known.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Ready(())
    })
    .await;
    for (at, step) in script.iter().enumerate() {
        own.note(What::Step(at));
        match step {
            Step::Yield => yield_now().await,
            Step::Spawn(script) => {
                Loop::with_running(|lp| spawn(lp.unwrap(), &own.0, Rc::clone(script)))
            }
            Step::Call => {
                let (world, number) = (Rc::clone(&own.0), own.1);
                let call = move |lp: &Loop| {
                    world.events.borrow_mut().push((lp.time().as_nanos(), number, What::Call));
                };
                Loop::with_running(|lp| lp.unwrap().call_soon(call).map(drop)).unwrap();
            }
            Step::Sleep(nanos) => sleep(Duration::from_nanos(*nanos)).await.unwrap(),
            Step::Park => {
                poll_fn(|_| if known.is_woken.take() { Poll::Ready(()) } else { Poll::Pending })
                    .await;
            }
            Step::Wake(other) => {
                let other = own.other(*other);
                other.is_woken.set(true);
                other.waker.borrow().iter().for_each(Waker::wake_by_ref);
            }
            Step::Disturb(other) => {
                own.other(*other).waker.borrow().iter().for_each(Waker::wake_by_ref)
            }
            Step::Abort(other) => {
                let other = own.other(*other);
                // What that drops may look at the join handle.
                let join = other.join.borrow();
                join.iter().for_each(JoinHandle::abort);
            }
            Step::Join(other) => {
                let join = own.other(*other).join.take();
                if let Some(join) = join {
                    let joined = match join.await {
                        Ok(()) => "output",
                        Err(error) if error.is_cancelled() => "aborted",
                        Err(_) => "panic",
                    };
                    own.note(What::Joined(joined));
                }
            }
            Step::Detach(other) => drop(own.other(*other).join.take()),
            Step::Panic => std::panic::resume_unwind(Box::new(())),
        }
    }
}

fn real(scripts: &[Script]) -> Vec<Event> {
    let lp = Watched::new(Loop::builder().virtual_time(Time::from_nanos(0)).build().unwrap());
    lp.set_exception_handler(|_, _| {}).unwrap();
    let world = Rc::new(World::default());
    scripts.iter().for_each(|script| spawn(&lp, &world, Rc::clone(script)));
    loop {
        if lp.run_once(Duration::ZERO).unwrap() == 0 {
            if lp.next_deadline().is_none() {
                break;
            }
            lp.run_once(Duration::MAX).unwrap();
        }
    }
    let mut events = world.events.take();
    events.push((lp.time().as_nanos(), 0, What::End));
    let tasks = world.tasks.take();
    for (number, known) in tasks.iter().enumerate() {
        if let Some(join) = known.join.take() {
            events.push((0, number, What::Left(join.is_finished())));
        }
    }
    drop(tasks);
    lp.close().unwrap();
    // Tasks that wait for ever are dropped by closing.
    let mut dropped: Vec<usize> =
        world.events.take().into_iter().map(|(_, number, _)| number).collect();
    dropped.sort_unstable();
    events.extend(dropped.into_iter().map(|number| (0, number, What::Dropped)));
    events
}

// ---- the model ----

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waits {
    Not,
    Yielded,
    Until(u64),
    Parked,
    For(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Joinable {
    /// Its join handle lies about.
    Idle,
    /// A task awaits it, or is about to.
    By(usize),
    Gone,
}

struct Task {
    script: Script,
    at: usize,
    waits: Waits,
    has_begun: bool,
    is_queued: bool,
    is_woken: bool,
    aborts_itself: bool,
    ended: Option<&'static str>,
    joinable: Joinable,
    /// Whether who has the join handle is to be woken.
    is_awaited: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    Task(usize),
    Call(usize),
}

#[derive(Default)]
struct Model {
    now: u64,
    tasks: Vec<Task>,
    queue: VecDeque<Entry>,
    /// What is left of the iteration.
    batch: VecDeque<Entry>,
    /// The tasks that sleep, in the order in which they began to.
    sleepers: Vec<(u64, usize)>,
    events: Vec<Event>,
}

impl Model {
    fn spawn(&mut self, script: &Script) {
        self.queue.push_back(Entry::Task(self.tasks.len()));
        self.tasks.push(Task {
            script: Rc::clone(script),
            at: 0,
            waits: Waits::Not,
            has_begun: false,
            is_queued: true,
            is_woken: false,
            aborts_itself: false,
            ended: None,
            joinable: Joinable::Idle,
            is_awaited: false,
        });
    }

    fn note(&mut self, number: usize, what: What) {
        self.events.push((self.now, number, what));
    }

    fn remove(&mut self, what: Entry) {
        self.batch.retain(|&entry| entry != what);
        self.queue.retain(|&entry| entry != what);
    }

    fn wake(&mut self, number: usize) {
        let task = &mut self.tasks[number];
        if task.ended.is_none() && !task.aborts_itself && !task.is_queued {
            task.is_queued = true;
            self.queue.push_back(Entry::Task(number));
        }
    }

    /// The future is dropped, and with it what it awaits.
    fn end(&mut self, number: usize, how: &'static str) {
        match self.tasks[number].waits {
            Waits::For(other) => self.tasks[other].joinable = Joinable::Gone,
            _ => self.sleepers.retain(|&(_, of)| of != number),
        }
        self.remove(Entry::Task(number));
        self.note(number, What::Dropped);
        self.tasks[number].ended = Some(how);
        if let (Joinable::By(waiter), true) =
            (self.tasks[number].joinable, self.tasks[number].is_awaited)
        {
            self.wake(waiter);
        }
    }

    fn poll(&mut self, number: usize) {
        self.tasks[number].is_queued = false;
        self.tasks[number].has_begun = true;
        let waits = self.tasks[number].waits;
        match waits {
            Waits::Until(when) if when > self.now => return,
            Waits::Parked if !std::mem::take(&mut self.tasks[number].is_woken) => return,
            Waits::For(other) => match self.tasks[other].ended {
                None => return,
                Some(how) => {
                    self.tasks[other].joinable = Joinable::Gone;
                    self.note(number, What::Joined(how));
                }
            },
            _ => {}
        }
        self.tasks[number].waits = Waits::Not;
        let how = self.go_on(number);
        match how {
            Some(how) => self.end(number, how),
            None if self.tasks[number].aborts_itself => self.end(number, "aborted"),
            None => {}
        }
    }

    /// Does what the task does until it waits, or has come to an end.
    fn go_on(&mut self, number: usize) -> Option<&'static str> {
        let script = Rc::clone(&self.tasks[number].script);
        while let Some(step) = script.get(self.tasks[number].at) {
            self.note(number, What::Step(self.tasks[number].at));
            self.tasks[number].at += 1;
            let count = self.tasks.len();
            match step {
                Step::Yield => {
                    self.wake(number);
                    self.tasks[number].waits = Waits::Yielded;
                    return None;
                }
                Step::Spawn(script) => self.spawn(script),
                Step::Call => self.queue.push_back(Entry::Call(number)),
                Step::Sleep(nanos) => {
                    let when = self.now + nanos;
                    self.sleepers.push((when, number));
                    self.tasks[number].waits = Waits::Until(when);
                    return None;
                }
                Step::Park => {
                    if !std::mem::take(&mut self.tasks[number].is_woken) {
                        self.tasks[number].waits = Waits::Parked;
                        return None;
                    }
                }
                Step::Wake(other) => {
                    self.tasks[other % count].is_woken = true;
                    self.disturb(other % count);
                }
                Step::Disturb(other) => self.disturb(other % count),
                Step::Abort(other) => self.abort(number, other % count),
                Step::Join(other) => {
                    let other = other % count;
                    if self.tasks[other].joinable == Joinable::Idle {
                        self.tasks[other].joinable = Joinable::By(number);
                        let Some(how) = self.tasks[other].ended else {
                            self.tasks[other].is_awaited = true;
                            self.tasks[number].waits = Waits::For(other);
                            return None;
                        };
                        self.tasks[other].joinable = Joinable::Gone;
                        self.note(number, What::Joined(how));
                    }
                }
                Step::Detach(other) => {
                    let task = &mut self.tasks[other % count];
                    if task.joinable == Joinable::Idle {
                        task.joinable = Joinable::Gone;
                    }
                }
                Step::Panic => return Some("panic"),
            }
        }
        Some("output")
    }

    /// Nobody has the waker of a task that has not been polled.
    fn disturb(&mut self, number: usize) {
        if self.tasks[number].has_begun {
            self.wake(number);
        }
    }

    fn abort(&mut self, number: usize, other: usize) {
        let task = &mut self.tasks[other];
        if task.joinable != Joinable::Idle || task.ended.is_some() {
            return;
        }
        if other == number {
            task.aborts_itself = true;
            task.is_queued = false;
            self.remove(Entry::Task(number));
        } else {
            self.end(other, "aborted");
        }
    }

    /// Tells whether anything ran.
    fn iterate(&mut self) -> bool {
        let mut due: Vec<_> =
            self.sleepers.iter().copied().filter(|&(when, _)| when <= self.now).collect();
        // Stable: equal deadlines stay in the order in which they came.
        due.sort_by_key(|&(when, _)| when);
        self.sleepers.retain(|&(when, _)| when > self.now);
        due.into_iter().for_each(|(_, number)| self.wake(number));
        self.batch = std::mem::take(&mut self.queue);
        let mut ran = false;
        while let Some(entry) = self.batch.pop_front() {
            ran = true;
            match entry {
                Entry::Task(number) => self.poll(number),
                Entry::Call(number) => self.note(number, What::Call),
            }
        }
        ran
    }

    fn run(mut self, scripts: &[Script]) -> Vec<Event> {
        scripts.iter().for_each(|script| self.spawn(script));
        loop {
            if !self.iterate() {
                let Some(next) = self.sleepers.iter().map(|&(when, _)| when).min() else { break };
                self.now = next;
            }
        }
        self.note(0, What::End);
        let has_ended = |task: &Task| task.ended.is_some();
        for (number, task) in self.tasks.iter().enumerate() {
            if task.joinable == Joinable::Idle {
                self.events.push((0, number, What::Left(has_ended(task))));
            }
        }
        for (number, task) in self.tasks.iter().enumerate() {
            if !has_ended(task) {
                self.events.push((0, number, What::Dropped));
            }
        }
        self.events
    }
}

#[test]
fn tasks_agree_with_the_model() {
    let (_watch, _alone) = (Watch::begin(), crate::checker::alone());
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    config.cases = config.cases.max(1000);
    let agrees = |scripts: Vec<Script>| {
        prop_assert_eq!(real(&scripts), Model::default().run(&scripts));
        Ok(())
    };
    if let Err(failure) = TestRunner::new(config).run(&vec(script(), 1..5), agrees) {
        panic!("{failure}");
    }
}
