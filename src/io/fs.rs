//! Files for tasks, over owned buffers, which always come back with the result.
//!
//! ```
//! use ringloop::{Loop, fs::File};
//!
//! let lp = Loop::new()?;
//! let start = lp.run_until_complete(async {
//!     let file = File::open("/proc/self/status").await?;
//!     let (read, buffer) = file.read_at(Vec::with_capacity(5), 0).await;
//!     read?;
//!     file.close().await?;
//!     ringloop::Result::Ok(buffer)
//! })??;
//! assert_eq!(start, b"Name:");
//! # Ok::<(), ringloop::Error>(())
//! ```
//!
//! An operation costs one allocation, and is submitted with the next iteration's system call. If it
//! cannot complete at once, a thread of the kernel waits. Errors are those of the kernel, and
//! EAGAIN, ENOMEM, ESHUTDOWN and ECANCELED as for [`net`](crate::io::net). Dropping a future
//! cancels its operation, except for a read at the file's position. Disk I/O that has begun cannot
//! be cancelled, and the buffer lives until it ends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::abi::opcodes;
use crate::error::{Error, Result};
use crate::event_loop::Loop;
use crate::io::{IoKind, SharedFd, TryRc, reading, run, write_all_at, writing};
use crate::op::buffer::{Buffer, BufferMut};
use crate::op::data::{Bytes, PathBytes, Room, Status};
use crate::op::files::{DATA_ONLY, STATX_MASK, fsync, ftruncate, statx};
use crate::op::streams::{read, write};
use crate::op::{CWD, FileStatus, OpenOptions};
use crate::task::{operation, spawn_blocking};

/// An open file.
#[derive(Debug)]
pub struct File {
    fd: TryRc<SharedFd>,
}

impl OpenOptions {
    /// Opens a file with these options, close-on-exec. A relative path begins at the working
    /// directory.
    ///
    /// Dropping the future leaves nothing open, but a file may have been created. Errors: EINVAL
    /// for contradicting options and for a NUL in the path.
    pub async fn open(self, path: impl AsRef<Path>) -> Result<File> {
        let opened = operation(|lp, done| {
            lp.open_at(CWD, path, self, move |_, opened| drop(done.send(opened)))
        })?;
        File::of(opened.await??)
    }
}

impl File {
    /// Opens a file for reading; see [`OpenOptions::open`].
    pub async fn open(path: impl AsRef<Path>) -> Result<File> {
        OpenOptions::new().read().open(path).await
    }

    /// Opens a file for writing: creates it, or truncates an existing one.
    pub async fn create(path: impl AsRef<Path>) -> Result<File> {
        OpenOptions::new().write().create().truncate().open(path).await
    }

    /// Converts a file of the standard library. Errors: ENOMEM.
    pub fn from_std(file: std::fs::File) -> Result<File> {
        File::of(file.into())
    }

    fn of(fd: OwnedFd) -> Result<File> {
        Ok(File { fd: SharedFd::new(fd, IoKind::File)? })
    }

    reading!();

    writing!();

    /// Reads at an offset into the space of a buffer; returns the number of bytes, 0 at the end of
    /// the file. The file's position does not change.
    ///
    /// Cancel-safe: the file is unchanged. Errors: those of [`read`](File::read); ESPIPE for a
    /// descriptor without offsets.
    pub async fn read_at<B: BufferMut>(&self, buffer: B, offset: u64) -> (Result<usize>, B) {
        run(read(self.fd.clone(), Room(buffer), offset)).await.into()
    }

    /// Writes from a buffer at an offset; returns the number of bytes, which may be less than the
    /// length. The file's position does not change.
    ///
    /// Not cancel-safe: when the future is dropped, any part may have been written, or may still be
    /// written until the kernel has released the buffer.
    pub async fn write_at<B: Buffer>(&self, buffer: B, offset: u64) -> (Result<usize>, B) {
        run(write(self.fd.clone(), Bytes(buffer), offset)).await
    }

    /// As [`write_at`](File::write_at), the whole buffer. After an error, its beginning may have
    /// been written.
    pub async fn write_all_at<B: Buffer>(&self, buffer: B, offset: u64) -> (Result<()>, B) {
        write_all_at(&self.fd, buffer, offset).await
    }

    /// fsync(2): waits until written data and the metadata of the file are on the disk.
    pub async fn sync_all(&self) -> Result<()> {
        run(fsync(self.fd.clone(), 0)).await
    }

    /// fdatasync(2): as [`sync_all`](File::sync_all), without metadata that reading does not need.
    pub async fn sync_data(&self) -> Result<()> {
        run(fsync(self.fd.clone(), DATA_ONLY)).await
    }

    /// Sets the length of the file; new bytes are zeros. Before Linux 6.9, on a thread of the
    /// loop's executor.
    pub async fn set_len(&self, size: u64) -> Result<()> {
        if Loop::with_running(|lp| lp.is_none_or(|lp| lp.supports(opcodes::FTRUNCATE))) {
            return run(ftruncate(self.fd.clone(), size)).await;
        }
        let copy = self.fd.fd.try_clone().map_err(|error| Error::of_io(&error))?;
        let work = spawn_blocking(move || std::fs::File::from(copy).set_len(size))?;
        work.await.map_err(|_| Error::CANCELLED)?.map_err(|error| Error::of_io(&error))
    }

    /// The status of the file.
    pub async fn metadata(&self) -> Result<FileStatus> {
        run(statx(self.fd.clone(), Status::new(PathBytes::EMPTY), libc::AT_EMPTY_PATH, STATX_MASK))
            .await
    }

    /// Closes the file on a thread of the kernel, because closing may block, and returns the result
    /// of the close: on some file systems, the error of an earlier write. Dropping a file closes it
    /// on this thread.
    ///
    /// Dropping the future closes the file as well. If a cancelled operation has not ended, the
    /// file is closed at its end, and this returns Ok.
    pub async fn close(self) -> Result<()> {
        let Some(shared) = self.fd.into_inner() else { return Ok(()) };
        let closing = operation(|lp, done| {
            lp.close_fd(shared.fd, move |_, closed| {
                let _ = done.send(closed);
            })
        })?;
        closing.await?
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
