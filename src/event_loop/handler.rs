//! Storage for one handler of the user, which may replace itself while it runs.
//!
//! No borrow is held while a handler runs or is dropped. A handler that panics stays set. A handler
//! does not run nested in itself.

use std::cell::Cell;
use std::panic::resume_unwind;

use super::release::attempt;

/// Holds a closure that may be called many times.
pub(super) struct Handler<F: ?Sized> {
    handler: Cell<Option<Box<F>>>,
    /// The number of `set` calls; shows whether the handler was replaced while it ran.
    version: Cell<u64>,
}

impl<F: ?Sized> Handler<F> {
    /// Replaces the handler. A running handler is dropped after it returns.
    pub(super) fn set(&self, handler: Option<Box<F>>) {
        self.version.set(self.version.get() + 1);
        drop(self.handler.replace(handler));
    }

    /// Forgets the handler without dropping it.
    pub(super) fn forget(&self) {
        std::mem::forget(self.handler.take());
    }

    /// Calls `f` with the handler, if there is one and it is not running already.
    pub(super) fn with(&self, f: impl FnOnce(&mut F)) {
        let Some(mut handler) = self.handler.take() else { return };
        let version = self.version.get();
        let panic = attempt(|| f(&mut handler));
        if self.version.get() == version {
            self.handler.set(Some(handler));
        }
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

impl<F: ?Sized> Default for Handler<F> {
    fn default() -> Handler<F> {
        Handler { handler: Cell::new(None), version: Cell::new(0) }
    }
}
