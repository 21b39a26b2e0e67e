//! The same program on the real loop, and a ledger of what each callback may do: begin when it is
//! due, unless it has ended.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use libc::ENOENT;
use ringloop::{Error, Handle, Loop, Time};

use crate::{Action, ENOUGH, Ended, Event, Script, Step, When, newest};

/// What the callbacks on the real loop share.
pub(crate) struct Real {
    /// What a nanosecond of the program is on the loop.
    scale: u64,
    handles: RefCell<Vec<Handle>>,
    /// When each thing is due; None once it has ended.
    due: RefCell<Vec<Option<Time>>>,
    /// Whether a stop was asked for since the last run.
    stop: Cell<bool>,
    worked: Cell<u64>,
    pub(crate) trace: RefCell<Vec<Event>>,
}

/// What each callback carries; it tells of its Drop.
struct Carried {
    thing: usize,
    script: Script,
    repeats: bool,
    real: Rc<Real>,
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.real.add(Event::Dropped(self.thing));
    }
}

impl Carried {
    fn call(&self, lp: &Loop) {
        let real = &self.real;
        real.worked.set(real.worked.get() + u64::from(self.repeats || !self.script.is_empty()));
        real.add(Event::Began { thing: self.thing, time: lp.time().as_nanos() });
        let own = real.handles.borrow()[self.thing];
        assert_eq!(lp.current_handle(), Some(own));
        let next = if self.repeats { Some(lp.when(own).unwrap()) } else { None };
        let due = std::mem::replace(&mut real.due.borrow_mut()[self.thing], next);
        assert!(due.is_some_and(|due| due <= lp.time()), "due {due:?}, run at {:?}", lp.time());
        if real.worked.get() > ENOUGH {
            let _ = real.cancel(lp, self.thing);
            lp.stop().unwrap();
            return;
        }
        self.script.iter().for_each(|action| real.perform(lp, action));
    }
}

impl Real {
    pub(crate) fn new(scale: u64) -> Real {
        Real {
            scale,
            handles: RefCell::default(),
            due: RefCell::default(),
            stop: Cell::new(false),
            worked: Cell::new(0),
            trace: RefCell::default(),
        }
    }

    pub(crate) fn add(&self, event: Event) {
        self.trace.borrow_mut().push(event);
    }

    fn carried(self: &Rc<Self>, script: &Script, repeats: bool) -> Carried {
        Carried {
            thing: self.handles.borrow().len(),
            script: Rc::clone(script),
            repeats,
            real: Rc::clone(self),
        }
    }

    fn duration(&self, nanos: u64) -> Duration {
        Duration::from_nanos(nanos.saturating_mul(self.scale))
    }

    fn scheduled(&self, due: Time, handle: Result<Handle, Error>) -> Result<u64, i32> {
        self.handles.borrow_mut().push(handle.map_err(|error| error.raw_os_error())?);
        self.due.borrow_mut().push(Some(due));
        Ok(0)
    }

    fn cancel(&self, lp: &Loop, thing: usize) -> Result<u64, Error> {
        let handle = self.handles.borrow()[thing];
        lp.cancel(handle)?;
        self.due.borrow_mut()[thing] = None;
        Ok(0)
    }

    fn reschedule(&self, lp: &Loop, thing: usize, when: Time) -> Result<u64, Error> {
        let handle = self.handles.borrow()[thing];
        lp.reschedule(handle, when)?;
        self.due.borrow_mut()[thing] = Some(when);
        Ok(0)
    }

    fn perform(self: &Rc<Self>, lp: &Loop, action: &Action) {
        let now = lp.time();
        let time = |when: When| match when {
            When::Ahead(nanos) => now + self.duration(nanos),
            When::Past(_) | When::Zero | When::Never => Time::from_nanos(when.at(now.as_nanos())),
        };
        // With nothing scheduled yet, there is no handle to use.
        let on_thing = |back: usize, f: &dyn Fn(usize) -> Result<u64, Error>| {
            let thing = newest(self.handles.borrow().len(), back);
            thing.map_or(Err(ENOENT), |thing| f(thing).map_err(|error| error.raw_os_error()))
        };
        let on = |back: usize, f: &dyn Fn(Handle) -> Result<u64, Error>| {
            on_thing(back, &|thing| {
                let handle = self.handles.borrow()[thing];
                f(handle)
            })
        };
        let did = match action {
            Action::CallSoon(script) => {
                let carried = self.carried(script, false);
                self.scheduled(Time::default(), lp.call_soon(move |lp| carried.call(lp)))
            }
            Action::CallLater(delay, script) => {
                let carried = self.carried(script, false);
                let delay = self.duration(*delay);
                self.scheduled(now + delay, lp.call_later(delay, move |lp| carried.call(lp)))
            }
            Action::CallAt(when, script) => {
                let carried = self.carried(script, false);
                self.scheduled(time(*when), lp.call_at(time(*when), move |lp| carried.call(lp)))
            }
            Action::CallEvery(0, _) => self.scheduled(now, lp.call_every(Duration::ZERO, |_| {})),
            Action::CallEvery(period, script) => {
                let carried = self.carried(script, true);
                let period = self.duration(*period);
                self.scheduled(now + period, lp.call_every(period, move |lp| carried.call(lp)))
            }
            Action::Flood(many) => {
                let empty = Script::from([]);
                for n in 0..many.count {
                    let carried = self.carried(&empty, false);
                    let delay = Duration::from_nanos(many.delay(n));
                    self.scheduled(now + delay, lp.call_later(delay, move |lp| carried.call(lp)))
                        .unwrap();
                }
                Ok(many.count)
            }
            Action::Thin(many) => {
                let mut done = 0;
                for thing in 0..self.handles.borrow().len() {
                    let delay = Duration::from_nanos(many.delay(thing as u64));
                    let thinned = match many.number(thing as u64) % 3 {
                        0 => self.cancel(lp, thing),
                        1 => self.reschedule(lp, thing, now + delay),
                        _ => continue,
                    };
                    done += u64::from(thinned.is_ok());
                }
                Ok(done)
            }
            Action::Cancel(back) => on_thing(*back, &|thing| self.cancel(lp, thing)),
            Action::Reschedule(back, when) => {
                on_thing(*back, &|thing| self.reschedule(lp, thing, time(*when)))
            }
            Action::When(back) => on(*back, &|handle| lp.when(handle).map(Time::as_nanos)),
            Action::Skipped(back) => on(*back, &|handle| lp.skipped(handle)),
            Action::IsPending(back) => {
                on(*back, &|handle| Ok(u64::from(lp.is_pending(handle)))).or(Ok(0))
            }
            Action::Ref(back) => on(*back, &|handle| lp.ref_(handle).map(|()| 0)),
            Action::Unref(back) => on(*back, &|handle| lp.unref(handle).map(|()| 0)),
            Action::OnRelease(back) => on_thing(*back, &|thing| {
                let (handle, real) = (self.handles.borrow()[thing], Rc::clone(self));
                lp.on_release(handle, move |_| real.add(Event::Released(thing))).map(|()| 0)
            }),
            Action::Stop => {
                self.stop.set(true);
                lp.stop().map(|()| 0).map_err(|error| error.raw_os_error())
            }
            Action::Break => lp.break_().map(|()| 0).map_err(|error| error.raw_os_error()),
            Action::Run | Action::Panic if !lp.is_running() => return,
            Action::Run => lp.run().map(|_| 0).map_err(|error| error.raw_os_error()),
            // Without the message on stderr.
            Action::Panic => resume_unwind(Box::new("as scripted")),
        };
        self.add(Event::Did(did));
    }

    /// What `run` returns, or that it panicked as scripted.
    fn catch(run: impl FnOnce() -> Ended) -> Ended {
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
            if payload.downcast_ref() != Some(&"as scripted") {
                resume_unwind(payload);
            }
            Ended::Panicked
        })
    }

    pub(crate) fn step(self: &Rc<Self>, lp: &Loop, step: &Step) {
        if let Step::Do(action) = step {
            self.perform(lp, action);
        } else {
            let ended = Real::catch(|| match step {
                Step::RunOnce(u64::MAX) => Ended::RunOnce(lp.run_once(Duration::MAX).unwrap()),
                Step::RunOnce(limit) => Ended::RunOnce(lp.run_once(self.duration(*limit)).unwrap()),
                Step::Run => Ended::Run(lp.run().unwrap()),
                Step::RunForever | Step::Do(_) => Ended::Run(lp.run_forever().unwrap()),
            });
            self.add(Event::Returned(ended));
        }
        self.add(Event::Left {
            time: lp.time().as_nanos(),
            is_alive: lp.is_alive(),
            next_deadline: lp.next_deadline().map(Time::as_nanos),
        });
    }

    /// A step on the real clock, where every run is one that ends soon.
    pub(crate) fn step_in_time(self: &Rc<Self>, lp: &Loop, step: &Step) {
        let limit = match step {
            Step::Do(action) => return self.perform(lp, action),
            Step::RunOnce(limit) => self.duration((*limit).min(100)),
            Step::Run | Step::RunForever => self.duration(50),
        };
        self.run_once(lp, limit);
    }

    fn run_once(self: &Rc<Self>, lp: &Loop, limit: Duration) -> Ended {
        let stopped = self.stop.get();
        let begin = lp.time();
        let ended = Real::catch(|| Ended::RunOnce(lp.run_once(limit).unwrap()));
        if ended == Ended::RunOnce(0) && !stopped {
            assert!(lp.time() >= begin + limit, "of {limit:?} it slept {:?}", lp.time() - begin);
        }
        self.stop.set(self.stop.get() && ended == Ended::Panicked);
        ended
    }

    /// Runs what is due, to the last; nothing that is due may be left.
    pub(crate) fn settle(self: &Rc<Self>, lp: &Loop) {
        loop {
            let now = lp.time();
            if self.run_once(lp, Duration::ZERO) == Ended::RunOnce(0) {
                // A call has no deadline: it is due.
                let is_due = |handle| lp.when(handle).map_or(true, |when| when <= now);
                let handles = self.handles.borrow();
                let left =
                    handles.iter().position(|&handle| lp.is_pending(handle) && is_due(handle));
                assert_eq!(left, None, "this thing was due by {now:?} and has not begun");
                return;
            }
        }
    }
}
