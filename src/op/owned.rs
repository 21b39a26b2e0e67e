//! Operations that own what they use: a buffer, a path, a descriptor, until their final result.
//!
//! The three together make them safe: what the kernel uses stands at a place of its own before a pointer to it is made; the place
//! belongs to the callback, which the loop drops only when the kernel has let go; and the descriptor is kept
//! with it, so that its number names nothing else meanwhile.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use super::kernel_box::KernelBox;
use super::{Completion, entries};
use crate::abi::handle::Handle;
use crate::abi::sqe::Sqe;
use crate::error::{Error, Result, Sentence};
use crate::event_loop::Callback;
use crate::event_loop::Loop;
use crate::op::buffer::{Buffer, BufferMut};
use crate::pending::driver::Driver;
use crate::pending::event::Event;

/// The working directory, where a function asks for the directory that a path begins at.
// SAFETY: AT_FDCWD is no descriptor that could be closed.
pub const CWD: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) };

/// An entry, and what else stands behind the operation.
pub(super) type Entry = Result<(Sqe, Option<Box<dyn Driver>>)>;

struct Owned<K, F> {
    kept: K,
    f: F,
}

impl Loop {
    /// Submits the entry that `entry` makes of what is kept, at the place where that stays. `end` gets it back with
    /// the result, and calls `f`. When there is no submission, both are dropped.
    ///
    /// # Safety
    /// All that the entry points to is in what is kept, or lives for ever.
    pub(super) unsafe fn submit_owned<K: 'static, F: 'static>(
        &self,
        kept: K,
        f: F,
        entry: impl FnOnce(&mut K) -> Entry,
        end: fn(&Loop, Completion, K, F),
    ) -> Result<Handle> {
        self.check_open()?;
        let mut place = KernelBox::new(Owned { kept, f })?;
        let (sqe, driver) = entry(&mut place.get().kept)?;
        let callback = Callback::once_for::<F, _>(move |lp: &Loop, event: &Event| {
            let Owned { kept, f } = place.into_inner();
            end(lp, event.completed().into(), kept, f);
        })?;
        // SAFETY: the callback keeps what the caller says that the entry points to.
        unsafe { self.submit_operation(&sqe, driver, callback) }
    }

    /// An operation that puts data into a buffer.
    ///
    /// # Safety
    /// The entry writes to the room that it is made with as many bytes as its result says, and to nothing else.
    pub(super) unsafe fn fill<D, B, F>(
        &self,
        fd: D,
        buffer: B,
        f: F,
        entry: impl FnOnce(RawFd, *mut u8, u32) -> Sqe,
    ) -> Result<Handle>
    where
        D: AsFd + 'static,
        B: BufferMut,
        F: FnOnce(&Loop, Result<usize>, B) + 'static,
    {
        let entry = |(fd, buffer): &mut (D, B)| {
            let (room, length) = room(buffer)?;
            Ok((entry(raw(fd), room, length), None))
        };
        // SAFETY: the room is the buffer's, which is kept.
        unsafe {
            self.submit_owned((fd, buffer), f, entry, |lp, completion, (fd, mut buffer), f| {
                let result = completion.count();
                filled(&mut buffer, result);
                drop(fd);
                f(lp, result, buffer);
            })
        }
    }

    /// An operation that takes data from a buffer.
    ///
    /// # Safety
    /// The entry reads what it is made with, and nothing else; so does the driver.
    pub(super) unsafe fn drain_buffer<D, B, F>(
        &self,
        fd: D,
        buffer: B,
        f: F,
        entry: impl FnOnce(RawFd, *const u8, u32) -> Entry,
    ) -> Result<Handle>
    where
        D: AsFd + 'static,
        B: Buffer,
        F: FnOnce(&Loop, Result<usize>, B) + 'static,
    {
        let entry = |(fd, buffer): &mut (D, B)| {
            let bytes = buffer.bytes();
            entry(raw(fd), bytes.as_ptr(), entries::length(bytes.len())?)
        };
        // SAFETY: the bytes are the buffer's, which is kept.
        unsafe {
            self.submit_owned((fd, buffer), f, entry, |lp, completion, (fd, buffer), f| {
                drop(fd);
                f(lp, completion.count(), buffer);
            })
        }
    }

    /// An operation whose result says only whether it went well.
    ///
    /// # Safety
    /// All that the entry points to is in what is kept, or lives for ever.
    pub(super) unsafe fn submit_plain<K: 'static, F: FnOnce(&Loop, Result<()>) + 'static>(
        &self,
        kept: K,
        f: F,
        entry: impl FnOnce(&mut K) -> Entry,
    ) -> Result<Handle> {
        // SAFETY: as the caller says.
        unsafe {
            self.submit_owned(kept, f, entry, |lp, completion, kept, f| {
                drop(kept);
                f(lp, completion.result().map(drop));
            })
        }
    }

    /// An operation whose result is a fresh descriptor.
    ///
    /// # Safety
    /// As for `submit_plain`; and the result is a descriptor that is nobody else's.
    pub(super) unsafe fn submit_opening<K: 'static, F: FnOnce(&Loop, Result<OwnedFd>) + 'static>(
        &self,
        kept: K,
        f: F,
        entry: impl FnOnce(&mut K) -> Entry,
    ) -> Result<Handle> {
        // SAFETY: as the caller says.
        unsafe {
            self.submit_owned(kept, f, entry, |lp, completion, kept, f| {
                let opened = completion.result().map(|fd| OwnedFd::from_raw_fd(fd as RawFd));
                drop(kept);
                f(lp, opened);
            })
        }
    }
}

impl Completion {
    /// The result as a number of bytes.
    pub(super) fn count(self) -> Result<usize> {
        self.result().map(|count| count as usize)
    }
}

/// The number of a descriptor that is kept.
pub(super) fn raw(fd: &impl AsFd) -> RawFd {
    fd.as_fd().as_raw_fd()
}

/// The room in a buffer. An empty one would have a result that looks like the end of the data.
pub(crate) fn room(buffer: &mut impl BufferMut) -> Result<(*mut u8, u32)> {
    match buffer.room() {
        (_, 0) => Err(Error::new(Errno::EINVAL, Sentence::NoRoom)),
        (room, length) => Ok((room, entries::length(length)?)),
    }
}

/// Tells a buffer what has been written to it.
///
/// # Safety
/// So many bytes have been, as far as there is room for them.
pub(super) unsafe fn filled(buffer: &mut impl BufferMut, result: Result<usize>) {
    if let Ok(count) = result {
        let (_, room) = buffer.room();
        // SAFETY: as the caller says.
        unsafe { buffer.filled(count.min(room)) }
    }
}

/// A path as the kernel takes it: its address stays when it is moved.
pub(super) fn path(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let bytes = path.as_ref().as_os_str().as_bytes();
    if bytes.contains(&0) {
        return Err(Error::NUL_INSIDE);
    }
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len() + 1)?;
    copy.extend_from_slice(bytes);
    copy.push(0);
    Ok(copy)
}
