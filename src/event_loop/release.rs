//! The end of user code: releases of things that have ended (S14), and the way of panics (S30).
//!
//! What has ended is dropped and then its release hook called, each once; a panic in the first does
//! not prevent the second, and no panic is lost but one that another overtakes. Releases nest
//! sixteen deep, whatever ends what. This relies on callers that hold no borrow.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::Loop;
use crate::event_loop::Held;
use crate::pending::event::Event;

/// How deep releases nest: a hook or a Drop that ends the next thing, whose hook or Drop ends
/// another. Sixteen levels of nested task groups take less than 128 KiB of stack in a debug build.
const MAX_NESTED_RELEASES: u32 = 16;

impl Loop {
    /// Drops what a thing has left and runs its release hook; gives a panic of these. User code: no
    /// borrow may be held, and the loop is not closed meanwhile.
    pub(super) fn release(&self, ended: Held) -> Option<Payload> {
        let _user_code = UserCode::begin(self);
        self.releases.set(self.releases.get() + 1);
        let mut panic = self.release_one(ended);
        if self.defers_releases() {
            // User code may have forked: in the child, what waits stays where it is.
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

    /// Whether what ends now is released when the innermost release on the stack returns: a chain
    /// of any length takes no more stack than `MAX_NESTED_RELEASES`.
    pub(crate) fn defers_releases(&self) -> bool {
        self.releases.get() >= MAX_NESTED_RELEASES
    }

    fn release_one(&self, ended: Held) -> Option<Payload> {
        let Held { callback, release } = ended;
        // The hook comes after the Drop, also when that panics.
        let in_drop = attempt(|| drop(callback));
        if !self.owner.process().is_current() {
            // The Drop has forked, and this is the child: no more of the user's code runs here.
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

    /// As `release`, for what a function of the loop drops: a panic goes where those of callbacks
    /// go.
    #[cold]
    pub(crate) fn release_catching(&self, ended: Held) {
        if !ended.is_empty() {
            let panic = self.release(ended);
            if panic.is_some() {
                self.handle_panics([panic, None, None]);
            }
        }
    }

    /// Hands panics to the exception handler; without one, the first goes on its way (S30), unless
    /// it is nobody's (S41). In a forked child they are the parent's to handle (S33).
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

/// The payload of a panic for which somebody has dropped the handle: of a task, or of work off the
/// loop. The exception handler gets what is in it; without one, the loop goes on (S41).
pub(crate) struct Unjoined(Payload);

impl Unjoined {
    /// A payload that `handle_panics` knows again.
    pub(crate) fn boxed(payload: Payload) -> Payload {
        Box::new(Unjoined(payload))
    }

    /// Panics, without the panic hook, which has told of it already.
    pub(crate) fn raise(payload: Payload) -> ! {
        resume_unwind(Unjoined::boxed(payload))
    }

    /// The payload that the user knows, and whether it was that of an `Unjoined`.
    fn open(payload: Payload) -> (Payload, bool) {
        match payload.downcast::<Unjoined>() {
            Ok(unjoined) => (unjoined.0, true),
            Err(payload) => (payload, false),
        }
    }
}

/// Calls `f`, and gives the payload if it panics.
pub(super) fn attempt(f: impl FnOnce()) -> Option<Payload> {
    catch_unwind(AssertUnwindSafe(f)).err()
}

/// Drops what may panic in that: then the panic is told by the panic hook alone.
pub(crate) fn drop_quietly<T>(value: T) {
    // The payload of that panic may panic as well.
    std::mem::forget(attempt(|| drop(value)));
}

/// While this lives, user code is on the stack outside of a run, and the loop is not closed.
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
