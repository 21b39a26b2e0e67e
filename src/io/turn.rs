//! Operations that take turns: at most one of a kind is under way on a descriptor, and the next one
//! gets the result of a cancelled one, so that no data is lost or reordered. `Turns` belongs to the
//! descriptor; `Turn` is the future. A second operation of the kind is refused while the future of
//! the first exists: there is no queue of waiters.
//!
//! This is for receives, sends and accepts. An operation without a result to keep uses
//! `in_flight::run`.

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

/// The operations of one kind on one descriptor.
#[derive(Default)]
pub(crate) struct Turns {
    is_taken: Cell<bool>,
    /// The last cancelled operation, if its result has not been taken.
    left: Cell<Option<LeftCell>>,
    /// The number of bytes of its data that have been taken.
    given: Cell<usize>,
}

/// An operation that is no longer awaited.
pub(crate) type LeftCell = TryRc<OpCell<dyn Abandoned>>;

/// The result of a cancelled operation, for the next one.
pub(crate) enum Left<'a> {
    Nothing,
    /// Data, and its sender if that was requested.
    Data(&'a [u8], Address),
    Connection(OwnedFd),
}

/// An operation that has ended and is no longer awaited.
pub(crate) trait Abandoned {
    fn left(&mut self) -> Result<Left<'_>>;
}

impl<D, M: InTurn> Abandoned for Stage<D, M> {
    fn left(&mut self) -> Result<Left<'_>> {
        M::left(self.output.as_mut().expect("it has ended"))
    }
}

impl Turns {
    /// Begins a turn. Errors: EBUSY during another turn.
    fn begin(&self) -> Result<()> {
        if self.is_taken.replace(true) { Err(Error::ANOTHER_UNDER_WAY) } else { Ok(()) }
    }

    /// Ends a turn; an abandoned operation stays for the next turn.
    fn end(&self, left: Option<LeftCell>) {
        self.is_taken.set(false);
        if left.is_some() {
            self.given.set(0);
            self.left.set(left);
        }
    }

    /// Waits for the end of the abandoned operation. None: there is none, or it ended with
    /// ECANCELED.
    fn poll_left(&self, context: &Context<'_>) -> Poll<Option<LeftCell>> {
        // The fast path: usually there is none.
        let Some(left) = self.left.take() else { return Poll::Ready(None) };
        self.left.set(Some(left));
        let ended = ready!(self.poll_left_ended(context));
        let is_nothing = ended.is_err_and(|error| error.raw_os_error() == libc::ECANCELED);
        Poll::Ready(self.left.take().filter(|_| !is_nothing))
    }

    /// Waits for the end of the abandoned operation, which stays.
    pub(super) fn poll_left_ended(&self, context: &Context<'_>) -> Poll<Result<()>> {
        let Some(left) = self.left.take() else { return Poll::Ready(Ok(())) };
        // Cloned first, because a waker that panics must not lose it.
        self.left.set(Some(left.clone()));
        left.poll_end(context)
    }

    /// The number of bytes of the abandoned operation's data that have been taken.
    pub(super) fn given(&self) -> usize {
        self.given.get()
    }

    /// Puts back an abandoned operation, of whose data `given` bytes have been taken.
    pub(super) fn put_back(&self, left: LeftCell, given: usize) {
        self.given.set(given);
        self.left.set(Some(left));
    }
}

/// The data of an operation that takes turns.
pub(crate) trait InTurn: OpData + Sized {
    fn turns(fd: &SharedFd) -> &Turns;

    /// Refuses unusable data, before anything else.
    fn check(&mut self) -> Result<()> {
        Ok(())
    }

    /// Waits for the end of operations of other kinds, if necessary.
    fn poll_others(_: &SharedFd, _: &Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Ends with the result of a cancelled operation. Returns the data if that result is not for
    /// it.
    fn take_left(self, fd: &SharedFd, left: LeftCell) -> std::result::Result<Self::Output, Self>;

    /// Whether an operation that is no longer awaited ends by itself, and must not be cancelled.
    fn ends_by_itself(_: &SharedFd) -> bool {
        false
    }

    /// The part of an output that is left for the next operation.
    fn left(output: &mut Self::Output) -> Result<Left<'_>>;
}

/// The future of an operation that waits for its turn, then for its result. If dropped, it leaves
/// its result to the next one.
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

    /// Begins with the result of a cancelled operation, otherwise with its own operation. None: its
    /// own has begun.
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
    /// If it is polled again after it was ready.
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
