//! The same program on the real loop.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use libc::ENOENT;
use ringloop::{Error, Handle, Loop, Time};

use crate::{Action, ENOUGH, Ended, Event, Script, Step, When, newest};

/// What the callbacks on the real loop share.
#[derive(Default)]
pub(crate) struct Real {
    handles: RefCell<Vec<Handle>>,
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
        assert_eq!(lp.current(), Some(real.handles.borrow()[self.thing]));
        if real.worked.get() > ENOUGH {
            let own = real.handles.borrow()[self.thing];
            let _ = lp.cancel(own);
            lp.stop().unwrap();
            return;
        }
        self.script.iter().for_each(|action| real.perform(lp, action));
    }
}

impl Real {
    pub(crate) fn add(&self, event: Event) {
        self.trace.borrow_mut().push(event);
    }

    fn carried(self: &Rc<Self>, script: &Script, repeats: bool) -> Carried {
        Carried { thing: self.handles.borrow().len(), script: Rc::clone(script), repeats, real: Rc::clone(self) }
    }

    fn scheduled(&self, handle: Result<Handle, Error>) -> Result<u64, Error> {
        self.handles.borrow_mut().push(handle?);
        Ok(0)
    }

    fn perform(self: &Rc<Self>, lp: &Loop, action: &Action) {
        let now = lp.time();
        let time = |when: When| Time::from_nanos(when.at(now.as_nanos()));
        // With nothing scheduled yet, there is no handle to use.
        let on = |back: usize, f: &dyn Fn(Handle) -> Result<u64, Error>| {
            let handle = newest(self.handles.borrow().len(), back).map(|thing| self.handles.borrow()[thing]);
            handle.map_or(Err(ENOENT), |handle| f(handle).map_err(|error| error.raw_os_error()))
        };
        let scheduled = |handle| self.scheduled(handle).map_err(|error| error.raw_os_error());
        let did = match action {
            Action::CallSoon(script) => {
                let carried = self.carried(script, false);
                scheduled(lp.call_soon(move |lp| carried.call(lp)))
            }
            Action::CallLater(delay, script) => {
                let carried = self.carried(script, false);
                scheduled(lp.call_later(Duration::from_nanos(*delay), move |lp| carried.call(lp)))
            }
            Action::CallAt(when, script) => {
                let carried = self.carried(script, false);
                scheduled(lp.call_at(time(*when), move |lp| carried.call(lp)))
            }
            Action::CallEvery(0, _) => scheduled(lp.call_every(Duration::ZERO, |_| {})),
            Action::CallEvery(period, script) => {
                let carried = self.carried(script, true);
                scheduled(lp.call_every(Duration::from_nanos(*period), move |lp| carried.call(lp)))
            }
            Action::Flood(many) => {
                let empty = Script::from([]);
                for n in 0..many.count {
                    let carried = self.carried(&empty, false);
                    let delay = Duration::from_nanos(many.delay(n));
                    scheduled(lp.call_later(delay, move |lp| carried.call(lp))).unwrap();
                }
                Ok(many.count)
            }
            Action::Thin(many) => {
                let mut done = 0;
                for id in 0..self.handles.borrow().len() {
                    let handle = self.handles.borrow()[id];
                    let thinned = match many.number(id as u64) % 3 {
                        0 => lp.cancel(handle),
                        1 => lp.reschedule(handle, now + Duration::from_nanos(many.delay(id as u64))),
                        _ => continue,
                    };
                    done += u64::from(thinned.is_ok());
                }
                Ok(done)
            }
            Action::Cancel(back) => on(*back, &|handle| lp.cancel(handle).map(|()| 0)),
            Action::Reschedule(back, when) => on(*back, &|handle| lp.reschedule(handle, time(*when)).map(|()| 0)),
            Action::When(back) => on(*back, &|handle| lp.when(handle).map(Time::as_nanos)),
            Action::Skipped(back) => on(*back, &|handle| lp.skipped(handle)),
            Action::IsPending(back) => on(*back, &|handle| Ok(u64::from(lp.is_pending(handle)))).or(Ok(0)),
            Action::Ref(back) => on(*back, &|handle| lp.ref_(handle).map(|()| 0)),
            Action::Unref(back) => on(*back, &|handle| lp.unref(handle).map(|()| 0)),
            Action::OnRelease(back) => on(*back, &|handle| {
                let thing = self.handles.borrow().iter().position(|&other| other == handle).unwrap();
                let real = Rc::clone(self);
                lp.on_release(handle, move |_| real.add(Event::Released(thing))).map(|()| 0)
            }),
            Action::Stop => lp.stop().map(|()| 0).map_err(|error| error.raw_os_error()),
            Action::Break => lp.break_().map(|()| 0).map_err(|error| error.raw_os_error()),
            Action::Run | Action::Panic if !lp.is_running() => return,
            Action::Run => lp.run().map(|_| 0).map_err(|error| error.raw_os_error()),
            // Without the message on stderr.
            Action::Panic => resume_unwind(Box::new("as scripted")),
        };
        self.add(Event::Did(did));
    }

    pub(crate) fn step(self: &Rc<Self>, lp: &Loop, step: &Step) {
        let run = || match step {
            Step::Do(_) => None,
            Step::RunOnce(u64::MAX) => Some(Ended::RunOnce(lp.run_once(Duration::MAX).unwrap())),
            Step::RunOnce(limit) => Some(Ended::RunOnce(lp.run_once(Duration::from_nanos(*limit)).unwrap())),
            Step::Run => Some(Ended::Run(lp.run().unwrap())),
            Step::RunForever => Some(Ended::Run(lp.run_forever().unwrap())),
        };
        if let Step::Do(action) = step {
            self.perform(lp, action);
        }
        let ended = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
            if payload.downcast_ref() != Some(&"as scripted") {
                resume_unwind(payload);
            }
            Some(Ended::Panicked)
        });
        if let Some(ended) = ended {
            self.add(Event::Returned(ended));
        }
        self.add(Event::Left {
            time: lp.time().as_nanos(),
            is_alive: lp.is_alive(),
            next_deadline: lp.next_deadline().map(Time::as_nanos),
        });
    }
}
