//! Operations in flight that take turns: of one kind on one descriptor, one is under way at most,
//! and what a cancelled one has brought is given to the next, so that nothing is lost and data
//! keeps its order (`Turns`, which the descriptor owns; `Turn`, the future). A second operation of
//! the kind is refused while the future of the first lives: nobody waits in a queue.
//!
//! It is for what receives, sends and accepts; an operation of which nothing is left when it is
//! cancelled needs `in_flight::run` alone.

use std::cell::Cell;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::in_flight::{InFlight, OpCell, Stage, begin};
use super::shared_fd::SharedFd;
use crate::error::{Error, Result};
use crate::op::address::Address;
use crate::op::operation::{Op, OpData, Outcome};
use crate::sys::memory::TryRc;

/// Operations of one kind on one descriptor.
#[derive(Default)]
pub(crate) struct Turns {
    is_taken: Cell<bool>,
    /// What was cancelled last, if nobody has had its result.
    left: Cell<Option<LeftCell>>,
    /// How much of its data has been given away.
    given: Cell<usize>,
}

/// An operation that nobody awaits any more.
pub(crate) type LeftCell = TryRc<OpCell<dyn Abandoned>>;

/// What an operation has left to the next.
pub(crate) enum Left<'a> {
    Nothing,
    /// And who has sent it, where that was asked for.
    Data(&'a [u8], Address),
    Connection(OwnedFd),
}

/// An operation that has ended, and that nobody awaited any more.
pub(crate) trait Abandoned {
    fn left(&mut self) -> Result<Left<'_>>;
}

impl<D, M: InTurn> Abandoned for Stage<D, M> {
    fn left(&mut self) -> Result<Left<'_>> {
        M::left(self.output.as_mut().expect("it has ended"))
    }
}

impl Turns {
    /// Begins a turn. Errors: EBUSY when another's has not ended.
    fn begin(&self) -> Result<()> {
        if self.is_taken.replace(true) { Err(Error::ANOTHER_UNDER_WAY) } else { Ok(()) }
    }

    /// Ends a turn; an operation that has been abandoned stays for the next.
    fn end(&self, left: Option<LeftCell>) {
        self.is_taken.set(false);
        if left.is_some() {
            self.given.set(0);
            self.left.set(left);
        }
    }

    /// Waits for the end of what is left. None: nothing is, or it has ended as it was asked to.
    fn poll_left(&self, context: &Context<'_>) -> Poll<Option<LeftCell>> {
        // Nearly always nothing is: the shortest way, for the hot path.
        let Some(left) = self.left.take() else { return Poll::Ready(None) };
        self.left.set(Some(left));
        let ended = ready!(self.poll_left_ended(context));
        let is_nothing = ended.is_err_and(|error| error.raw_os_error() == libc::ECANCELED);
        Poll::Ready(self.left.take().filter(|_| !is_nothing))
    }

    /// Waits for the end of what is left, which stays there.
    pub(super) fn poll_left_ended(&self, context: &Context<'_>) -> Poll<Result<()>> {
        let Some(left) = self.left.take() else { return Poll::Ready(Ok(())) };
        // A panic of a waker's must not lose it.
        self.left.set(Some(left.clone()));
        left.poll_end(context)
    }

    /// How much has been given of what is left.
    pub(super) fn given(&self) -> usize {
        self.given.get()
    }

    /// Puts back what was left, of which so much has been given.
    pub(super) fn put_back(&self, left: LeftCell, given: usize) {
        self.given.set(given);
        self.left.set(Some(left));
    }
}

/// The data of an operation that takes turns.
pub(crate) trait InTurn: OpData + Sized {
    fn turns(fd: &SharedFd) -> &Turns;

    /// Refuses data that cannot be used, before anything else.
    fn check(&mut self) -> Result<()> {
        Ok(())
    }

    /// Waits for what else must have ended.
    fn poll_others(_: &SharedFd, _: &Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Ends with what a cancelled operation has left. The data comes back where that is nothing to
    /// it.
    fn take_left(self, fd: &SharedFd, left: LeftCell) -> std::result::Result<Self::Output, Self>;

    /// Whether an operation that nobody awaits any more ends by itself, and is not to be cancelled.
    fn ends_by_itself(_: &SharedFd) -> bool {
        false
    }

    /// What an operation that came to this has left.
    fn left(output: &mut Self::Output) -> Result<Left<'_>>;
}

/// An operation that waits for its turn, then for its result. Dropped, it leaves to the next what
/// has come.
pub(crate) struct Turn<M: InTurn> {
    fd: TryRc<SharedFd>,
    /// Until it is submitted.
    op: Option<Op<TryRc<SharedFd>, M>>,
    in_flight: Option<InFlight<TryRc<SharedFd>, M>>,
    has_turn: bool,
}

impl<M: InTurn> Turn<M> {
    pub(crate) fn new(fd: &TryRc<SharedFd>, op: Op<TryRc<SharedFd>, M>) -> Turn<M> {
        Turn { fd: fd.clone(), op: Some(op), in_flight: None, has_turn: false }
    }

    /// Begins: with what is left of an operation that was cancelled, else with its own. None: that
    /// has begun.
    fn begin(&mut self, context: &Context<'_>) -> Poll<Option<M::Output>> {
        let turns = M::turns(&self.fd);
        let op = self.op.as_mut().expect("a future is not polled after it was ready");
        if !self.has_turn {
            if let Err(error) = op.data().check().and_then(|()| turns.begin()) {
                let op = self.op.take().expect("it is there");
                return Poll::Ready(Some(op.complete(Outcome::error(error))));
            }
            self.has_turn = true;
        }
        if let Some(left) = ready!(turns.poll_left(context)) {
            let op = self.op.take().expect("it is there");
            match op.end_with(|data| data.take_left(&self.fd, left)) {
                Ok(output) => return Poll::Ready(Some(output)),
                Err(op) => self.op = Some(op),
            }
        }
        ready!(M::poll_others(&self.fd, context));
        match begin(self.op.take().expect("it is there")) {
            Ok(in_flight) => {
                self.in_flight = Some(in_flight);
                Poll::Ready(None)
            }
            Err(output) => Poll::Ready(Some(output)),
        }
    }

    fn end_turn(&mut self) {
        if std::mem::take(&mut self.has_turn) {
            let left = self.in_flight.take().and_then(|mut in_flight| {
                if M::ends_by_itself(&self.fd) { in_flight.leave() } else { in_flight.abandon() }
            });
            M::turns(&self.fd)
                .end(left.map(|cell| cell.unsize::<OpCell<dyn Abandoned>>(|cell| cell)));
        }
    }
}

impl<M: InTurn> Future for Turn<M> {
    type Output = M::Output;

    /// # Panics
    /// When it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<M::Output> {
        let this = &mut *self;
        if this.in_flight.is_none()
            && let Some(output) = ready!(this.begin(context))
        {
            this.end_turn();
            return Poll::Ready(output);
        }
        let in_flight = this.in_flight.as_mut().expect("it has begun");
        let output = ready!(Pin::new(in_flight).poll(context));
        this.in_flight = None;
        this.end_turn();
        Poll::Ready(output)
    }
}

impl<M: InTurn> Unpin for Turn<M> {}

impl<M: InTurn> Drop for Turn<M> {
    fn drop(&mut self) {
        self.end_turn();
    }
}
