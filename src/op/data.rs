//! The data of operations: the memory that the kernel reads and writes until it has released it.
//!
//! Each type states why the addresses stay valid that it puts into an entry. It relies on the
//! guarantees of `Buffer` and `BufferMut`, and on an operation that does not move. It does not know
//! the opcode, and so not whether the kernel reads or writes.
//!
//! `unsafe` is here because an `OpData` guarantees the memory behind the addresses.

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

/// A buffer that is read into.
pub(crate) struct Room<B>(pub(crate) B);

// SAFETY: `BufferMut` guarantees that the space keeps its address, and that nothing else uses it.
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

/// A buffer that is written from.
pub(crate) struct Bytes<B>(pub(crate) B);

// SAFETY: `Buffer` guarantees that the bytes keep their address and their values.
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

/// Data that is written until all of it has been.
pub(crate) struct All<M>(pub(crate) M);

// SAFETY: the inner data guarantees its memory, and the driver points only at parts of it.
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

/// Several buffers that are read into, in order.
pub(crate) struct Rooms<B>(Vec<B>, Vec<iovec>);

impl<B> Rooms<B> {
    pub(super) fn new(buffers: Vec<B>) -> Rooms<B> {
        Rooms(buffers, Vec::new())
    }
}

// SAFETY: `BufferMut` guarantees that each space keeps its address and is not used otherwise, and
// the array belongs to the data.
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
            // SAFETY: the kernel fills the vectors in order, and each has the length of its
            // buffer's space.
            unsafe { buffer.filled(count) };
            left -= count;
        }
        (outcome.count(), buffers)
    }
}

/// Several buffers that are written from, in order.
pub(crate) struct Parts<B>(Vec<B>, Vec<iovec>);

impl<B> Parts<B> {
    pub(super) fn new(buffers: Vec<B>) -> Parts<B> {
        Parts(buffers, Vec::new())
    }
}

// SAFETY: `Buffer` guarantees the bytes, and the array belongs to the data.
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

/// A message. The inner data provides its bytes, with one address and length.
pub(crate) struct Message<M> {
    pub(crate) data: M,
    address: Address,
    vector: iovec,
    header: Header,
}

impl<M> Message<M> {
    /// With a destination address, or space for the sender's address.
    pub(crate) fn new(data: M, address: Address) -> Message<M> {
        let header = Header { count: 1, ..Header::default() };
        Message { data, address, vector: iovec { iov_base: ptr::null_mut(), iov_len: 0 }, header }
    }
}

/// The output of a message, and its address.
pub(crate) struct Addressed<T>(pub(crate) T, pub(crate) Address);

// SAFETY: the inner data guarantees its bytes, and the rest is in the message itself, which is
// inline.
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

/// A path or another string, terminated by a NUL.
pub(crate) struct PathBytes(Cow<'static, CStr>);

impl PathBytes {
    /// With AT_EMPTY_PATH, it refers to the descriptor itself.
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

    /// The address of the string, which moving this value does not change.
    pub(crate) fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }
}

/// Memory that an entry points at, at an address that does not change when this value is moved.
///
/// # Safety
/// As for `OpData::point`.
pub(crate) unsafe trait Place: 'static {
    fn put_into(&self, sqe: &mut Sqe);
}

/// No memory.
// SAFETY: the assertion shows that the entry has no address.
unsafe impl Place for () {
    #[inline]
    fn put_into(&self, sqe: &mut Sqe) {
        assert!(sqe.points_at_nothing(), "{sqe:?} points at something");
    }
}

// SAFETY: the path owns its string, whose address does not change.
unsafe impl Place for PathBytes {
    fn put_into(&self, sqe: &mut Sqe) {
        sqe.addr = self.address();
    }
}

/// A path, and another one with its own directory.
pub(crate) struct Paths<D>(pub(super) PathBytes, pub(super) D, pub(super) PathBytes);

// SAFETY: both paths own their strings, whose addresses do not change.
unsafe impl<D: Descriptor> Place for Paths<D> {
    fn put_into(&self, sqe: &mut Sqe) {
        (sqe.addr, sqe.len, sqe.off) = (self.0.address(), self.1.number() as u32, self.2.address());
    }
}

/// The source descriptor of a splice; the operation's own descriptor is the destination.
pub(crate) struct SpliceFrom<D>(pub(super) D);

// SAFETY: the assertion in `()` shows that the entry has no address.
unsafe impl<D: Descriptor> Place for SpliceFrom<D> {
    fn put_into(&self, sqe: &mut Sqe) {
        ().put_into(sqe);
        sqe.file_index = self.0.number() as u32;
    }
}

/// Memory that the entry points at and that is not returned. The result means a `T`.
pub(crate) struct At<P, T>(P, PhantomData<fn() -> T>);

/// No data: only the result matters.
pub(crate) type NoData<T> = At<(), T>;

impl<T> NoData<T> {
    pub(crate) const NEW: NoData<T> = At((), PhantomData);
}

impl<P, T> At<P, T> {
    pub(super) fn new(place: P) -> At<P, T> {
        At(place, PhantomData)
    }
}

// SAFETY: the `Place` guarantees its memory.
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

/// The data of a close, and its driver: closes the descriptor if the operation was cancelled before
/// it began.
#[derive(Debug)]
pub(super) struct Closing(pub(super) RawFd);

// SAFETY: the assertion in `()` shows that the entry has no address.
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
            // ECANCELED means that the close has not begun.
            close_unseen(self.0);
        }
        Step::give(completed)
    }
}

/// A path, and space for the status of a file.
pub(crate) struct Status {
    path: PathBytes,
    room: MaybeUninit<libc::statx>,
}

impl Status {
    pub(crate) fn new(path: PathBytes) -> Status {
        Status { path, room: MaybeUninit::uninit() }
    }
}

// SAFETY: the path owns its string, and the space is in the data itself, which is inline.
unsafe impl OpData for Status {
    type Output = Result<FileStatus>;

    const IS_INLINE: bool = true;

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        (sqe.addr, sqe.off) = (self.path.address(), self.room.as_mut_ptr() as u64);
        Ok(())
    }

    fn complete(self, outcome: Outcome) -> Result<FileStatus> {
        // SAFETY: a statx that succeeded has filled the space.
        outcome.done().map(|()| FileStatus::new(&unsafe { self.room.assume_init() }))
    }
}

/// The address of a connect.
// SAFETY: the address is the data itself, which is inline.
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
