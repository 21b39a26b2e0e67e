//! An operation in flight, and whoever awaits it: one allocation, with what the kernel uses in it.
//!
//! The loop's side is its callback, which keeps the descriptor as well: it lands the flight with the result, or loses it when it is
//! dropped without one. The other side is a future, or what it has left behind: nobody touches what is kept before the flight
//! has landed or is lost, and until then the loop's side owns it too, so that the kernel may use it whatever becomes of the future.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll};

use crate::abi::handle::Handle;
use crate::abi::sqe::Sqe;
use crate::error::{Error, Result};
use crate::event_loop::Callback;
use crate::event_loop::Loop;
use crate::pending::event::Event;
use crate::sys::try_arc::{TryArc, TryRc};
use crate::task::{Notify, cancel};
use crate::threads::remote::Shared;

/// What an operation keeps until its end.
pub(crate) trait Kept: 'static {
    /// The operation has come to this. The kernel has let go.
    fn landed(&mut self, _result: Result<u32>) {}
}

/// An operation that has begun.
pub(crate) struct Flight<K: ?Sized> {
    state: Cell<State>,
    waiter: Cell<Option<Notify>>,
    handle: Cell<Option<Handle>>,
    shared: TryArc<Shared>,
    kept: RefCell<K>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Flying,
    Landed(Result<u32>),
    /// The loop has been closed, or has not taken it.
    Lost,
}

/// The loop's side.
struct Landing<K: Kept, D>(Option<(TryRc<Flight<K>>, TryRc<D>)>);

impl<K: Kept, D> Landing<K, D> {
    fn end(&mut self, state: State) {
        let Some((flight, keeper)) = self.0.take() else { return };
        if let State::Landed(result) = state {
            flight.kept.borrow_mut().landed(result);
        }
        flight.state.set(state);
        let waiter = flight.waiter.take();
        // This comes first, so that whoever is woken finds itself the only owner.
        drop((keeper, flight));
        waiter.into_iter().for_each(Notify::wake);
    }
}

impl<K: Kept, D> Drop for Landing<K, D> {
    fn drop(&mut self) {
        self.end(State::Lost);
    }
}

/// Begins an operation on the loop that is running on this thread: `entry` makes the entry of what is kept, at the place where that
/// stays. What was to be kept comes back with an error. One allocation.
///
/// # Safety
/// All that the entry points to is in what is kept, which leaves it alone but for `landed`; and the descriptor is the keeper's.
pub(crate) unsafe fn begin<K: Kept, D: 'static>(
    kept: K,
    keeper: &TryRc<D>,
    entry: impl FnOnce(&Loop, &mut K) -> Result<Sqe>,
) -> std::result::Result<InFlight<K>, (Error, K)> {
    Loop::with_running(|lp| {
        let lp = match lp.ok_or(Error::NO_LOOP).and_then(|lp| lp.check_open().map(|()| lp)) {
            Ok(lp) => lp,
            Err(error) => return Err((error, kept)),
        };
        let flight = Flight {
            state: Cell::new(State::Flying),
            waiter: Cell::new(None),
            handle: Cell::new(None),
            shared: lp.shared().clone(),
            kept: RefCell::new(kept),
        };
        let flight = TryRc::new_or_back(flight).map_err(|flight| (Error::NO_MEMORY, flight.kept.into_inner()))?;
        let sqe = entry(lp, &mut flight.kept.borrow_mut());
        let begun = sqe.and_then(|sqe| {
            let mut landing = Landing(Some((flight.clone(), keeper.clone())));
            let land = move |_: &Loop, event: &Event| landing.end(State::Landed(event.completed().count()));
            // SAFETY: the callback keeps what the caller says that the entry points to.
            unsafe { lp.submit_operation(&sqe, None, Callback::once_for::<K, _>(land)?) }
        });
        match begun {
            Ok(handle) => {
                flight.handle.set(Some(handle));
                Ok(InFlight(Some(flight)))
            }
            Err(error) => Err((error, take_kept(flight))),
        }
    })
}

fn take_kept<K>(flight: TryRc<Flight<K>>) -> K {
    flight.into_inner().expect("the loop's side has let go of it").kept.into_inner()
}

impl<K: ?Sized> Flight<K> {
    /// Waits for the end. ECANCELED when the loop is closed first.
    pub(crate) fn poll_end(&self, context: &Context<'_>) -> Poll<Result<u32>> {
        if self.state.get() == State::Flying {
            let waiter = self.waiter.take().filter(|waiter| waiter.is_for(context.waker()));
            let waiter = waiter.unwrap_or_else(|| Notify::of(context.waker()));
            // The wakers of others are user code, which may have shut the loop down.
            if self.state.get() == State::Flying {
                self.waiter.set(Some(waiter));
            }
        }
        match self.state.get() {
            State::Landed(result) => Poll::Ready(result),
            State::Lost => Poll::Ready(Err(Error::SENDER_DROPPED)),
            State::Flying => Poll::Pending,
        }
    }

    /// What was kept. Only when the operation has ended.
    pub(crate) fn with_kept<R>(&self, f: impl FnOnce(&mut K) -> R) -> R {
        assert!(self.state.get() != State::Flying, "the kernel has it");
        f(&mut self.kept.borrow_mut())
    }

    /// Nobody is to be woken any more, who has given up.
    fn forget_waiter(&self) {
        drop(self.waiter.take());
    }

    fn cancel(&self) {
        if let (State::Flying, Some(handle)) = (self.state.get(), self.handle.get()) {
            self.forget_waiter();
            cancel(&self.shared, handle);
        }
    }
}

impl<K: Kept> TryRc<Flight<K>> {
    /// The flight of anything that is kept.
    pub(crate) fn erase(self) -> TryRc<Flight<dyn Kept>> {
        self.unsize(|inner| inner)
    }
}

/// A flight that is awaited. Dropping it cancels the operation.
pub(crate) struct InFlight<K>(Option<TryRc<Flight<K>>>);

impl<K> InFlight<K> {
    /// Waits for the end, and gives back what was kept.
    ///
    /// # Panics
    /// When it is polled again after it was ready.
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Poll<(Result<u32>, K)> {
        let flight = self.0.as_ref().expect("a future is not polled after it was ready");
        let Poll::Ready(result) = flight.poll_end(context) else { return Poll::Pending };
        let flight = self.0.take().expect("it was there");
        Poll::Ready((result, take_kept(flight)))
    }

    /// Leaves the flight, which ends by itself, to whoever comes next. None if it has been taken.
    pub(crate) fn leave(&mut self) -> Option<TryRc<Flight<K>>> {
        self.0.take().inspect(|flight| flight.forget_waiter())
    }

    /// Cancels the operation, and leaves the flight to whoever comes next. None if it has been taken.
    pub(crate) fn abandon(&mut self) -> Option<TryRc<Flight<K>>> {
        self.0.take().inspect(|flight| flight.cancel())
    }
}

impl<K> Drop for InFlight<K> {
    fn drop(&mut self) {
        drop(self.abandon());
    }
}
