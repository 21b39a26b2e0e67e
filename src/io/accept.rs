//! Accepting connections, so that none is lost when the future is dropped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::in_flight::OpCell;
use super::turn::{InTurn, StageOf, Turn, Turns};
use crate::error::Result;
use crate::op::data::NoData;
use crate::op::sockets::accept;
use crate::sys::memory::TryRc;

/// A socket that listens, and a connection that was accepted for nobody.
pub(crate) struct Listening {
    pub(crate) fd: OwnedFd,
    accepting: Turns<StageOf<NoData<OwnedFd>>>,
}

impl Listening {
    pub(crate) fn new(fd: OwnedFd) -> Result<TryRc<Listening>> {
        TryRc::new(Listening { fd, accepting: Turns::default() })
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Accepts a connection. Dropped, it leaves to the next what has come.
pub(crate) fn accept_from(listening: &TryRc<Listening>) -> Turn<NoData<OwnedFd>> {
    Turn::new(listening, accept(listening.clone(), libc::SOCK_CLOEXEC))
}

impl InTurn for NoData<OwnedFd> {
    type Source = Listening;
    type Left = StageOf<NoData<OwnedFd>>;

    fn turns(source: &Listening) -> &Turns<Self::Left> {
        &source.accepting
    }

    fn take_left(
        self,
        _: &Listening,
        left: TryRc<OpCell<Self::Left>>,
    ) -> std::result::Result<Result<OwnedFd>, NoData<OwnedFd>> {
        Ok(left.with_stage(|stage| stage.output.take().expect("it has ended")))
    }

    fn leave(cell: TryRc<OpCell<StageOf<NoData<OwnedFd>>>>) -> TryRc<OpCell<Self::Left>> {
        cell
    }
}
