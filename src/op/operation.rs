//! What an operation is, and how a loop calls back for one.
//!
//! An operation is a descriptor, an entry, and data: the functions of `files`, `sockets` and
//! `streams` put these together, one for each operation of the kernel's. Three fronts submit it,
//! and keep it where it stands until the kernel has let go: here, for callbacks; `io::in_flight`,
//! for futures; `capi::completions`, for C.
//!
//! `unsafe` is said once: an implementation of [`OpData`] says what the kernel finds behind the
//! addresses. Whoever puts an operation together relies on that, and has only to choose data that
//! fits the opcode.

use std::cell::RefCell;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::slice;

use super::accept_multi::AcceptMulti;
use super::data::NoData;
use super::recv_multi::RecvMulti;
use crate::abi::handle::Handle;
use crate::abi::sqe::{Entry, Sqe};
use crate::error::{Error, Result};
use crate::event_loop::{Callback, Loop};
use crate::pending::driver::Driver;
use crate::pending::event::Event;
use crate::sys::memory::TryRc;

/// The working directory, where a function asks for the directory that a path begins at.
pub const CWD: BorrowedFd<'static> = rustix::fs::CWD;

/// An operation on a descriptor. It keeps that, and its data.
pub(crate) struct Op<D, M> {
    fd: D,
    data: M,
    sqe: Sqe,
}

/// What an operation reads or writes, and what its result means.
///
/// # Safety
/// The memory that `point` writes the addresses of into the entry is the data's, or lives as long:
/// the kernel may use it for what the entry says while the data is neither moved (if it
/// `IS_INLINE`), used nor dropped. No other address is left in the entry.
pub(crate) unsafe trait OpData: 'static {
    /// What the operation comes to, with what it was given.
    type Output;

    /// Whether the entry points into the data itself, and not only at what that owns elsewhere.
    #[cfg_attr(
        not(feature = "capi"),
        allow(dead_code, reason = "C alone moves an operation for which this is not so")
    )]
    const IS_INLINE: bool = false;

    /// Writes to an entry where the data is.
    fn point(&mut self, sqe: &mut Sqe) -> Result<()>;

    /// What stands behind the operation if that is more than its entry.
    fn driver(_: &Loop, _: &mut Entry) -> Result<Option<Box<dyn Driver>>> {
        Ok(None)
    }

    /// What a result means. The kernel has let go.
    fn complete(self, outcome: Outcome) -> Self::Output;
}

/// What has the number of a descriptor for as long as the operation lasts.
pub(crate) trait Descriptor: 'static {
    fn number(&self) -> RawFd;
}

impl<D: AsFd + 'static> Descriptor for D {
    #[inline]
    fn number(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// A number that names a descriptor by the word of whoever gave it, or something else that stands
/// in its place.
#[derive(Clone, Copy)]
pub(crate) struct Number(pub(crate) RawFd);

impl Descriptor for Number {
    #[inline]
    fn number(&self) -> RawFd {
        self.0
    }
}

impl<D: Descriptor, M: OpData> Op<D, M> {
    /// An operation whose entry lacks the descriptor and the addresses.
    pub(super) fn new(fd: D, data: M, sqe: Sqe) -> Op<D, M> {
        Op { fd, data, sqe }
    }

    /// Makes the entry, which points at the operation where it stands.
    #[inline]
    pub(crate) fn entry(&mut self) -> Result<Sqe> {
        let mut sqe = Sqe { fd: self.fd.number(), ..self.sqe };
        self.data.point(&mut sqe)?;
        Ok(sqe)
    }

    /// Drops the descriptor, and tells what has come of the operation.
    #[inline]
    pub(crate) fn complete(self, outcome: Outcome) -> M::Output {
        drop(self.fd);
        self.data.complete(outcome)
    }

    /// Its data, before it is submitted.
    pub(crate) fn data(&mut self) -> &mut M {
        &mut self.data
    }

    /// Ends it before it is submitted, with what `f` makes of its data, unless that gives it back.
    pub(crate) fn end_with<T>(
        self,
        f: impl FnOnce(M) -> std::result::Result<T, M>,
    ) -> std::result::Result<T, Op<D, M>> {
        let Op { fd, data, sqe } = self;
        f(data).map_err(|data| Op { fd, data, sqe })
    }
}

impl<D, M> fmt::Debug for Op<D, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sqe.fmt(f)
    }
}

/// The result of an operation that the kernel has let go of, or never had. It is used up by what
/// comes of it, which may own something that there is once.
pub(crate) struct Outcome(Result<u32>);

impl Outcome {
    /// What an operation's callback is called with.
    ///
    /// # Safety
    /// It is a result of the operation that is completed with it, once, and the final one where
    /// that has memory.
    pub(crate) unsafe fn of(event: &Event) -> Outcome {
        Outcome(event.completed().count())
    }

    /// There has been no result.
    pub(crate) fn error(error: Error) -> Outcome {
        Outcome(Err(error))
    }

    /// Whether it went well.
    pub(crate) fn done(&self) -> Result<()> {
        self.0.map(drop)
    }

    /// A number of bytes.
    pub(crate) fn count(&self) -> Result<usize> {
        self.0.map(|count| count as usize)
    }
}

impl<T: Meaning> Op<Number, NoData<T>> {
    /// Its entry, for a driver, which keeps nothing of it.
    pub(super) fn into_sqe(mut self) -> Sqe {
        self.entry().expect("nothing about it can fail")
    }
}

/// What a result that is no error means.
pub(crate) trait Meaning: Sized + 'static {
    fn of(outcome: Outcome) -> Result<Self>;
}

impl Meaning for () {
    fn of(outcome: Outcome) -> Result<()> {
        outcome.done()
    }
}

/// A number of bytes.
impl Meaning for usize {
    fn of(outcome: Outcome) -> Result<usize> {
        outcome.count()
    }
}

/// A descriptor.
impl Meaning for OwnedFd {
    fn of(outcome: Outcome) -> Result<OwnedFd> {
        // SAFETY: the kernel made the descriptor for this operation, and nobody else knows of it.
        outcome.0.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    }
}

/// An operation, and what is called when it has ended.
struct Pending<D, M, F> {
    op: Op<D, M>,
    f: F,
}

impl Loop {
    /// Submits an operation. `f` gets what comes of it. When it cannot be submitted, both are
    /// dropped.
    pub(super) fn submit_op<D: Descriptor, M: OpData>(
        &self,
        op: Op<D, M>,
        f: impl FnOnce(&Loop, M::Output) + 'static,
    ) -> Result<Handle> {
        self.submit_op_with(op, f, |lp, output, f| f(lp, output))
    }

    /// The same for one with a buffer.
    pub(super) fn submit_buffer_op<D: Descriptor, M: OpData<Output: Into<(Result<T>, B)>>, T, B>(
        &self,
        op: Op<D, M>,
        f: impl FnOnce(&Loop, Result<T>, B) + 'static,
    ) -> Result<Handle> {
        self.submit_op_with(op, f, |lp, output, f| {
            let (result, buffer) = output.into();
            f(lp, result, buffer);
        })
    }

    /// Submits an operation whose callback is known by the name of its `f`.
    fn submit_op_with<D: Descriptor, M: OpData, F: 'static>(
        &self,
        op: Op<D, M>,
        f: F,
        end: fn(&Loop, M::Output, F),
    ) -> Result<Handle> {
        self.check_open()?;
        // Not a `Box`, which says with every move that nobody else uses what is in it.
        let place = TryRc::new(RefCell::new(Pending { op, f }))?;
        // SAFETY: the callback keeps the operation where it stands, and the loop drops it when the
        // kernel has let go.
        let mut entry = unsafe { Entry::new(place.borrow_mut().op.entry()?) };
        let driver = M::driver(self, &mut entry)?;
        let callback = Callback::once_for::<F, _>(move |lp: &Loop, event: &Event| {
            let Pending { op, f } = place.into_inner().expect("nobody else owns it").into_inner();
            // SAFETY: the loop calls this once, with the final result.
            let output = op.complete(unsafe { Outcome::of(event) });
            end(lp, output, f);
        })?;
        self.submit_operation(&entry, driver, callback)
    }

    /// Submits an accept with many results. `f` gets each, and `kept` lives until the last.
    pub(super) fn submit_accept(
        &self,
        accept: Box<AcceptMulti>,
        kept: impl AsFd + 'static,
        mut f: impl FnMut(&Loop, Result<OwnedFd>) + 'static,
    ) -> Result<Handle> {
        let callback = Callback::many_event(move |lp: &Loop, event: &Event| {
            let _kept = &kept;
            // SAFETY: each result of an accept is that of one connection.
            f(lp, OwnedFd::of(unsafe { Outcome::of(event) }));
        })?;
        self.submit_driver(accept, callback)
    }

    /// Submits a receive with many results, in the same way.
    pub(super) fn submit_recv(
        &self,
        recv: Box<RecvMulti>,
        kept: impl AsFd + 'static,
        mut f: impl FnMut(&Loop, Result<&[u8]>) + 'static,
    ) -> Result<Handle> {
        let callback = Callback::many_event(move |lp: &Loop, event: &Event| {
            let _kept = &kept;
            let received = event.completed();
            let bytes = received.count().map(|length| match length {
                0 => &[][..],
                // SAFETY: so many bytes are in a buffer of the loop's, which is the callback's
                // until it has returned.
                length => unsafe { slice::from_raw_parts(received.data, length as usize) },
            });
            f(lp, bytes);
        })?;
        self.submit_driver(recv, callback)
    }

    /// Submits the entries of a driver, the first now.
    pub(crate) fn submit_driver(
        &self,
        mut driver: Box<dyn Driver>,
        callback: Callback,
    ) -> Result<Handle> {
        let entry = driver.entry().expect("it begins with an entry");
        self.submit_operation(&entry, Some(driver), callback)
    }
}
