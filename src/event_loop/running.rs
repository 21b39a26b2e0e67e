//! Which loop is running on this thread, the innermost one where loops are nested (S20).

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;

use crate::event_loop::Loop;

thread_local!(static INNERMOST: Cell<*const Loop> = const { Cell::new(ptr::null()) });

/// While this lives, the loop it was made for is the innermost one that runs.
pub(crate) struct Running<'a> {
    outer: *const Loop,
    lp: PhantomData<&'a Loop>,
}

impl<'a> Running<'a> {
    pub(crate) fn enter(lp: &'a Loop) -> Running<'a> {
        Running { outer: INNERMOST.replace(lp), lp: PhantomData }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        INNERMOST.set(self.outer);
    }
}

/// Hands the innermost running loop of this thread to `f`.
pub(crate) fn with_innermost<R>(f: impl FnOnce(Option<&Loop>) -> R) -> R {
    // SAFETY: a loop is borrowed while it stands in INNERMOST, and it stays there for as long as `f` can run: what is
    // nested in `f` takes itself out again before `f` returns.
    f(unsafe { INNERMOST.get().as_ref() })
}
