//! Releases of ended entries (S14), and the handling of panics (S30).
//!
//! An ended callback is dropped, and then its release hook is called, each once. A panic in the
//! Drop does not prevent the hook. No panic is lost, except one that a second panic replaces.
//! Releases nest at most sixteen deep. This relies on callers that hold no borrow.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::Loop;
use crate::event_loop::Held;
use crate::pending::event::Event;

/// The maximal nesting of releases: a hook or a Drop ends another entry, whose hook or Drop ends
/// the next. Sixteen levels of nested task groups take less than 128 KiB of stack in a debug build.
const MAX_NESTED_RELEASES: u32 = 16;

impl Loop {
    /// Drops a callback and runs its release hook; returns the payload of a panic. Runs user code:
    /// the caller holds no borrow and does not close the loop meanwhile.
    pub(super) fn release(&self, ended: Held) -> Option<Payload> {
        let _user_code = UserCode::begin(self);
        self.releases.set(self.releases.get() + 1);
        let mut panic = self.release_one(ended);
        if self.defers_releases() {
            // User code may have forked. In the child, deferred releases stay queued.
            while self.owner.process().is_current()
                && let Some(ended) = { self.schedule.borrow_mut().next_deferred() }
            {
                let deferred = self.release_one(ended);
                let left = deferred.and_then(|payload| {
                    attempt(|| self.handle_panics([Some(payload), None, None]))
                });
                match left {
                    Some(payload) if panic.is_some() => drop_quietly(payload),
                    Some(payload) => panic = Some(payload),
                    None => {}
                }
            }
        }
        self.releases.set(self.releases.get() - 1);
        panic
    }

    /// Whether a release must wait until the innermost release on the stack returns. With this
    /// limit, a chain of any length uses the stack of `MAX_NESTED_RELEASES`.
    pub(crate) fn defers_releases(&self) -> bool {
        self.releases.get() >= MAX_NESTED_RELEASES
    }

    fn release_one(&self, ended: Held) -> Option<Payload> {
        let Held { callback, release } = ended;
        // The hook runs after the Drop, also if the Drop panics.
        let in_drop = attempt(|| drop(callback));
        if !self.owner.process().is_current() {
            // The Drop has forked, and this is the child, where no more user code runs.
            std::mem::forget((release, in_drop));
            return None;
        }
        match release.and_then(|release| attempt(|| release.call_once(self, &Event::Turn))) {
            Some(in_hook) => {
                drop_quietly(in_drop);
                Some(in_hook)
            }
            None => in_drop,
        }
    }

    /// As `release`, for a callback that a function of the loop drops: its panic is handled like
    /// that of a callback.
    #[cold]
    pub(crate) fn release_catching(&self, ended: Held) {
        if !ended.is_empty() {
            let panic = self.release(ended);
            if panic.is_some() {
                self.handle_panics([panic, None, None]);
            }
        }
    }

    /// Passes panics to the exception handler. Without a handler, the first panic resumes (S30),
    /// unless it is an `Unjoined` (S41). In a forked child, the parent handles them (S33).
    #[cold]
    pub(super) fn handle_panics(&self, payloads: [Option<Payload>; 3]) {
        for payload in payloads.into_iter().flatten() {
            // A release hook, or the handler of another panic, may have forked.
            if !self.owner.process().is_current() {
                std::mem::forget(payload);
                continue;
            }
            let (payload, is_unjoined) = Unjoined::open(payload);
            let mut payload = Some(payload);
            self.exception_handler.with(|handler| {
                if let Some(payload) = payload.take() {
                    handler(self, payload);
                }
            });
            match payload {
                Some(payload) if is_unjoined => drop_quietly(payload),
                Some(payload) => resume_unwind(payload),
                None => {}
            }
        }
    }
}

pub(crate) type Payload = Box<dyn Any + Send>;

/// The payload of a panic in a task, or in work on another thread, whose handle was dropped. The
/// exception handler gets the payload inside; without a handler, the loop continues (S41).
pub(crate) struct Unjoined(Payload);

impl Unjoined {
    /// Wraps a payload so that `handle_panics` recognizes it.
    pub(crate) fn boxed(payload: Payload) -> Payload {
        Box::new(Unjoined(payload))
    }

    /// Panics without calling the panic hook, which has reported the panic already.
    pub(crate) fn raise(payload: Payload) -> ! {
        resume_unwind(Unjoined::boxed(payload))
    }

    /// The original payload, and whether it was wrapped in an `Unjoined`.
    fn open(payload: Payload) -> (Payload, bool) {
        match payload.downcast::<Unjoined>() {
            Ok(unjoined) => (unjoined.0, true),
            Err(payload) => (payload, false),
        }
    }
}

pub(super) fn attempt(f: impl FnOnce()) -> Option<Payload> {
    catch_unwind(AssertUnwindSafe(f)).err()
}

/// Drops a value. If the drop panics, only the panic hook reports that.
pub(crate) fn drop_quietly<T>(value: T) {
    // Dropping the payload of that panic may panic as well.
    std::mem::forget(attempt(|| drop(value)));
}

/// While this lives, user code is on the stack outside a run, and the loop cannot be closed.
pub(crate) struct UserCode<'a>(&'a Loop);

impl<'a> UserCode<'a> {
    pub(crate) fn begin(lp: &'a Loop) -> UserCode<'a> {
        lp.user_code.set(lp.user_code.get() + 1);
        UserCode(lp)
    }
}

impl Drop for UserCode<'_> {
    fn drop(&mut self) {
        self.0.user_code.set(self.0.user_code.get() - 1);
    }
}
