//! Operations: a descriptor, an entry and data; and their submission with a callback.
//!
//! The functions of `files`, `sockets` and `streams` make an [`Op`], one function for each
//! operation of the kernel. Three modules submit it, and keep it in place until the kernel has
//! released it: this one for callbacks, `io::in_flight` for futures, `capi::completions` for C.
//!
//! `unsafe` is here because an implementation of [`OpData`] guarantees the memory behind the
//! addresses. Functions that make an operation rely on that, and only choose data that fits the
//! opcode.

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

/// The working directory, for functions that take the directory of a relative path.
pub const CWD: BorrowedFd<'static> = rustix::fs::CWD;

/// An operation on a descriptor, before and while it is submitted. It owns the descriptor and the
/// data.
pub(crate) struct Op<D, M> {
    fd: D,
    data: M,
    sqe: Sqe,
}

/// The data of an operation: the memory that it uses, and the meaning of its result.
///
/// # Safety
/// Each address that `point` writes into the entry is that of memory of the data, or of memory that
/// lives as long. The kernel may use it as the entry says, while the data is not moved (if it
/// `IS_INLINE`), used or dropped. `point` leaves no other address in the entry.
pub(crate) unsafe trait OpData: 'static {
    /// The result, with the buffers that were given.
    type Output;

    /// Whether the entry points into the data itself, and not only at memory that the data owns.
    #[cfg_attr(
        not(feature = "capi"),
        allow(dead_code, reason = "C alone moves an operation for which this is not so")
    )]
    const IS_INLINE: bool = false;

    /// Writes the addresses of the data into an entry.
    fn point(&mut self, sqe: &mut Sqe) -> Result<()>;

    /// The driver of the operation, if it is more than one entry.
    fn driver(_: &Loop, _: &mut Entry) -> Result<Option<Box<dyn Driver>>> {
        Ok(None)
    }

    /// Converts the result. The kernel has released the data.
    fn complete(self, outcome: Outcome) -> Self::Output;
}

/// Owns or names a descriptor as long as the operation lasts.
pub(crate) trait Descriptor: 'static {
    fn number(&self) -> RawFd;
}

impl<D: AsFd + 'static> Descriptor for D {
    #[inline]
    fn number(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// A descriptor by number, which the caller guarantees, or another number in its place.
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

    /// Makes the entry, which points at the operation in its current place.
    #[inline]
    pub(crate) fn entry(&mut self) -> Result<Sqe> {
        let mut sqe = Sqe { fd: self.fd.number(), ..self.sqe };
        self.data.point(&mut sqe)?;
        Ok(sqe)
    }

    /// Drops the descriptor, and converts the result.
    #[inline]
    pub(crate) fn complete(self, outcome: Outcome) -> M::Output {
        drop(self.fd);
        self.data.complete(outcome)
    }

    /// The data, before the operation is submitted.
    pub(crate) fn data(&mut self) -> &mut M {
        &mut self.data
    }

    /// Ends the operation before it is submitted, with the value that `f` makes of its data, unless
    /// `f` returns the data.
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

/// The result of an operation that the kernel has released, or never had. It can be converted only
/// once, because the output may own a descriptor. (`event_loop::Outcome` is why a run returned.)
pub(crate) struct Outcome(Result<u32>);

impl Outcome {
    /// The result in the event of an operation's callback.
    ///
    /// # Safety
    /// It is a result of the operation that is completed with it, once; the final one if the
    /// operation has memory.
    pub(crate) unsafe fn of(event: &Event) -> Outcome {
        Outcome(event.completed().count())
    }

    /// An error without a result of the kernel.
    pub(crate) fn error(error: Error) -> Outcome {
        Outcome(Err(error))
    }

    /// Whether the operation succeeded.
    pub(crate) fn done(&self) -> Result<()> {
        self.0.map(drop)
    }

    /// The result as a number of bytes.
    pub(crate) fn count(&self) -> Result<usize> {
        self.0.map(|count| count as usize)
    }
}

impl<T: Meaning> Op<Number, NoData<T>> {
    /// Its entry, for a driver, which keeps no data of the operation.
    pub(super) fn into_sqe(mut self) -> Sqe {
        self.entry().expect("nothing about it can fail")
    }
}

/// The meaning of a result that is no error.
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
        // SAFETY: the kernel made the descriptor for this operation, and `Outcome` is converted
        // only once.
        outcome.0.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    }
}

/// An operation, and the function that is called when it has ended.
struct Pending<D, M, F> {
    op: Op<D, M>,
    f: F,
}

impl Loop {
    /// Submits an operation. `f` gets its output. When it cannot be submitted, both are dropped.
    pub(super) fn submit_op<D: Descriptor, M: OpData>(
        &self,
        op: Op<D, M>,
        f: impl FnOnce(&Loop, M::Output) + 'static,
    ) -> Result<Handle> {
        self.submit_op_with(op, f, |lp, output, f| f(lp, output))
    }

    /// The same for an operation with a buffer.
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

    /// Submits an operation whose callback is described by the type name of `f`.
    fn submit_op_with<D: Descriptor, M: OpData, F: 'static>(
        &self,
        op: Op<D, M>,
        f: F,
        end: fn(&Loop, M::Output, F),
    ) -> Result<Handle> {
        self.check_open()?;
        // Not a `Box`: moving a Box asserts that nothing else uses its contents.
        let place = TryRc::new(RefCell::new(Pending { op, f }))?;
        // SAFETY: the callback keeps the operation in place, and the loop guarantees to drop the
        // callback only after the kernel has released the operation.
        let mut entry = unsafe { Entry::new(place.borrow_mut().op.entry()?) };
        let driver = M::driver(self, &mut entry)?;
        let callback = Callback::once_for::<F, _>(move |lp: &Loop, event: &Event| {
            let Pending { op, f } = place.into_inner().expect("nobody else owns it").into_inner();
            // SAFETY: the loop guarantees to call this once, with the final result of this
            // operation.
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
            // SAFETY: the driver guarantees that each result is that of one new connection.
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
                // SAFETY: the driver guarantees that `length` bytes are in a buffer of the loop,
                // which belongs to the callback until it returns.
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
