//! What is read from and written to: a descriptor, and what cancelled operations on it have left.

use std::cell::Cell;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use libc::c_int;

use super::flight::{Flight, Kept};
use super::receive::Received;
use crate::error::{Error, Result};
use crate::sys::try_arc::TryRc;

/// IoKind a descriptor is read from and written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IoKind {
    /// recv(2), send(2).
    Stream,
    /// recvmsg(2), sendmsg(2): with addresses.
    Datagrams,
    /// read(2), write(2), at the position of the file if it has one.
    File,
}

/// A descriptor, and what comes of operations on it that nobody awaits any more.
pub(crate) struct Socket {
    pub(crate) fd: OwnedFd,
    pub(crate) how: IoKind,
    pub(crate) receiving: Turns<dyn Received>,
    pub(crate) sending: Turns<dyn Kept>,
}

impl Socket {
    pub(crate) fn new(fd: OwnedFd, how: IoKind) -> Result<TryRc<Socket>> {
        let socket = Socket { fd, how, receiving: Turns::default(), sending: Turns::default() };
        TryRc::new(socket)
    }

    /// Whether it is a regular file, and then how large. A file system whose server does not answer is not asked: the loop's thread would
    /// wait for it. One system call, for what may be one.
    fn file_size(&self) -> Option<u64> {
        const FLAGS: c_int = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
        if self.how != IoKind::File {
            return None;
        }
        // SAFETY: zeros are numbers.
        let mut status: libc::statx = unsafe { mem::zeroed() };
        let asked = libc::STATX_TYPE | libc::STATX_SIZE;
        // SAFETY: the path is a string that lives for ever, and there is room for the answer.
        let answer = unsafe { libc::statx(self.fd.as_raw_fd(), c"".as_ptr(), FLAGS, asked, &mut status) };
        let is_regular = answer == 0 && u32::from(status.stx_mode) & libc::S_IFMT == libc::S_IFREG;
        is_regular.then_some(status.stx_size)
    }

    /// Whether a read of it ends by itself: of a regular file, but for those without a size, such as `/proc/kmsg`.
    pub(crate) fn reads_end(&self) -> bool {
        self.file_size().is_some_and(|size| size > 0)
    }

    /// Waits until what is left of the other kind has moved the position of the file, which the kernel lets both use at once.
    pub(crate) fn poll_position<K: ?Sized>(&self, other: &Turns<K>, context: &Context<'_>) -> Poll<()> {
        let must_wait =
            self.how == IoKind::File && other.poll_left_ended(context).is_pending() && self.file_size().is_some();
        if must_wait { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The result of a cancelled operation, and the operation with what it kept.
pub(crate) type Left<K> = (Result<u32>, TryRc<Flight<K>>);

/// Operations of one kind on one descriptor, of which one is under way at most.
pub(crate) struct Turns<K: ?Sized> {
    is_taken: Cell<bool>,
    /// What was cancelled last, if nobody has had its result.
    left: Cell<Option<TryRc<Flight<K>>>>,
    /// IoKind much of its data has been given away.
    given: Cell<usize>,
}

impl<K: ?Sized> Default for Turns<K> {
    fn default() -> Turns<K> {
        Turns { is_taken: Cell::new(false), left: Cell::new(None), given: Cell::new(0) }
    }
}

impl<K: ?Sized> Turns<K> {
    /// Begins a turn. Errors: EBUSY when another's has not ended.
    pub(crate) fn begin(&self) -> Result<()> {
        if self.is_taken.replace(true) { Err(Error::ANOTHER_UNDER_WAY) } else { Ok(()) }
    }

    /// Ends a turn; a flight that has been abandoned stays for the next.
    pub(crate) fn end(&self, left: Option<TryRc<Flight<K>>>) {
        self.is_taken.set(false);
        if left.is_some() {
            self.given.set(0);
            self.left.set(left);
        }
    }

    /// Waits for the end of what is left. None: nothing is, or it has ended as it was asked to.
    pub(crate) fn poll_left(&self, context: &Context<'_>) -> Poll<Option<Left<K>>> {
        let Some(left) = self.left.take() else { return Poll::Ready(None) };
        // A panic of a waker's must not lose it.
        self.left.set(Some(left.clone()));
        let result = ready!(left.poll_end(context));
        self.left.set(None);
        let is_nothing = result.is_err_and(|error| error.raw_os_error() == libc::ECANCELED);
        Poll::Ready((!is_nothing).then_some((result, left)))
    }

    /// Waits for the end of what is left, which stays there.
    fn poll_left_ended(&self, context: &Context<'_>) -> Poll<()> {
        let Some(left) = self.left.take() else { return Poll::Ready(()) };
        // A panic of a waker's must not lose it.
        self.left.set(Some(left.clone()));
        left.poll_end(context).map(drop)
    }

    /// IoKind much has been given of what is left.
    pub(crate) fn given(&self) -> usize {
        self.given.get()
    }

    /// Puts back what was left, of which so much has been given.
    pub(crate) fn put_back(&self, left: TryRc<Flight<K>>, given: usize) {
        self.given.set(given);
        self.left.set(Some(left));
    }
}
