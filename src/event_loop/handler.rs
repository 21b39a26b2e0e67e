//! A place for one handler of the user's, which may replace itself while it runs.

use std::cell::{Cell, RefCell};
use std::fmt;

/// Holds a closure that is called now and then. No borrow is held while it runs.
pub(crate) struct Handler<F: ?Sized> {
    handler: RefCell<Option<Box<F>>>,
    /// Counts `set`: tells whether the handler was replaced while it was away, running.
    version: Cell<u64>,
}

impl<F: ?Sized> Handler<F> {
    /// Replaces the handler. The former one is dropped when nothing is borrowed, if it is running
    /// after it has returned.
    pub(crate) fn set(&self, handler: Option<Box<F>>) {
        self.version.set(self.version.get() + 1);
        let former = self.handler.replace(handler);
        drop(former);
    }

    /// Forgets the handler without dropping it.
    pub(crate) fn forget(&self) {
        std::mem::forget(self.handler.take());
    }

    /// Calls `f` with the handler if there is one and it is not running already.
    pub(crate) fn with(&self, f: impl FnOnce(&mut F)) {
        let Some(handler) = self.handler.take() else { return };
        let mut away = Away { home: self, version: self.version.get(), handler: Some(handler) };
        if let Some(handler) = &mut away.handler {
            f(handler);
        }
    }
}

/// Brings a handler back when it has run, also when it panicked, unless another has taken its
/// place.
struct Away<'a, F: ?Sized> {
    home: &'a Handler<F>,
    version: u64,
    handler: Option<Box<F>>,
}

impl<F: ?Sized> Drop for Away<'_, F> {
    fn drop(&mut self) {
        if self.home.version.get() == self.version {
            *self.home.handler.borrow_mut() = self.handler.take();
        }
    }
}

impl<F: ?Sized> Default for Handler<F> {
    fn default() -> Handler<F> {
        Handler { handler: RefCell::new(None), version: Cell::new(0) }
    }
}

impl<F: ?Sized> fmt::Debug for Handler<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn a_handler_may_replace_itself_while_it_runs() {
        let home: Rc<Handler<dyn FnMut(u32)>> = Rc::default();
        let calls = Rc::new(RefCell::new(Vec::new()));
        let (inner_home, inner_calls) = (Rc::clone(&home), Rc::clone(&calls));
        home.set(Some(Box::new(move |n| {
            let calls = Rc::clone(&inner_calls);
            inner_calls.borrow_mut().push(("first", n));
            inner_home.set(Some(Box::new(move |n| calls.borrow_mut().push(("second", n)))));
        })));
        home.with(|handler| handler(1));
        home.with(|handler| handler(2));
        home.set(None);
        home.with(|handler| handler(3));
        assert_eq!(*calls.borrow(), [("first", 1), ("second", 2)]);
    }

    #[test]
    fn a_handler_that_panics_stays() {
        let home: Handler<dyn FnMut(bool)> = Handler::default();
        let ran = Rc::new(Cell::new(0));
        let inner = Rc::clone(&ran);
        home.set(Some(Box::new(move |panic| {
            inner.set(inner.get() + 1);
            assert!(!panic, "as asked");
        })));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            home.with(|handler| handler(true))
        }));
        assert!(caught.is_err());
        home.with(|handler| handler(false));
        assert_eq!(ran.get(), 2);
    }
}
