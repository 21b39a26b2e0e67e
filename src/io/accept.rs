//! Accepting connections, so that none is lost when the future is dropped.

use std::future::Future;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::flight::{InFlight, Kept, begin};
use super::source::Turns;
use crate::error::Result;
use crate::event_loop::Loop;
use crate::op::entries;
use crate::sys::try_arc::TryRc;

/// A socket that listens, and a connection that was accepted for nobody.
pub(crate) struct Listening {
    pub(crate) fd: OwnedFd,
    accepting: Turns<Accepting>,
}

impl Listening {
    pub(crate) fn new(fd: OwnedFd) -> Result<TryRc<Listening>> {
        TryRc::new(Listening { fd, accepting: Turns::default() })
    }
}

/// A connection to come.
struct Accepting(Option<OwnedFd>);

impl Kept for Accepting {
    fn landed(&mut self, result: Result<u32>) {
        // SAFETY: the kernel made the descriptor for this operation, and nobody else knows of it.
        self.0 = result.ok().map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
    }
}

/// Accepts a connection. Dropped, it leaves to the next what has come.
pub(crate) struct Accept {
    listening: TryRc<Listening>,
    flight: Option<InFlight<Accepting>>,
    has_turn: bool,
}

impl Accept {
    pub(crate) fn new(listening: TryRc<Listening>) -> Accept {
        Accept { listening, flight: None, has_turn: false }
    }

    /// None: the operation has begun.
    fn begin(&mut self, context: &Context<'_>) -> Poll<Option<Result<OwnedFd>>> {
        let accepting = &self.listening.accepting;
        if !self.has_turn {
            accepting.begin()?;
            self.has_turn = true;
        }
        if let Some((result, left)) = ready!(accepting.poll_left(context)) {
            return Poll::Ready(Some(result.map(|_| left.with_kept(connection))));
        }
        let fd = self.listening.fd.as_raw_fd();
        let entry = |_: &Loop, _: &mut Accepting| Ok(entries::accept(fd, libc::SOCK_CLOEXEC));
        // SAFETY: the entry points at nothing; the descriptor is the listening socket's.
        match unsafe { begin(Accepting(None), &self.listening, entry) } {
            Ok(flight) => {
                self.flight = Some(flight);
                Poll::Ready(None)
            }
            Err((error, _)) => Poll::Ready(Some(Err(error))),
        }
    }

    fn end_turn(&mut self) {
        if std::mem::take(&mut self.has_turn) {
            let left = self.flight.take().and_then(|mut flight| flight.abandon());
            self.listening.accepting.end(left);
        }
    }
}

fn connection(accepting: &mut Accepting) -> OwnedFd {
    accepting.0.take().expect("an accept that went well has a descriptor")
}

impl Future for Accept {
    type Output = Result<OwnedFd>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<OwnedFd>> {
        let this = &mut *self;
        if this.flight.is_none()
            && let Some(result) = ready!(this.begin(context))
        {
            this.end_turn();
            return Poll::Ready(result);
        }
        let flight = this.flight.as_mut().expect("it has begun");
        let (result, mut accepting) = ready!(flight.poll(context));
        this.flight = None;
        this.end_turn();
        Poll::Ready(result.map(|_| connection(&mut accepting)))
    }
}

impl Drop for Accept {
    fn drop(&mut self) {
        self.end_turn();
    }
}
