//! Operations of C: each is an operation of `op`, on the number of a descriptor and on memory that
//! C keeps until the final callback.
//!
//! Paths and arrays, which C need not keep, are copied; a driver keeps an operation that owns such
//! a copy. An operation that owns nothing allocates nothing. Arguments are checked before the loop
//! (S29).

use std::cell::RefCell;
use std::ffi::c_void;
use std::fmt;
use std::mem::needs_drop;

use libc::iovec;
use nix::errno::Errno;

use super::{
    Arg, Array, Buffer, Count, Function, Lasting, LoopPtr, NULL_POINTER, handle, loop_handle_t,
    loop_io_callback_t,
};
use crate::abi::sqe::{Entry, Sqe};
use crate::error::{Error, Result, Sentence};
use crate::event_loop::Loop;
use crate::op::buffer::length;
use crate::op::data::PathBytes;
use crate::op::operation::{Number, Op, OpData, Outcome};
use crate::pending::driver::Driver;
use crate::sys::memory::{TryRc, try_box};

/// The entry of an operation, and its driver. The entry points to memory of C that lasts until the
/// operation has ended, or to memory that the driver keeps.
pub(super) struct Made(pub(super) Entry, pub(super) Option<Box<dyn Driver>>);

/// A value from which an entry can be made.
pub(super) trait Make {
    fn make(self, lp: &Loop) -> Result<Made>;
}

impl Make for Made {
    fn make(self, _: &Loop) -> Result<Made> {
        Ok(self)
    }
}

/// A driver keeps the operation if the entry points to memory of the operation.
impl<M: OpData> Make for Op<Number, M> {
    fn make(mut self, lp: &Loop) -> Result<Made> {
        if M::IS_INLINE {
            let kept = TryRc::new(RefCell::new(self))?;
            // SAFETY: the driver does not move the operation.
            let entry = unsafe { Entry::new(kept.borrow_mut().entry()?) };
            return Ok(Made(entry, Some(try_box(KeepAlive(kept))?)));
        }
        // SAFETY: the entry points to memory of C that lasts, or to memory that the driver keeps.
        let mut entry = unsafe { Entry::new(self.entry()?) };
        let driver = if needs_drop::<M>() {
            Some(try_box(KeepAlive(self))? as _)
        } else {
            M::driver(lp, &mut entry)?
        };
        Ok(Made(entry, driver))
    }
}

/// Submits the operation that `check` returns. `check` also checks the arguments.
pub(super) fn submit<T: Make>(
    lp: LoopPtr<'_>,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
    check: impl FnOnce() -> Result<T>,
) -> loop_handle_t {
    let args = callback.with(&arg).and_then(|callback| Ok((callback, check()?)));
    handle(lp.add(args, |lp, (callback, checked)| {
        let Made(entry, driver) = checked.make(lp)?;
        lp.submit_operation(&entry, driver, callback.into())
    }))
}

/// Keeps a value until the kernel has released it.
#[derive(Debug)]
struct KeepAlive<T>(T);

impl<T: fmt::Debug> Driver for KeepAlive<T> {}

/// A buffer of C.
pub(super) struct Span(*mut c_void, u32);

impl Span {
    /// An empty buffer may be NULL.
    pub(super) fn new(buffer: Buffer<'_>, bytes: Count<'_, usize>) -> Result<Span> {
        let (buffer, bytes) = (buffer.as_ptr(), bytes.get());
        if buffer.is_null() && bytes > 0 {
            Err(NULL_POINTER)
        } else {
            Ok(Span(buffer, length(bytes)?))
        }
    }
}

// SAFETY: C promises that the buffer lasts (`Buffer`).
unsafe impl OpData for Span {
    type Output = ();

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        (sqe.addr, sqe.len) = (self.0 as u64, self.1);
        Ok(())
    }

    fn complete(self, _: Outcome) {}
}

/// A copy of C's array of buffers.
#[derive(Debug)]
pub(super) struct Vectors(Box<[iovec]>);

impl Vectors {
    /// Errors: EINVAL when the kernel does not take so many buffers, in which case nothing is
    /// copied, or when a result cannot hold the total length; ENOMEM.
    pub(super) fn new(from: Array<'_, iovec>, count: Count<'_, usize>) -> Result<Vectors> {
        let too_many = Error::new(Errno::EINVAL, Sentence::TooManyBuffers);
        let from = from.get(count.at_most(libc::UIO_MAXIOV as u16, too_many)?)?;
        let mut vectors = Vec::new();
        vectors.try_reserve_exact(from.len())?;
        vectors.extend_from_slice(from);
        let together =
            vectors.iter().try_fold(0usize, |sum, vector| sum.checked_add(vector.iov_len));
        length(together.unwrap_or(usize::MAX))?;
        Ok(Vectors(vectors.into_boxed_slice()))
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut iovec {
        self.0.as_mut_ptr()
    }
}

// SAFETY: the data owns the array, and C promises that the buffers last.
unsafe impl OpData for Vectors {
    type Output = ();

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        (sqe.addr, sqe.len) = (self.0.as_ptr() as u64, length(self.0.len())?);
        Ok(())
    }

    fn complete(self, _: Outcome) {}
}

/// A path, and memory of C for the status of a file.
pub(super) struct Status(PathBytes, *mut libc::statx);

impl Status {
    pub(super) fn new(path: PathBytes, room: Lasting<'_, libc::statx>) -> Result<Status> {
        let room = room.as_ptr();
        if room.is_null() { Err(NULL_POINTER) } else { Ok(Status(path, room)) }
    }
}

// SAFETY: the data owns the path, and C promises that the buffer lasts (`Lasting`).
unsafe impl OpData for Status {
    type Output = ();

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        (sqe.addr, sqe.off) = (self.0.address(), self.1 as u64);
        Ok(())
    }

    fn complete(self, _: Outcome) {}
}
