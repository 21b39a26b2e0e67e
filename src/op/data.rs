//! The data of operations: what the kernel reads and writes until it has let go, and what comes
//! back then.
//!
//! Each kind says why the addresses hold that it puts into an entry. It relies on what `Buffer` and
//! `BufferMut` promise, and on an operation staying where it stands; it does not know which
//! operation it is for, and so not whether that reads or writes.
//!
//! `unsafe` lives here because an `OpData` promises what is behind the addresses.

use std::borrow::Cow;
#[cfg(feature = "capi")]
use std::ffi::OsStr;
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use libc::iovec;

use super::FileStatus;
use super::address::Address;
use super::buffer::{Buffer, BufferMut, Filled, length, room};
use super::operation::{Descriptor, Meaning, OpData, Outcome};
use super::write_all::WriteAll;
use crate::abi::completion::Completed;
use crate::abi::opcodes;
use crate::abi::sqe::{Entry, Sqe};
use crate::error::{Error, Result};
use crate::event_loop::Loop;
use crate::pending::driver::{Driver, Step};
use crate::sys::descriptors::close_unseen;
use crate::sys::memory::try_box;

/// What is read into the room of a buffer.
pub(crate) struct Room<B>(pub(crate) B);

// SAFETY: the room stays where it is, and is nobody else's, as the buffer says.
unsafe impl<B: BufferMut> OpData for Room<B> {
    type Output = Filled<B>;

    #[inline]
    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        let (room, length) = room(&mut self.0)?;
        (sqe.addr, sqe.len) = (room as u64, length);
        Ok(())
    }

    fn complete(self, outcome: Outcome) -> Filled<B> {
        Filled::new(self.0, &outcome)
    }
}

/// What is written from a buffer.
pub(crate) struct Bytes<B>(pub(crate) B);

// SAFETY: the bytes stay where and what they are, as the buffer says.
unsafe impl<B: Buffer> OpData for Bytes<B> {
    type Output = (Result<usize>, B);

    #[inline]
    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        let bytes = self.0.bytes();
        (sqe.addr, sqe.len) = (bytes.as_ptr() as u64, length(bytes.len())?);
        Ok(())
    }

    fn complete(self, outcome: Outcome) -> (Result<usize>, B) {
        (outcome.count(), self.0)
    }
}

/// What is written until all of it is.
pub(crate) struct All<M>(pub(crate) M);

// SAFETY: as the data in it; the driver points at no more than that.
unsafe impl<M: OpData> OpData for All<M> {
    type Output = M::Output;

    const IS_INLINE: bool = M::IS_INLINE;

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        self.0.point(sqe)
    }

    fn driver(lp: &Loop, entry: &mut Entry) -> Result<Option<Box<dyn Driver>>> {
        if entry.opcode == opcodes::SEND && lp.sends_whole() {
            *entry = entry.waiting_for_all();
        }
        Ok(Some(try_box(WriteAll::new(*entry))?))
    }

    fn complete(self, outcome: Outcome) -> M::Output {
        self.0.complete(outcome)
    }
}

/// What is read into several buffers, one after the other.
pub(crate) struct Rooms<B>(Vec<B>, Vec<iovec>);

impl<B> Rooms<B> {
    pub(super) fn new(buffers: Vec<B>) -> Rooms<B> {
        Rooms(buffers, Vec::new())
    }
}

// SAFETY: the rooms stay where they are, and are nobody else's, as the buffers say; the array is
// the data's own.
unsafe impl<B: BufferMut> OpData for Rooms<B> {
    type Output = (Result<usize>, Vec<B>);

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        let Rooms(buffers, vectors) = self;
        point_at(sqe, vectors, buffers.iter_mut().map(room))
    }

    fn complete(self, outcome: Outcome) -> (Result<usize>, Vec<B>) {
        let Rooms(mut buffers, vectors) = self;
        let mut left = outcome.count().unwrap_or(0);
        for (buffer, vector) in buffers.iter_mut().zip(&vectors) {
            let count = left.min(vector.iov_len);
            // SAFETY: the vector is as long as the room of the buffer, and the kernel fills one
            // after the other.
            unsafe { buffer.filled(count) };
            left -= count;
        }
        (outcome.count(), buffers)
    }
}

/// What is written from several buffers, one after the other.
pub(crate) struct Parts<B>(Vec<B>, Vec<iovec>);

impl<B> Parts<B> {
    pub(super) fn new(buffers: Vec<B>) -> Parts<B> {
        Parts(buffers, Vec::new())
    }
}

// SAFETY: the bytes stay where and what they are, as the buffers say; the array is the data's own.
unsafe impl<B: Buffer> OpData for Parts<B> {
    type Output = (Result<usize>, Vec<B>);

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        let Parts(buffers, vectors) = self;
        let parts = buffers.iter().map(|buffer| {
            let bytes = buffer.bytes();
            Ok((bytes.as_ptr().cast_mut(), length(bytes.len())?))
        });
        point_at(sqe, vectors, parts)
    }

    fn complete(self, outcome: Outcome) -> (Result<usize>, Vec<B>) {
        (outcome.count(), self.0)
    }
}

/// Fills an array with addresses and lengths, and points at it.
fn point_at(
    sqe: &mut Sqe,
    vectors: &mut Vec<iovec>,
    parts: impl ExactSizeIterator<Item = Result<(*mut u8, u32)>>,
) -> Result<()> {
    vectors.try_reserve_exact(parts.len())?;
    let mut together = 0usize;
    for part in parts {
        let (at, length) = part?;
        together = together.saturating_add(length as usize);
        vectors.push(iovec { iov_base: at.cast(), iov_len: length as usize });
    }
    length(together)?;
    (sqe.addr, sqe.len) = (vectors.as_ptr() as u64, length(vectors.len())?);
    Ok(())
}

/// `struct user_msghdr` of the kernel.
#[derive(Default)]
#[repr(C)]
struct Header {
    name: *mut u8,
    name_length: u32,
    vectors: *mut iovec,
    count: usize,
    control: *mut u8,
    control_length: usize,
    flags: u32,
}

/// A message whose bytes are other data's, which point at them with an address and a length.
pub(crate) struct Message<M> {
    pub(crate) data: M,
    address: Address,
    vector: iovec,
    header: Header,
}

impl<M> Message<M> {
    /// To an address, or from one that the kernel is to tell.
    pub(crate) fn new(data: M, address: Address) -> Message<M> {
        let header = Header { count: 1, ..Header::default() };
        Message { data, address, vector: iovec { iov_base: ptr::null_mut(), iov_len: 0 }, header }
    }
}

/// What has come of a message, and the address.
pub(crate) struct Addressed<T>(pub(crate) T, pub(crate) Address);

// SAFETY: the bytes are where the data in it says; the rest is the message itself.
unsafe impl<M: OpData> OpData for Message<M> {
    type Output = Addressed<M::Output>;

    const IS_INLINE: bool = true;

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        self.data.point(sqe)?;
        self.vector = iovec { iov_base: sqe.addr as *mut _, iov_len: sqe.len as usize };
        (self.header.name, self.header.name_length) = self.address.as_raw();
        self.header.vectors = &raw mut self.vector;
        (sqe.addr, sqe.len) = (&raw mut self.header as u64, 1);
        Ok(())
    }

    fn complete(mut self, outcome: Outcome) -> Addressed<M::Output> {
        self.address.set_length(self.header.name_length);
        Addressed(self.data.complete(outcome), self.address)
    }
}

impl<B: BufferMut> From<Addressed<Filled<B>>> for (Result<(usize, Address)>, B) {
    fn from(Addressed(filled, address): Addressed<Filled<B>>) -> (Result<(usize, Address)>, B) {
        (filled.count().map(|count| (count, address)), filled.into_buffer())
    }
}

impl<B> From<Addressed<(Result<usize>, B)>> for (Result<usize>, B) {
    fn from(Addressed(sent, _): Addressed<(Result<usize>, B)>) -> (Result<usize>, B) {
        sent
    }
}

/// A path, or another string, as the kernel takes it: it ends in a NUL.
pub(crate) struct PathBytes(Cow<'static, CStr>);

impl PathBytes {
    /// With AT_EMPTY_PATH, the descriptor itself.
    pub(crate) const EMPTY: PathBytes = PathBytes(Cow::Borrowed(c""));

    pub(crate) fn new(path: impl AsRef<Path>) -> Result<PathBytes> {
        let bytes = path.as_ref().as_os_str().as_bytes();
        let mut copy = Vec::new();
        copy.try_reserve_exact(bytes.len() + 1)?;
        copy.extend_from_slice(bytes);
        copy.push(0);
        let copy = CString::from_vec_with_nul(copy).map_err(|_| Error::NUL_INSIDE)?;
        Ok(PathBytes(Cow::Owned(copy)))
    }

    #[cfg(feature = "capi")]
    pub(crate) fn of_c(path: &CStr) -> Result<PathBytes> {
        PathBytes::new(OsStr::from_bytes(path.to_bytes()))
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        &self.0
    }

    /// Where it stays when this is moved.
    pub(crate) fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }
}

/// Where something is that the entry points at, wherever this is moved.
///
/// # Safety
/// As for `OpData::point`.
pub(crate) unsafe trait Place: 'static {
    fn put_into(&self, sqe: &mut Sqe);
}

/// Nothing.
// SAFETY: there is no address in the entry, as is asserted.
unsafe impl Place for () {
    #[inline]
    fn put_into(&self, sqe: &mut Sqe) {
        assert!(sqe.points_at_nothing(), "{sqe:?} points at something");
    }
}

// SAFETY: the path is its own.
unsafe impl Place for PathBytes {
    fn put_into(&self, sqe: &mut Sqe) {
        sqe.addr = self.address();
    }
}

/// A path, and another that begins at a directory of its own.
pub(crate) struct Paths<D>(pub(super) PathBytes, pub(super) D, pub(super) PathBytes);

// SAFETY: the paths are its own.
unsafe impl<D: Descriptor> Place for Paths<D> {
    fn put_into(&self, sqe: &mut Sqe) {
        (sqe.addr, sqe.len, sqe.off) = (self.0.address(), self.1.number() as u32, self.2.address());
    }
}

/// The descriptor that is spliced from, where the operation's own is spliced to.
pub(crate) struct SpliceFrom<D>(pub(super) D);

// SAFETY: as of nothing.
unsafe impl<D: Descriptor> Place for SpliceFrom<D> {
    fn put_into(&self, sqe: &mut Sqe) {
        ().put_into(sqe);
        sqe.file_index = self.0.number() as u32;
    }
}

/// What the entry points at, and what nobody wants back. The result means a `T`.
pub(crate) struct At<P, T>(P, PhantomData<fn() -> T>);

/// No data: all that matters is the result.
pub(crate) type NoData<T> = At<(), T>;

impl<T> NoData<T> {
    pub(crate) const NEW: NoData<T> = At((), PhantomData);
}

impl<P, T> At<P, T> {
    pub(super) fn new(place: P) -> At<P, T> {
        At(place, PhantomData)
    }
}

// SAFETY: as the place in it.
unsafe impl<P: Place, T: Meaning> OpData for At<P, T> {
    type Output = Result<T>;

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        self.0.put_into(sqe);
        Ok(())
    }

    fn complete(self, outcome: Outcome) -> Result<T> {
        T::of(outcome)
    }
}

/// No data, for the operation that closes a descriptor of its own, whatever comes of it. It is the
/// driver too, which closes what the operation was to close and has not.
#[derive(Debug)]
pub(super) struct Closing(pub(super) RawFd);

// SAFETY: as of nothing.
unsafe impl OpData for Closing {
    type Output = Result<()>;

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        ().put_into(sqe);
        Ok(())
    }

    fn driver(_: &Loop, entry: &mut Entry) -> Result<Option<Box<dyn Driver>>> {
        Ok(Some(try_box(Closing(entry.fd))?))
    }

    fn complete(self, outcome: Outcome) -> Result<()> {
        outcome.done()
    }
}

impl Driver for Closing {
    fn completed(&mut self, completed: Completed) -> Step {
        if completed.result == -libc::ECANCELED {
            // The kernel says that it has not begun.
            close_unseen(self.0);
        }
        Step::give(completed)
    }
}

/// A path, and room for what is known of a file.
pub(crate) struct Status {
    path: PathBytes,
    room: MaybeUninit<libc::statx>,
}

impl Status {
    pub(crate) fn new(path: PathBytes) -> Status {
        Status { path, room: MaybeUninit::uninit() }
    }
}

// SAFETY: path and room are the data's.
unsafe impl OpData for Status {
    type Output = Result<FileStatus>;

    const IS_INLINE: bool = true;

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        (sqe.addr, sqe.off) = (self.path.address(), self.room.as_mut_ptr() as u64);
        Ok(())
    }

    fn complete(self, outcome: Outcome) -> Result<FileStatus> {
        // SAFETY: one that went well has filled in the room.
        outcome.done().map(|()| FileStatus::new(&unsafe { self.room.assume_init() }))
    }
}

/// The address of what is connected to.
// SAFETY: the address is the data itself.
unsafe impl OpData for Address {
    type Output = Result<()>;

    const IS_INLINE: bool = true;

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        let (address, length) = self.as_raw();
        (sqe.addr, sqe.off) = (address as u64, length.into());
        Ok(())
    }

    fn complete(self, outcome: Outcome) -> Result<()> {
        outcome.done()
    }
}
