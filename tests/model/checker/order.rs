//! The model of the order: the next callback, and its time.
//!
//! The model uses plain lists, and follows the steps of S5 as the loop does. It has calls and posts
//! of the loop's own thread for every loop, and timers where the time is virtual: there the model
//! knows which timers are due in which iteration. It ignores all other callbacks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::machine::{Lp, Machine, add};
use super::thing::{Role, Thing};

#[derive(Default)]
pub(crate) struct Order {
    ready: RefCell<Vec<*const Thing>>,
    batch: RefCell<Vec<*const Thing>>,
    /// Counts the scheduling of timers, to order those with the same deadline.
    timers: Cell<u64>,
    /// The iteration whose due timers are in the ready queue, and the one whose batch is running.
    collected: Cell<u64>,
    iteration: Cell<u64>,
    /// The time at the end of the loop's last sleep, or at its start.
    time: Cell<u64>,
    /// Memory was refused, or another event has made the order unknown.
    is_unknown: Cell<bool>,
}

impl Order {
    pub(crate) fn begin(now: u64) -> Order {
        Order { time: Cell::new(now), ..Order::default() }
    }
}

impl Lp {
    /// Whether the model knows when the thing runs.
    fn knows(&self, thing: &Thing) -> bool {
        match thing.role {
            Role::Call | Role::Post => !thing.by_worker.get(),
            Role::Timer | Role::Repeat | Role::Guard | Role::Task => self.is_virtual,
            _ => false,
        }
    }

    /// A thing is scheduled, or scheduled again.
    pub(crate) fn scheduled(&self, thing: &Thing) {
        self.unscheduled(thing);
        let order = &self.order;
        order.timers.set(order.timers.get() + 1);
        thing.order.set(order.timers.get());
        if matches!(thing.role, Role::Call | Role::Post | Role::Task) && self.knows(thing) {
            order.ready.borrow_mut().push(thing);
            thing.is_queued.set(true);
            // A hook has posted this: the loop may take the post before or after the next call.
            let is_between = self.in_hook.get() && thing.role == Role::Post;
            order.is_unknown.set(order.is_unknown.get() || is_between);
        }
    }

    pub(crate) fn unscheduled(&self, thing: &Thing) {
        if thing.is_queued.replace(false) {
            let is_other = |other: &*const Thing| !std::ptr::eq(*other, thing);
            self.order.ready.borrow_mut().retain(is_other);
            self.order.batch.borrow_mut().retain(is_other);
        }
    }

    /// A task enters the ready queue, unless it is there.
    pub(crate) fn wake(&self, task: &Thing) {
        if task.is_pending() && !task.is_queued.replace(true) {
            self.order.ready.borrow_mut().push(task);
            task.after_iteration.set(self.batch());
        }
    }

    /// A task sleeps until `when`.
    pub(crate) fn sleeps(&self, task: &Thing, when: u64) {
        self.order.timers.set(self.order.timers.get() + 1);
        task.order.set(self.order.timers.get());
        task.when.set(when);
    }

    pub(crate) fn has_lost_order(&self) -> bool {
        self.order.is_unknown.get()
    }

    /// Whether the model knows everything that happens on the loop.
    pub(crate) fn is_known(&self) -> bool {
        self.is_virtual && self.is_plain.get() && !self.order.is_unknown.get()
    }

    /// The order is unknown from now on.
    pub(crate) fn lose_order(&self) {
        self.order.is_unknown.set(true);
    }
}

impl Machine {
    fn waiting(&self, l: &Lp) -> Vec<Rc<Thing>> {
        self.things_of(l, |thing| {
            let waits = match thing.role {
                Role::Task => thing.when.get() != u64::MAX,
                _ => thing.is_timer() && !thing.is_queued.get(),
            };
            waits && thing.is_pending() && l.knows(thing)
        })
    }

    /// The earliest deadline of the waiting timers, on a loop that has only timers.
    pub(crate) fn next_deadline(&self, l: &Lp) -> u64 {
        self.waiting(l).iter().map(|timer| timer.when.get()).min().unwrap_or(u64::MAX)
    }

    /// The latest time at which a loop that sleeps now wakes, as far as the model knows.
    pub(crate) fn wake_up(&self, l: &Lp) -> u64 {
        match self.next_deadline(l) {
            u64::MAX => u64::MAX,
            deadline => deadline.saturating_add(l.slack),
        }
    }

    /// Moves due timers to the ready queue: S5 (c), seen by the first callback after this step.
    pub(crate) fn collect(&self, l: &Lp, iteration: u64) {
        let order = &l.order;
        if order.collected.replace(iteration) == iteration {
            return;
        }
        let now = l.now();
        if l.is_known() && now != order.time.get() {
            let wake_up = self.wake_up(l).min(l.run_until.get());
            self.require(now == wake_up, || {
                format!("loop {} slept until {now}, not {wake_up}", l.number)
            });
        }
        order.time.set(now);
        let mut due = self.waiting(l);
        due.retain(|timer| timer.when.get() <= now && timer.when.get() != u64::MAX);
        due.sort_by_key(|timer| (timer.when.get(), timer.order.get()));
        for timer in due {
            if timer.role == Role::Task {
                timer.when.set(u64::MAX);
                add(&l.counts.fired, 1);
            }
            if !timer.is_queued.replace(true) {
                order.ready.borrow_mut().push(Rc::as_ptr(&timer));
            }
        }
    }

    /// Checks that the last batch has run completely, unless the run was broken off.
    fn end_batch(&self, l: &Lp) {
        let (mut ready, mut batch) = (l.order.ready.borrow_mut(), l.order.batch.borrow_mut());
        let left = batch.first().copied();
        ready.splice(0..0, batch.drain(..));
        drop((ready, batch));
        if let Some(thing) = left.and_then(|left| self.thing_at(left.cast())) {
            let is_right = l.is_broken_off.get() || l.order.is_unknown.get();
            self.require(is_right, || format!("{thing} was left out of its batch"));
        }
        l.is_broken_off.set(false);
    }

    /// The batch of this iteration has begun.
    pub(crate) fn begin_batch(&self, l: &Lp, iteration: u64) {
        let order = &l.order;
        let last = order.iteration.replace(iteration);
        if iteration != last {
            let is_next = iteration == last + 1 || !l.is_known();
            self.require(is_next, || {
                format!("iteration {iteration} of loop {} follows on {last}", l.number)
            });
            self.end_batch(l);
            self.collect(l, iteration);
            order.batch.swap(&order.ready);
        }
    }

    /// A callback that is not a hook begins.
    pub(crate) fn check_turn(&self, l: &Lp, thing: &Thing, iteration: u64) {
        self.begin_batch(l, iteration);
        let order = &l.order;
        if l.knows(thing) {
            let first = order.batch.borrow().first().copied().unwrap_or(std::ptr::null());
            let is_right = std::ptr::eq(first, thing) || order.is_unknown.get();
            self.require(is_right, || match self.thing_at(first.cast()) {
                Some(first) => format!("{thing} began before {first}"),
                None => format!("{thing} began in a batch in which it is not"),
            });
            l.unscheduled(thing);
        }
    }

    /// A run has ended.
    pub(crate) fn check_batch_ended(&self, l: &Lp) {
        let (order, iteration) = (&l.order, l.metrics().iterations);
        if iteration != order.iteration.replace(iteration) {
            // No callback has run in the last iteration, so its batch must be empty.
            self.collect(l, iteration);
            order.batch.swap(&order.ready);
        }
        self.end_batch(l);
        order.time.set(l.now());
    }
}
