//! Files and directories: a function for each operation, and the method of `Loop` with a callback.
//!
//! The head of `streams` describes the rules for all of them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;

use libc::{c_int, mode_t};

use super::data::{At, NoData, PathBytes, Paths, Status};
use super::operation::{Descriptor, Number, Op, OpData};
use crate::abi::handle::Handle;
use crate::abi::opcodes;
use crate::abi::sqe::Sqe;
use crate::error::{Error, Result, Sentence};
use crate::event_loop::Loop;

/// Options of [`Loop::open_at`], as `std::fs::OpenOptions`, in every combination. Combinations that
/// the standard library refuses are EINVAL: none of `read`, `write` and `append`; `truncate`,
/// `create` or `create_new` without `write` or `append`; `truncate` with `append`, unless
/// `create_new` is set.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    flags: i32,
    mode: Option<u32>,
}

impl OpenOptions {
    /// No option is set.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// Opens for reading.
    pub fn read(self) -> OpenOptions {
        OpenOptions { read: true, ..self }
    }

    /// Opens for writing.
    pub fn write(self) -> OpenOptions {
        OpenOptions { write: true, ..self }
    }

    /// Opens for writing at the end.
    pub fn append(self) -> OpenOptions {
        OpenOptions { append: true, ..self }
    }

    /// Truncates the file to length 0.
    pub fn truncate(self) -> OpenOptions {
        OpenOptions { truncate: true, ..self }
    }

    /// Creates the file if it does not exist.
    pub fn create(self) -> OpenOptions {
        OpenOptions { create: true, ..self }
    }

    /// Creates the file, which must not exist. `create` and `truncate` have no effect then.
    pub fn create_new(self) -> OpenOptions {
        OpenOptions { create_new: true, ..self }
    }

    /// Adds flags `O_*`; their bits of O_ACCMODE are ignored, as in `custom_flags` of the standard
    /// library.
    pub fn flags(self, flags: i32) -> OpenOptions {
        OpenOptions { flags: self.flags | flags, ..self }
    }

    /// The permissions of a created file, minus the umask. The default is 0o666.
    pub fn mode(self, mode: u32) -> OpenOptions {
        OpenOptions { mode: Some(mode), ..self }
    }

    fn to_flags(self) -> Result<i32> {
        let OpenOptions { read, write, append, truncate, create, create_new, flags, .. } = self;
        let writes = write || append;
        let (makes, is_used) = (truncate || create || create_new, read || writes);
        if !is_used || makes && !writes || append && truncate && !create_new {
            return Err(Error::new(Errno::EINVAL, Sentence::OptionsDisagree));
        }
        let access = match (read, writes) {
            (_, false) => libc::O_RDONLY,
            (false, true) => libc::O_WRONLY,
            (true, true) => libc::O_RDWR,
        };
        let set = |is_set, flag| if is_set { flag } else { 0 };
        let making = if create_new {
            libc::O_CREAT | libc::O_EXCL
        } else {
            set(create, libc::O_CREAT) | set(truncate, libc::O_TRUNC)
        };
        Ok(access
            | set(append, libc::O_APPEND)
            | making
            | flags & !libc::O_ACCMODE
            | libc::O_CLOEXEC)
    }
}

/// The status of a file, as from statx(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FileStatus {
    /// Type and permissions: `S_IF*` and the bits below.
    pub mode: u32,
    /// The size in bytes.
    pub size: u64,
    /// The allocated space, in units of 512 bytes.
    pub blocks: u64,
    /// The preferred block size for I/O, in bytes.
    pub block_size: u32,
    /// The number of hard links.
    pub links: u32,
    /// The user ID of the owner.
    pub uid: u32,
    /// The group ID.
    pub gid: u32,
    /// The inode number.
    pub inode: u64,
    /// The device that contains the file, major and minor number.
    pub device: (u32, u32),
    /// The device that this file represents, major and minor number.
    pub special_device: (u32, u32),
    /// The time of the last access.
    pub accessed: SystemTime,
    /// The time of the last change of its contents.
    pub modified: SystemTime,
    /// The time of the last change of its status.
    pub changed: SystemTime,
    /// The time of creation, if the file system records it.
    pub created: Option<SystemTime>,
}

impl FileStatus {
    pub(crate) fn new(from: &libc::statx) -> FileStatus {
        FileStatus {
            mode: from.stx_mode.into(),
            size: from.stx_size,
            blocks: from.stx_blocks,
            block_size: from.stx_blksize,
            links: from.stx_nlink,
            uid: from.stx_uid,
            gid: from.stx_gid,
            inode: from.stx_ino,
            device: (from.stx_dev_major, from.stx_dev_minor),
            special_device: (from.stx_rdev_major, from.stx_rdev_minor),
            accessed: time(from.stx_atime),
            modified: time(from.stx_mtime),
            changed: time(from.stx_ctime),
            created: (from.stx_mask & libc::STATX_BTIME != 0).then(|| time(from.stx_btime)),
        }
    }

    /// Whether the file is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// Whether the file is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }
}

/// The fields that statx(2) is asked for.
pub(crate) const STATX_MASK: u32 = libc::STATX_BASIC_STATS | libc::STATX_BTIME;

fn time(from: libc::statx_timestamp) -> SystemTime {
    let seconds = Duration::from_secs(from.tv_sec.unsigned_abs());
    let whole = if from.tv_sec < 0 { UNIX_EPOCH - seconds } else { UNIX_EPOCH + seconds };
    whole + Duration::from_nanos(from.tv_nsec.into())
}

/// For `fsync`: sync only the data, and the metadata that reading needs.
pub(crate) const DATA_ONLY: u32 = 1;

pub(crate) fn fsync<D: Descriptor>(fd: D, flags: u32) -> Op<D, NoData<()>> {
    let sqe = Sqe { opcode: opcodes::FSYNC, op_flags: flags, ..Sqe::default() };
    Op::new(fd, NoData::NEW, sqe)
}

pub(crate) fn ftruncate<D: Descriptor>(fd: D, size: u64) -> Op<D, NoData<()>> {
    Op::new(fd, NoData::NEW, Sqe { opcode: opcodes::FTRUNCATE, off: size, ..Sqe::default() })
}

pub(crate) fn fallocate<D: Descriptor>(
    fd: D,
    mode: c_int,
    offset: u64,
    length: u64,
) -> Op<D, NoData<()>> {
    let (opcode, len) = (opcodes::FALLOCATE, mode as u32);
    Op::new(fd, NoData::NEW, Sqe { opcode, off: offset, addr: length, len, ..Sqe::default() })
}

pub(crate) fn open_at<D: Descriptor>(
    dir: D,
    path: PathBytes,
    flags: c_int,
    mode: mode_t,
) -> Op<D, At<PathBytes, OwnedFd>> {
    let (opcode, op_flags) = (opcodes::OPENAT, flags as u32);
    Op::new(dir, At::new(path), Sqe { opcode, len: mode, op_flags, ..Sqe::default() })
}

pub(crate) fn unlink_at<D: Descriptor>(
    dir: D,
    path: PathBytes,
    flags: c_int,
) -> Op<D, At<PathBytes, ()>> {
    let sqe = Sqe { opcode: opcodes::UNLINKAT, op_flags: flags as u32, ..Sqe::default() };
    Op::new(dir, At::new(path), sqe)
}

pub(crate) fn mkdir_at<D: Descriptor>(
    dir: D,
    path: PathBytes,
    mode: mode_t,
) -> Op<D, At<PathBytes, ()>> {
    Op::new(dir, At::new(path), Sqe { opcode: opcodes::MKDIRAT, len: mode, ..Sqe::default() })
}

pub(crate) fn rename_at<D: Descriptor, E: Descriptor>(
    from: (D, PathBytes),
    to: (E, PathBytes),
    flags: u32,
) -> Op<D, At<Paths<E>, ()>> {
    let sqe = Sqe { opcode: opcodes::RENAMEAT, op_flags: flags, ..Sqe::default() };
    Op::new(from.0, At::new(Paths(from.1, to.0, to.1)), sqe)
}

pub(crate) fn link_at<D: Descriptor, E: Descriptor>(
    from: (D, PathBytes),
    to: (E, PathBytes),
    flags: c_int,
) -> Op<D, At<Paths<E>, ()>> {
    let sqe = Sqe { opcode: opcodes::LINKAT, op_flags: flags as u32, ..Sqe::default() };
    Op::new(from.0, At::new(Paths(from.1, to.0, to.1)), sqe)
}

/// The target is not relative to a directory: the kernel requires zero there.
pub(crate) fn symlink_at<D: Descriptor>(
    target: PathBytes,
    dir: D,
    link: PathBytes,
) -> Op<D, At<Paths<Number>, ()>> {
    let sqe = Sqe { opcode: opcodes::SYMLINKAT, ..Sqe::default() };
    Op::new(dir, At::new(Paths(target, Number(0), link)), sqe)
}

pub(crate) fn statx<D: Descriptor, M: OpData>(
    dir: D,
    data: M,
    flags: c_int,
    mask: u32,
) -> Op<D, M> {
    let (opcode, op_flags) = (opcodes::STATX, flags as u32);
    Op::new(dir, data, Sqe { opcode, len: mask, op_flags, ..Sqe::default() })
}

impl Loop {
    /// openat(2): `f` gets the descriptor, close-on-exec. The path is relative to `dir`, which may
    /// be [`CWD`](crate::CWD). If the loop is closed before `f` has run, the descriptor is closed.
    ///
    /// ```
    /// use ringloop::{CWD, Loop, OpenOptions};
    ///
    /// let lp = Loop::new()?;
    /// lp.open_at(CWD, "/etc/passwd", OpenOptions::new().read(), |lp, opened| {
    ///     lp.read(opened.unwrap(), Vec::with_capacity(100), Some(0), |_, result, buffer| {
    ///         assert_eq!(result, Ok(buffer.len()));
    ///     })
    ///     .unwrap();
    /// })?;
    /// lp.run()?;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    ///
    /// Errors: EINVAL for contradicting options and for a NUL in the path, and those of
    /// [`read`](Loop::read).
    pub fn open_at(
        &self,
        dir: impl AsFd + 'static,
        path: impl AsRef<Path>,
        options: OpenOptions,
        f: impl FnOnce(&Loop, Result<OwnedFd>) + 'static,
    ) -> Result<Handle> {
        let (flags, mode) = (options.to_flags()?, options.mode.unwrap_or(0o666));
        self.submit_op(open_at(dir, PathBytes::new(path)?, flags, mode), f)
    }

    /// fsync(2), or fdatasync(2) with `data_only`. Errors: those of [`read`](Loop::read).
    pub fn fsync(
        &self,
        fd: impl AsFd + 'static,
        data_only: bool,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        self.submit_op(fsync(fd, if data_only { DATA_ONLY } else { 0 }), f)
    }

    /// statx(2): `f` gets the status of a file. `flags` are `AT_*`: with AT_EMPTY_PATH and an empty
    /// path, the file is the descriptor itself. Errors: those of [`open_at`](Loop::open_at).
    pub fn statx(
        &self,
        dir: impl AsFd + 'static,
        path: impl AsRef<Path>,
        flags: i32,
        f: impl FnOnce(&Loop, Result<FileStatus>) + 'static,
    ) -> Result<Handle> {
        self.submit_op(statx(dir, Status::new(PathBytes::new(path)?), flags, STATX_MASK), f)
    }

    /// renameat2(2). `flags` are `RENAME_*`. Since Linux 5.11. Errors: those of
    /// [`open_at`](Loop::open_at).
    pub fn rename_at(
        &self,
        from: (impl AsFd + 'static, impl AsRef<Path>),
        to: (impl AsFd + 'static, impl AsRef<Path>),
        flags: u32,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        self.submit_op(
            rename_at((from.0, PathBytes::new(from.1)?), (to.0, PathBytes::new(to.1)?), flags),
            f,
        )
    }

    /// linkat(2). `flags` are `AT_*`. Since Linux 5.15. Errors: those of
    /// [`open_at`](Loop::open_at).
    pub fn link_at(
        &self,
        from: (impl AsFd + 'static, impl AsRef<Path>),
        to: (impl AsFd + 'static, impl AsRef<Path>),
        flags: i32,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        self.submit_op(
            link_at((from.0, PathBytes::new(from.1)?), (to.0, PathBytes::new(to.1)?), flags),
            f,
        )
    }

    /// symlinkat(2). Since Linux 5.15. Errors: those of [`open_at`](Loop::open_at).
    pub fn symlink_at(
        &self,
        target: impl AsRef<Path>,
        dir: impl AsFd + 'static,
        link: impl AsRef<Path>,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        self.submit_op(symlink_at(PathBytes::new(target)?, dir, PathBytes::new(link)?), f)
    }

    /// unlinkat(2). AT_REMOVEDIR in `flags` removes a directory. Since Linux 5.11. Errors: those of
    /// [`open_at`](Loop::open_at).
    pub fn unlink_at(
        &self,
        dir: impl AsFd + 'static,
        path: impl AsRef<Path>,
        flags: i32,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        self.submit_op(unlink_at(dir, PathBytes::new(path)?, flags), f)
    }

    /// mkdirat(2). Since Linux 5.15. Errors: those of [`open_at`](Loop::open_at).
    pub fn mkdir_at(
        &self,
        dir: impl AsFd + 'static,
        path: impl AsRef<Path>,
        mode: u32,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        self.submit_op(mkdir_at(dir, PathBytes::new(path)?, mode), f)
    }

    /// ftruncate(2). Since Linux 6.9. Errors: those of [`read`](Loop::read).
    pub fn ftruncate(
        &self,
        fd: impl AsFd + 'static,
        size: u64,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        self.submit_op(ftruncate(fd, size), f)
    }

    /// fallocate(2). `mode` is 0 or `FALLOC_FL_*`. Errors: those of [`read`](Loop::read).
    pub fn fallocate(
        &self,
        fd: impl AsFd + 'static,
        mode: i32,
        offset: u64,
        length: u64,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        self.submit_op(fallocate(fd, mode, offset, length), f)
    }
}
