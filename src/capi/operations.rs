//! Operations of C: each is one of `op`, on a number and on memory that the header asks to live until the final callback.
//!
//! What C passes by address and need not keep, paths and arrays, is copied; a driver keeps an operation that owns such a copy. One that
//! owns nothing allocates nothing. What is wrong with arguments is found before the loop is looked at (S29).

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::mem::needs_drop;
use std::slice;

use libc::{iovec, msghdr, sockaddr, socklen_t};
use nix::errno::Errno;

use super::completions::loop_io_callback_t;
use super::types::loop_handle_t;
use super::{NULL_POINTER, callbacks, handle, loop_t, with_args};
use crate::abi::sqe::Sqe;
use crate::error::{Error, Result, Sentence};
use crate::event_loop::Loop;
use crate::op::address::Address;
use crate::op::buffer::length;
use crate::op::copy;
use crate::op::data::PathBytes;
use crate::op::operation::{Number, Op, OpData, Outcome};
use crate::pending::driver::Driver;
use crate::sys::memory::try_box;
use crate::sys::try_arc::TryRc;

/// What is submitted: an entry, and the driver behind it.
pub(super) type Made = (Sqe, Option<Box<dyn Driver>>);

/// What an entry can be made of.
pub(super) trait Make {
    fn make(self, lp: &Loop) -> Result<Made>;
}

impl Make for Made {
    #[inline]
    fn make(self, _: &Loop) -> Result<Made> {
        Ok(self)
    }
}

/// An operation is kept if its entry points at something of its own.
impl<M: OpData> Make for Op<Number, M> {
    #[inline]
    fn make(mut self, lp: &Loop) -> Result<Made> {
        if M::IS_INLINE {
            let kept = TryRc::new(RefCell::new(self))?;
            let sqe = kept.borrow_mut().entry()?;
            return Ok((sqe, Some(try_box(KeepAlive(kept))?)));
        }
        let mut sqe = self.entry()?;
        let driver = if needs_drop::<M>() { Some(try_box(KeepAlive(self))? as _) } else { M::driver(lp, &mut sqe)? };
        Ok((sqe, driver))
    }
}

/// Submits what `check` gives, after which nothing is wrong with the arguments.
///
/// # Safety
/// The pointer is null or that of an open loop; the callback may be called with `arg` until it has ended; memory that the entry points to
/// is C's and lives until then, or is the driver's.
#[inline]
pub(super) unsafe fn submit<T: Make>(
    lp: *mut loop_t,
    callback: loop_io_callback_t,
    arg: *mut c_void,
    check: impl FnOnce() -> Result<T>,
) -> loop_handle_t {
    let args = callback.ok_or(NULL_POINTER).and_then(|callback| Ok((callback, check()?)));
    let submit = |lp: &Loop, (callback, checked): (_, T)| {
        lp.check_accepts()?;
        let (sqe, driver) = checked.make(lp)?;
        // SAFETY: as the caller says.
        unsafe { lp.submit_operation(&sqe, driver, callbacks::io(callback, arg)) }
    };
    // SAFETY: as the caller says.
    handle(unsafe { with_args(lp, args, submit) })
}

/// Keeps something until the kernel has let go of it.
#[derive(Debug)]
struct KeepAlive<T>(T);

// SAFETY: it gives no entries.
unsafe impl<T: fmt::Debug> Driver for KeepAlive<T> {}

/// A buffer of C's.
pub(super) struct Span(*mut c_void, u32);

impl Span {
    /// It may be NULL when it is empty.
    pub(super) fn new(buffer: *const c_void, bytes: usize) -> Result<Span> {
        if buffer.is_null() && bytes > 0 { Err(NULL_POINTER) } else { Ok(Span(buffer.cast_mut(), length(bytes)?)) }
    }
}

// SAFETY: the header asks for a buffer that lives until the final callback.
unsafe impl OpData for Span {
    type Output = ();

    #[inline]
    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        (sqe.addr, sqe.len) = (self.0 as u64, self.1);
        Ok(())
    }

    fn complete(self, _: Outcome) {}
}

/// A copy of an array of buffers of C's.
#[derive(Debug)]
pub(super) struct Vectors(Box<[iovec]>);

impl Vectors {
    /// Of buffers which together are no longer than a result can tell, and of as many as the kernel takes, so that no count that makes no
    /// sense is copied.
    ///
    /// # Safety
    /// The pointer is null or that of so many.
    pub(super) unsafe fn new(from: *const iovec, count: usize) -> Result<Vectors> {
        if count == 0 {
            return Ok(Vectors(Box::default()));
        }
        if from.is_null() {
            return Err(NULL_POINTER);
        }
        if count > libc::UIO_MAXIOV as usize {
            return Err(Error::new(Errno::EINVAL, Sentence::TooManyBuffers));
        }
        // SAFETY: as the caller says.
        let vectors = copy(unsafe { slice::from_raw_parts(from, count) })?;
        let together = vectors.iter().try_fold(0usize, |sum, vector| sum.checked_add(vector.iov_len));
        length(together.unwrap_or(usize::MAX))?;
        Ok(Vectors(vectors))
    }
}

// SAFETY: the array is the data's; the header asks for buffers that live until the final callback.
unsafe impl OpData for Vectors {
    type Output = ();

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        (sqe.addr, sqe.len) = (self.0.as_ptr() as u64, length(self.0.len())?);
        Ok(())
    }

    fn complete(self, _: Outcome) {}
}

/// A copy of a message and its array of buffers.
pub(super) struct Message {
    header: msghdr,
    vectors: Vectors,
}

impl Message {
    /// # Safety
    /// The pointer is null or that of a message whose array of buffers can be read.
    pub(super) unsafe fn new(message: *const msghdr) -> Result<Message> {
        // SAFETY: as the caller says.
        let header = unsafe { message.as_ref() }.copied().ok_or(NULL_POINTER)?;
        // SAFETY: as the caller says.
        let vectors = unsafe { Vectors::new(header.msg_iov, header.msg_iovlen)? };
        Ok(Message { header, vectors })
    }

    /// The header, as the kernel has filled it in.
    pub(super) fn header(&self) -> &msghdr {
        &self.header
    }
}

// SAFETY: header and array are the data's; the header of the C API asks for buffers that live until the final callback.
unsafe impl OpData for Message {
    type Output = ();

    const IS_INLINE: bool = true;

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        self.header.msg_iov = self.vectors.0.as_mut_ptr();
        (sqe.addr, sqe.len) = (&raw mut self.header as u64, 1);
        Ok(())
    }

    fn complete(self, _: Outcome) {}
}

/// A path, and room of C's for what is known of a file.
pub(super) struct Status(PathBytes, *mut libc::statx);

impl Status {
    pub(super) fn new(path: PathBytes, room: *mut libc::statx) -> Result<Status> {
        if room.is_null() { Err(NULL_POINTER) } else { Ok(Status(path, room)) }
    }
}

// SAFETY: the path is the data's; the header asks for room that lives until the final callback.
unsafe impl OpData for Status {
    type Output = ();

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        (sqe.addr, sqe.off) = (self.0.address(), self.1 as u64);
        Ok(())
    }

    fn complete(self, _: Outcome) {}
}

/// A copy of a path, or of any string.
///
/// # Safety
/// The pointer is null or that of a string.
pub(super) unsafe fn path(from: *const c_char) -> Result<PathBytes> {
    if from.is_null() {
        return Err(NULL_POINTER);
    }
    // SAFETY: as the caller says.
    PathBytes::of_c(unsafe { CStr::from_ptr(from) })
}

/// A copy of an address.
///
/// # Safety
/// The pointer is null or that of an address of this length.
pub(super) unsafe fn address(from: *const sockaddr, length: socklen_t) -> Result<Address> {
    if length as usize > size_of::<libc::sockaddr_storage>() {
        return Err(Error::new(Errno::EINVAL, Sentence::AddressTooLong));
    }
    if from.is_null() {
        return Err(NULL_POINTER);
    }
    // SAFETY: as the caller says.
    Ok(Address::of(&[unsafe { slice::from_raw_parts(from.cast(), length as usize) }]))
}
