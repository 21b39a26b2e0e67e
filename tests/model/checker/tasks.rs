//! Tasks: the lines below a `spawn` run one after another, and some of them wait.
//!
//! The model treats a poll of a task as a callback. Actions count tasks back from the newest. A
//! task waits exactly as long as the model expects, or it is not the next callback.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ringloop::task::{JoinHandle, sleep, yield_now};

use super::face::{AsWritten, Carried, rust};
use super::language::{Action, Back};
use super::machine::{Lp, Machine, Phase, add};
use super::memory::Exempt;
use super::thing::{Role, State, Thing};

/// The state of a thing that is a task.
#[derive(Default)]
pub(crate) struct Task {
    join: RefCell<Option<JoinHandle<()>>>,
    waker: RefCell<Option<Waker>>,
    is_unparked: Cell<bool>,
    /// The task that awaits this one, and whether this one has an output.
    pub(crate) joiner: Cell<Option<&'static Thing>>,
    pub(crate) has_output: Cell<bool>,
}

/// The future of a task.
struct Play {
    thing: &'static Thing,
    _carried: Carried,
    inner: Pin<Box<dyn Future<Output = ()>>>,
}

impl Future for Play {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let thing = self.thing;
        let mut poll = Poll::Pending;
        thing.machine().called_to(thing, thing.lp.ptr, || {
            *thing.task.waker.borrow_mut() = Some(context.waker().clone());
            poll = self.inner.as_mut().poll(context);
            if poll.is_ready() || thing.panics.get() {
                thing.task.has_output.set(!thing.panics.get());
                if thing.is_pending() {
                    thing.state.set(State::Ran);
                    thing.lp.unscheduled(thing);
                }
            }
        });
        if thing.panics.get() {
            let _exempt = Exempt::begin();
            std::panic::resume_unwind(Box::new(AsWritten));
        }
        poll
    }
}

/// When dropped: no task awaits this one any more.
struct Awaited(&'static Thing);

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.task.joiner.set(None);
        self.0.lose_panic();
    }
}

async fn play(thing: &'static Thing) {
    let (machine, mut lines) = (thing.machine(), thing.script.clone());
    while let Some((line, below)) = machine.next_line(&mut lines) {
        match line.action {
            Action::Yield {} => {
                thing.lp.wake(thing);
                yield_now().await;
            }
            Action::Sleep { delay } => {
                if thing.is_pending() {
                    thing.lp.sleeps(thing, thing.lp.now().saturating_add(delay.0));
                } else {
                    // The task has cancelled itself: the sleep's timer is cancelled at once.
                    add(&thing.lp.counts.cancelled, 1);
                }
                let slept = sleep(Duration::from_nanos(delay.0)).await;
                machine.require(slept.is_ok() && thing.when.get() == u64::MAX, || {
                    format!("{thing} has slept too little: {slept:?}")
                });
            }
            Action::Park {} => {
                let is_unparked = |_: &mut Context<'_>| {
                    if thing.task.is_unparked.take() { Poll::Ready(()) } else { Poll::Pending }
                };
                std::future::poll_fn(is_unparked).await;
            }
            Action::Join { task } => {
                let Some(other) = machine.task(&thing.lp, task) else { continue };
                let Some(join) = other.task.join.take() else { continue };
                other.task.joiner.set(Some(thing));
                let _awaited = Awaited(other);
                let result = join.await;
                let right = (other.task.has_output.get(), !other.panics.get());
                machine.require(!other.is_pending(), || format!("{other} was joined"));
                let joined =
                    result.map_or_else(|error| (false, error.is_cancelled()), |()| (true, true));
                machine.require(joined == right, || format!("{other} was joined as {joined:?}"));
            }
            _ => machine.do_line(line, below),
        }
    }
}

impl Machine {
    /// The task of a loop that is `back` places before the newest.
    fn task(&self, l: &Lp, back: Back) -> Option<&'static Thing> {
        let tasks = self.things_of(l, |thing| thing.role == Role::Task && thing.handle.get() != 0);
        let at = tasks.len().checked_sub(1 + back.0 as usize % tasks.len().max(1))?;
        // SAFETY: the machine keeps its things until all loops are closed and all tasks dropped.
        Some(unsafe { &*Rc::as_ptr(&tasks[at]) })
    }

    pub(crate) fn spawn(&self, l: &Rc<Lp>, script: Range<usize>) {
        if !l.is_virtual {
            return;
        }
        let thing = self.new_thing(l, Role::Task, script);
        // SAFETY: as above.
        let known: &'static Thing = unsafe { &*Rc::as_ptr(&thing) };
        let inner = Box::pin(play(known));
        let future = Play { thing: known, _carried: Carried(known), inner };
        let spawned = self.call(|| rust(l.ptr).spawn(future));
        let handle = match &spawned {
            Ok(join) => join.handle().as_raw(),
            Err(error) => -i64::from(error.raw_os_error()),
        };
        self.begin_thing(&thing, handle, l.if_open(0));
        *thing.task.join.borrow_mut() = spawned.ok();
    }

    /// Actions on a task from outside.
    pub(crate) fn use_task(&self, l: &Lp, action: Action, back: Back) {
        let Some(thing) = self.task(l, back) else { return };
        let task = &thing.task;
        // From outside a run, the task would be woken by a post.
        let is_inside = self.runs.borrow().last() == Some(&l.ptr) && l.is(Phase::Open);
        match action {
            Action::Unpark { .. } | Action::Disturb { .. } if is_inside => {
                let waker = task.waker.borrow().clone();
                if matches!(action, Action::Unpark { .. }) {
                    task.is_unparked.set(true);
                }
                if let Some(waker) = waker {
                    l.wake(thing);
                    waker.wake();
                }
            }
            Action::Abort { .. } if is_inside => {
                let Some(join) = task.join.take() else { return };
                if thing.is_pending() {
                    thing.state.set(State::Cancelled);
                    l.unscheduled(thing);
                }
                join.abort();
                let is_gone = thing.dropped.get() == 1 || thing.on_stack.get();
                self.require(is_gone, || format!("{thing} was aborted and is not dropped"));
                task.join.replace(Some(join));
            }
            Action::Detach { .. } => {
                let join = task.join.take();
                if join.is_some() {
                    thing.lose_panic();
                }
                let is_vague = thing.on_stack.get() || !l.is(Phase::Open);
                let is_right = join.is_none_or(|join| join.is_finished() != thing.is_pending());
                self.require(is_right || is_vague, || format!("{thing} is finished, or is not"));
            }
            _ => {}
        }
    }
}

impl Thing {
    /// A panic that no code has read is posted to the loop (S41), unseen by the model as a stop is.
    fn lose_panic(&self) {
        if self.panics.get() {
            add(&self.lp.counts.stops, 1);
            self.lp.is_plain.set(false);
        }
    }

    /// The future of a task has been dropped: wakes the task that awaits it.
    pub(crate) fn tell_joiner(&self) {
        if let Some(joiner) = self.task.joiner.get() {
            self.lp.wake(joiner);
        }
    }
}
