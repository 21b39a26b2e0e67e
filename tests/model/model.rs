//! The model: plain lists, a number for a clock, and one step of S5 after the other.

use std::rc::Rc;

use libc::{EBUSY, EINVAL, ENOENT};
use ringloop::Outcome;

use crate::{Action, Counts, ENOUGH, Ended, Event, Program, Script, Step, newest};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// A timer that waits for its deadline.
    Waiting,
    /// In the ready queue, or in the batch.
    Ready,
    Ended,
}

#[derive(Clone, Debug)]
struct Thing {
    state: State,
    is_timer: bool,
    /// Zero unless it repeats.
    period: u64,
    when: u64,
    /// Which scheduling this was, of all: breaks ties.
    order: u64,
    skipped: u64,
    is_referenced: bool,
    has_release: bool,
    script: Script,
}

/// A run in the model would sleep for ever.
pub(crate) struct Hangs;

enum Iterated {
    Ran(usize),
    Panicked,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Model {
    now: u64,
    slack: u64,
    handles_panics: bool,
    things: Vec<Thing>,
    ready: Vec<usize>,
    batch: Vec<usize>,
    order: u64,
    on_stack: Option<usize>,
    is_running: bool,
    /// Callbacks that count for `ENOUGH`.
    worked: u64,
    stop: bool,
    break_: bool,
    pub(crate) counts: Counts,
    pub(crate) trace: Vec<Event>,
}

impl Model {
    pub(crate) fn new(program: &Program) -> Model {
        let &Program { start, slack, handles_panics, .. } = program;
        Model { now: start, slack, handles_panics, ..Model::default() }
    }

    fn schedule(
        &mut self,
        is_timer: bool,
        when: u64,
        period: u64,
        script: &Script,
    ) -> Result<u64, i32> {
        let id = self.things.len();
        let state = if is_timer { State::Waiting } else { State::Ready };
        self.order += 1;
        self.things.push(Thing {
            state,
            is_timer,
            period,
            when,
            order: self.order,
            skipped: 0,
            is_referenced: true,
            has_release: false,
            script: Rc::clone(script),
        });
        if !is_timer {
            self.ready.push(id);
        }
        Ok(0)
    }

    /// The thing that so many others followed, if it has not ended.
    fn find(&self, back: usize) -> Result<usize, i32> {
        let id = newest(self.things.len(), back).ok_or(ENOENT)?;
        if self.things[id].state == State::Ended { Err(ENOENT) } else { Ok(id) }
    }

    fn find_timer(&self, back: usize) -> Result<usize, i32> {
        let id = self.find(back)?;
        if self.things[id].is_timer { Ok(id) } else { Err(EINVAL) }
    }

    fn unqueue(&mut self, id: usize) {
        self.ready.retain(|&other| other != id);
        self.batch.retain(|&other| other != id);
    }

    fn let_go(&mut self, id: usize) {
        self.trace.push(Event::Dropped(id));
        if self.things[id].has_release {
            self.trace.push(Event::Released(id));
        }
    }

    fn cancel(&mut self, id: usize) {
        self.unqueue(id);
        self.things[id].state = State::Ended;
        self.counts.timers_cancelled += u64::from(self.things[id].is_timer);
        if self.on_stack != Some(id) {
            self.let_go(id);
        }
    }

    fn reschedule(&mut self, id: usize, when: u64) {
        self.unqueue(id);
        self.order += 1;
        let thing = &mut self.things[id];
        thing.state = State::Waiting;
        thing.when = when;
        thing.order = self.order;
    }

    /// Does an action; tells whether it panics.
    fn perform(&mut self, action: &Action) -> bool {
        let did = match action {
            Action::CallSoon(script) => self.schedule(false, u64::MAX, 0, script),
            Action::CallLater(delay, script) => {
                self.schedule(true, self.now.saturating_add(*delay), 0, script)
            }
            Action::CallAt(when, script) => self.schedule(true, when.at(self.now), 0, script),
            Action::CallEvery(0, _) => Err(EINVAL),
            Action::CallEvery(period, script) => {
                self.schedule(true, self.now.saturating_add(*period), *period, script)
            }
            Action::Flood(many) => {
                let empty = Script::from([]);
                for n in 0..many.count {
                    let _ = self.schedule(true, self.now.saturating_add(many.delay(n)), 0, &empty);
                }
                Ok(many.count)
            }
            Action::Thin(many) => {
                let mut done = 0;
                for id in 0..self.things.len() {
                    let is_pending = self.things[id].state != State::Ended;
                    match many.number(id as u64) % 3 {
                        0 if is_pending => self.cancel(id),
                        1 if is_pending && self.things[id].is_timer => {
                            self.reschedule(id, self.now.saturating_add(many.delay(id as u64)));
                        }
                        _ => continue,
                    }
                    done += 1;
                }
                Ok(done)
            }
            Action::Cancel(back) => self.find(*back).map(|id| {
                self.cancel(id);
                0
            }),
            Action::Reschedule(back, when) => self.find_timer(*back).map(|id| {
                self.reschedule(id, when.at(self.now));
                0
            }),
            Action::When(back) => self.find_timer(*back).map(|id| self.things[id].when),
            Action::Skipped(back) => self.find_timer(*back).map(|id| self.things[id].skipped),
            Action::IsPending(back) => Ok(u64::from(self.find(*back).is_ok())),
            Action::Ref(back) => self.find(*back).map(|id| {
                self.things[id].is_referenced = true;
                0
            }),
            Action::Unref(back) => self.find(*back).map(|id| {
                self.things[id].is_referenced = false;
                0
            }),
            Action::OnRelease(back) => self.find(*back).map(|id| {
                self.things[id].has_release = true;
                0
            }),
            Action::Stop => {
                self.stop = true;
                Ok(0)
            }
            Action::Break if self.is_running => {
                self.break_ = true;
                Ok(0)
            }
            Action::Break => Err(EINVAL),
            Action::Run | Action::Panic if !self.is_running => return false,
            Action::Run => Err(EBUSY),
            Action::Panic => return true,
        };
        self.trace.push(Event::Did(did));
        false
    }

    fn is_alive(&self) -> bool {
        self.things.iter().any(|thing| thing.state != State::Ended && thing.is_referenced)
    }

    /// The earliest deadline of the timers that wait for theirs; one at never has none.
    fn next_deadline(&self) -> Option<u64> {
        let waiting = self.things.iter().filter(|thing| thing.state == State::Waiting);
        waiting.map(|thing| thing.when).filter(|&when| when != u64::MAX).min()
    }

    /// S5.
    fn iterate(&mut self, limit: u64) -> Result<Iterated, Hangs> {
        self.counts.iterations += 1;
        // (a)
        let deadline = self.next_deadline();
        let is_due = deadline.is_some_and(|deadline| deadline <= self.now);
        if self.ready.is_empty() && !self.stop && !is_due {
            let wake_up = deadline.map(|deadline| deadline.saturating_add(self.slack));
            let limit = (limit != u64::MAX).then(|| self.now.saturating_add(limit));
            let until = [wake_up, limit].into_iter().flatten().min().ok_or(Hangs)?;
            self.counts.asleep += until - self.now;
            self.now = until;
        }
        // (c)
        let mut due: Vec<usize> = (0..self.things.len())
            .filter(|&id| self.things[id].state == State::Waiting)
            .filter(|&id| self.things[id].when <= self.now && self.things[id].when != u64::MAX)
            .collect();
        due.sort_by_key(|&id| (self.things[id].when, self.things[id].order));
        for &id in &due {
            self.things[id].state = State::Ready;
        }
        self.ready.extend(due);
        // (d)
        self.batch = std::mem::take(&mut self.ready);
        let mut ran = 0;
        let mut panicked = false;
        while !self.break_ && !panicked && !self.batch.is_empty() {
            let id = self.batch.remove(0);
            ran += 1;
            panicked = self.call(id) && !self.handles_panics;
        }
        let mut ready = std::mem::take(&mut self.batch);
        ready.append(&mut self.ready);
        self.ready = ready;
        Ok(if panicked { Iterated::Panicked } else { Iterated::Ran(ran) })
    }

    /// Runs a callback; tells whether it panics.
    fn call(&mut self, id: usize) -> bool {
        self.counts.callbacks += 1;
        self.counts.timers_fired += u64::from(self.things[id].is_timer);
        let repeats = self.things[id].period > 0;
        if repeats {
            self.rearm(id);
            self.on_stack = Some(id);
        } else {
            self.things[id].state = State::Ended;
        }
        self.trace.push(Event::Began { thing: id, time: self.now });
        let script = Rc::clone(&self.things[id].script);
        let mut panicked = false;
        self.worked += u64::from(repeats || !script.is_empty());
        if self.worked > ENOUGH {
            if self.things[id].state != State::Ended {
                self.cancel(id);
            }
            self.stop = true;
        } else {
            panicked = script.iter().any(|action| self.perform(action));
        }
        self.on_stack = None;
        if self.things[id].state == State::Ended {
            self.let_go(id);
        }
        if panicked && self.handles_panics {
            self.trace.push(Event::HandledPanic);
        }
        panicked
    }

    /// S16: the next call in phase that is not due by now; those in between are skipped.
    fn rearm(&mut self, id: usize) {
        self.order += 1;
        let thing = &mut self.things[id];
        thing.state = State::Waiting;
        thing.order = self.order;
        let skipped = (self.now - thing.when) / thing.period;
        thing.skipped = thing.skipped.saturating_add(skipped);
        self.counts.timers_skipped = self.counts.timers_skipped.saturating_add(skipped);
        thing.when =
            thing.when.saturating_add(thing.period.saturating_mul(skipped.saturating_add(1)));
    }

    pub(crate) fn step(&mut self, step: &Step) -> Result<(), Hangs> {
        if let Step::Do(action) = step {
            self.perform(action);
        } else {
            self.is_running = true;
            let ended = match step {
                Step::RunOnce(limit) => match self.iterate(*limit)? {
                    Iterated::Ran(ran) => Ended::RunOnce(ran),
                    Iterated::Panicked => Ended::Panicked,
                },
                Step::Run => self.run(|model| model.is_alive())?,
                _ => self.run(|_| true)?,
            };
            self.is_running = false;
            self.break_ = false;
            self.stop &= ended == Ended::Panicked;
            self.trace.push(Event::Returned(ended));
        }
        self.trace.push(Event::Left {
            time: self.now,
            is_alive: self.is_alive(),
            next_deadline: self.next_deadline(),
        });
        Ok(())
    }

    fn run(&mut self, goes_on: impl Fn(&Model) -> bool) -> Result<Ended, Hangs> {
        while goes_on(self) {
            if let Iterated::Panicked = self.iterate(u64::MAX)? {
                return Ok(Ended::Panicked);
            }
            if self.break_ {
                return Ok(Ended::Run(Outcome::Broken));
            }
            if self.stop {
                return Ok(Ended::Run(Outcome::Stopped));
            }
        }
        Ok(Ended::Run(Outcome::Done))
    }

    /// What close has to drop and release.
    pub(crate) fn close(&mut self) {
        for id in 0..self.things.len() {
            if self.things[id].state != State::Ended {
                self.let_go(id);
            }
        }
    }
}
