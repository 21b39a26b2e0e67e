//! Files: reads, writes, and changes of files and directories.
//!
//! The functions for files submit operations, as loop_submit() does. An error that comes later goes
//! to the callback: the result is -errno, as the manual of the system call says. Operations also
//! wait on a descriptor with O_NONBLOCK, except loop_splice(), and loop_connect() of a Unix socket
//! to a listener whose queue is full: these end with -EAGAIN there, as the system calls do. (Reads
//! and writes before Linux 5.16, and loop_accept() before 5.18, also end with -EAGAIN if the kernel
//! lacks the fixes of its stable branch.) Do not close the descriptor before the final callback:
//! its number might name another file by then. Paths and arrays are copied.
//!
//! Errors: the errors of loop_submit(); -EINVAL a length is over INT32_MAX, or a pointer is NULL.
//! The loop's thread.

use std::ffi::c_int;

use libc::{iovec, mode_t};

use super::{
    Arg, Array, Buffer, ConstBuffer, Count, Function, Lasting, LoopPtr, Span, Status, Str, Vectors,
    loop_handle_t, loop_io_callback_t, submit,
};
use crate::op::buffer::length as bytes;
use crate::op::data::{All, NoData};
use crate::op::files::{
    DATA_ONLY, fallocate, fsync, ftruncate, link_at, mkdir_at, open_at, rename_at, statx,
    symlink_at, unlink_at,
};
use crate::op::operation::Number;
use crate::op::streams::{CURRENT, close, read, readv, splice, write, writev};

/// For loop_read(), loop_write() and similar functions: the file's own position. Pipes, sockets and
/// terminals have no position and also take LOOP_CURRENT.
pub const LOOP_CURRENT: u64 = u64::MAX;
/// For loop_fsync(): the data, and what is needed to find the data, as fdatasync(2).
pub const LOOP_DATASYNC: u32 = 1;

const _: () = assert!(LOOP_CURRENT == CURRENT && LOOP_DATASYNC == DATA_ONLY);

/// Reads up to `length` bytes at `offset` of a file, or at its own position with LOOP_CURRENT. The
/// result is the number of bytes, 0 at the end of the file. The buffer belongs to the kernel until
/// the final callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_read(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    buffer: Buffer<'_>,
    length: Count<'_, usize>,
    offset: u64,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || Ok(read(Number(fd), Span::new(buffer, length)?, offset)))
}

/// Writes up to `length` bytes at `offset` of a file, or at its own position with LOOP_CURRENT. The
/// result is the number of bytes written, which may be less than `length`; loop_write_all() writes
/// all of them. A pipe or socket whose reader has gone raises SIGPIPE, as with write(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_write(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    buffer: ConstBuffer<'_>,
    length: Count<'_, usize>,
    offset: u64,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || Ok(write(Number(fd), Span::new(buffer, length)?, offset)))
}

/// Writes as loop_write() does, until all bytes are written. The result is `length`. If an error, a
/// cancel or a deadline ended the operation after some bytes were written, the result is their
/// number, with LOOP_TIMED_OUT after a deadline. The result is -errno only if no bytes were
/// written. With LOOP_CURRENT the operations on one descriptor take turns, as those of
/// loop_send_all() do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_write_all(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    buffer: ConstBuffer<'_>,
    length: Count<'_, usize>,
    offset: u64,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || Ok(write(Number(fd), All(Span::new(buffer, length)?), offset)))
}

/// Reads into `count` buffers in order, as loop_read() does into one. `count` is at most 1024.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_readv(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    iov: Array<'_, iovec>,
    count: Count<'_, usize>,
    offset: u64,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || Ok(readv(Number(fd), Vectors::new(iov, count)?, offset)))
}

/// Writes from `count` buffers in order, as loop_write() does from one. `count` is at most 1024.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_writev(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    iov: Array<'_, iovec>,
    count: Count<'_, usize>,
    offset: u64,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || Ok(writev(Number(fd), Vectors::new(iov, count)?, offset)))
}

/// Opens a file, as openat(2): the result is the descriptor. `dirfd` may be AT_FDCWD. If the loop
/// is closed before a callback has got the descriptor, the descriptor is closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_openat(
    r#loop: LoopPtr<'_>,
    dirfd: c_int,
    path: Str<'_>,
    flags: c_int,
    mode: mode_t,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || Ok(open_at(Number(dirfd), path.to_path()?, flags, mode)))
}

/// Closes a descriptor, as close(2), on a thread of the kernel, because closing may block
/// (SO_LINGER, a file on a network). The result is 0 or -errno. The descriptor is closed in both
/// cases, except with -ECANCELED: the operation was then cancelled before it had begun, and the
/// descriptor is still open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_close_fd(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || Ok(close(Number(fd), NoData::<()>::NEW)))
}

/// Writes the data of a file to its device, as fsync(2); with LOOP_DATASYNC in `flags`, as
/// fdatasync(2). The result is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_fsync(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    flags: u32,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || Ok(fsync(Number(fd), flags)))
}

/// Gets the status of a file, as statx(2): the result is 0. `flags` are AT_*, `mask` is of STATX_*.
/// `out` belongs to the kernel until the final callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_statx(
    r#loop: LoopPtr<'_>,
    dirfd: c_int,
    path: Str<'_>,
    flags: c_int,
    mask: u32,
    out: Lasting<'_, libc::statx>,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || {
        Ok(statx(Number(dirfd), Status::new(path.to_path()?, out)?, flags, mask))
    })
}

/// Renames a file, as renameat2(2): the result is 0. `flags` are RENAME_*. Since Linux 5.11.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_renameat(
    r#loop: LoopPtr<'_>,
    olddirfd: c_int,
    oldpath: Str<'_>,
    newdirfd: c_int,
    newpath: Str<'_>,
    flags: u32,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || {
        Ok(rename_at(
            (Number(olddirfd), oldpath.to_path()?),
            (Number(newdirfd), newpath.to_path()?),
            flags,
        ))
    })
}

/// Removes a file, as unlinkat(2): the result is 0. With AT_REMOVEDIR in `flags` it removes a
/// directory. Since Linux 5.11.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_unlinkat(
    r#loop: LoopPtr<'_>,
    dirfd: c_int,
    path: Str<'_>,
    flags: c_int,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || Ok(unlink_at(Number(dirfd), path.to_path()?, flags)))
}

/// Makes a directory, as mkdirat(2): the result is 0. Since Linux 5.15.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_mkdirat(
    r#loop: LoopPtr<'_>,
    dirfd: c_int,
    path: Str<'_>,
    mode: mode_t,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || Ok(mkdir_at(Number(dirfd), path.to_path()?, mode)))
}

/// Makes a symbolic link, as symlinkat(2): the result is 0. Since Linux 5.15.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_symlinkat(
    r#loop: LoopPtr<'_>,
    target: Str<'_>,
    newdirfd: c_int,
    linkpath: Str<'_>,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || {
        Ok(symlink_at(target.to_path()?, Number(newdirfd), linkpath.to_path()?))
    })
}

/// Makes a hard link, as linkat(2): the result is 0. Since Linux 5.15.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_linkat(
    r#loop: LoopPtr<'_>,
    olddirfd: c_int,
    oldpath: Str<'_>,
    newdirfd: c_int,
    newpath: Str<'_>,
    flags: c_int,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || {
        Ok(link_at(
            (Number(olddirfd), oldpath.to_path()?),
            (Number(newdirfd), newpath.to_path()?),
            flags,
        ))
    })
}

/// Sets the size of a file, as ftruncate(2): the result is 0. Since Linux 6.9.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_ftruncate(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    size: u64,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || Ok(ftruncate(Number(fd), size)))
}

/// Changes the space that is allocated to a file, as fallocate(2): the result is 0. `mode` is 0 or
/// of FALLOC_FL_*.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_fallocate(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    mode: c_int,
    offset: u64,
    length: u64,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || Ok(fallocate(Number(fd), mode, offset, length)))
}

/// Moves up to `length` bytes between a pipe and another descriptor, as splice(2): the result is
/// the number of bytes, 0 at the end. The offset of a pipe is LOOP_CURRENT. `flags` are SPLICE_F_*.
/// The result is -EAGAIN if the operation would have to wait for a pipe with O_NONBLOCK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_splice(
    r#loop: LoopPtr<'_>,
    fd_in: c_int,
    offset_in: u64,
    fd_out: c_int,
    offset_out: u64,
    length: usize,
    flags: u32,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || {
        Ok(splice((Number(fd_in), offset_in), (Number(fd_out), offset_out), bytes(length)?, flags))
    })
}
