//! Files and directories.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;

use super::entries;
use super::owned::{path, raw};
use crate::abi::handle::Handle;
use crate::error::{Error, Result, Sentence};
use crate::event_loop::Loop;

/// How [`Loop::open_at`] opens a file: as `std::fs::OpenOptions`, in every combination. What that refuses is EINVAL here: none of
/// `read`, `write` and `append`; `truncate`, `create` and `create_new` without `write` or `append`; `truncate` with `append`, unless
/// the file is `create_new`.
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
    /// None of them yet.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// For reading.
    pub fn read(self) -> OpenOptions {
        OpenOptions { read: true, ..self }
    }

    /// For writing.
    pub fn write(self) -> OpenOptions {
        OpenOptions { write: true, ..self }
    }

    /// For writing at its end.
    pub fn append(self) -> OpenOptions {
        OpenOptions { append: true, ..self }
    }

    /// What it holds is thrown away.
    pub fn truncate(self) -> OpenOptions {
        OpenOptions { truncate: true, ..self }
    }

    /// It is made if it is not there.
    pub fn create(self) -> OpenOptions {
        OpenOptions { create: true, ..self }
    }

    /// It is made, and must not be there. `create` and `truncate` mean nothing beside it.
    pub fn create_new(self) -> OpenOptions {
        OpenOptions { create_new: true, ..self }
    }

    /// More of `O_*`; its bits of O_ACCMODE mean nothing, as in `custom_flags` of the standard library.
    pub fn flags(self, flags: i32) -> OpenOptions {
        OpenOptions { flags: self.flags | flags, ..self }
    }

    /// The permissions of a file that is made, less the umask: 0o666 if this is not called.
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
        Ok(access | set(append, libc::O_APPEND) | making | flags & !libc::O_ACCMODE | libc::O_CLOEXEC)
    }
}

/// What is known of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FileStatus {
    /// Type and permissions: `S_IF*` and the bits below.
    pub mode: u32,
    /// In bytes.
    pub size: u64,
    /// What it occupies, in units of 512 bytes.
    pub blocks: u64,
    /// The size of a block that is good for reading and writing.
    pub block_size: u32,
    /// How many names it has.
    pub links: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its number on its device.
    pub inode: u64,
    /// The device that it is on, major and minor number.
    pub device: (u32, u32),
    /// The device that it is, major and minor number.
    pub special_device: (u32, u32),
    /// When it was last read.
    pub accessed: SystemTime,
    /// When its contents were last changed.
    pub modified: SystemTime,
    /// When its status was last changed.
    pub changed: SystemTime,
    /// When it was made, where the file system knows.
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

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }
}

/// What statx(2) is asked for.
pub(crate) const STATX_MASK: u32 = libc::STATX_BASIC_STATS | libc::STATX_BTIME;

fn time(from: libc::statx_timestamp) -> SystemTime {
    let seconds = Duration::from_secs(from.tv_sec.unsigned_abs());
    let whole = if from.tv_sec < 0 { UNIX_EPOCH - seconds } else { UNIX_EPOCH + seconds };
    whole + Duration::from_nanos(from.tv_nsec.into())
}

impl Loop {
    /// openat(2): `f` gets the descriptor, close-on-exec. The path begins at `dir`, which may be [`CWD`](crate::CWD). One that `f` has not
    /// seen when the loop is closed is closed.
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
    /// Errors: EINVAL for options that disagree and for a NUL in the path, and those of [`read`](Loop::read).
    pub fn open_at(
        &self,
        dir: impl AsFd + 'static,
        path: impl AsRef<Path>,
        options: OpenOptions,
        f: impl FnOnce(&Loop, Result<OwnedFd>) + 'static,
    ) -> Result<Handle> {
        let (flags, mode) = (options.to_flags()?, options.mode.unwrap_or(0o666));
        let kept = (dir, self::path(path)?);
        // SAFETY: the path is kept, and the result is a descriptor.
        unsafe {
            self.submit_opening(kept, f, |(dir, path)| {
                Ok((entries::openat(raw(dir), path.as_ptr(), flags, mode), None))
            })
        }
    }

    /// fsync(2), or fdatasync(2) with `data_only`. Errors: those of [`read`](Loop::read).
    pub fn fsync(
        &self,
        fd: impl AsFd + 'static,
        data_only: bool,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        let flags = if data_only { entries::DATA_ONLY } else { 0 };
        // SAFETY: the entry points at nothing.
        unsafe { self.submit_plain(fd, f, |fd| Ok((entries::fsync(raw(fd), flags), None))) }
    }

    /// statx(2): `f` gets what is known of a file. `flags` are `AT_*`: with AT_EMPTY_PATH and an empty path it is about the
    /// descriptor itself. Errors: those of [`open_at`](Loop::open_at).
    pub fn statx(
        &self,
        dir: impl AsFd + 'static,
        path: impl AsRef<Path>,
        flags: i32,
        f: impl FnOnce(&Loop, Result<FileStatus>) + 'static,
    ) -> Result<Handle> {
        // SAFETY: zeros are numbers.
        let status = unsafe { std::mem::zeroed::<libc::statx>() };
        let kept = (dir, self::path(path)?, status);
        // SAFETY: the path and the room are kept.
        unsafe {
            self.submit_owned(
                kept,
                f,
                |(dir, path, status)| Ok((entries::statx(raw(dir), path.as_ptr(), flags, STATX_MASK, status), None)),
                |lp, completion, (dir, _, status), f| {
                    drop(dir);
                    f(lp, completion.result().map(|_| FileStatus::new(&status)));
                },
            )
        }
    }

    /// renameat2(2). `flags` are `RENAME_*`. Since Linux 5.11. Errors: those of [`open_at`](Loop::open_at).
    pub fn rename_at(
        &self,
        from: (impl AsFd + 'static, impl AsRef<Path>),
        to: (impl AsFd + 'static, impl AsRef<Path>),
        flags: u32,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        let kept = ((from.0, path(from.1)?), (to.0, path(to.1)?));
        // SAFETY: the paths are kept.
        unsafe {
            self.submit_plain(kept, f, |(from, to)| {
                let (from, to) = ((raw(&from.0), from.1.as_ptr()), (raw(&to.0), to.1.as_ptr()));
                Ok((entries::renameat(from, to, flags), None))
            })
        }
    }

    /// linkat(2). `flags` are `AT_*`. Since Linux 5.15. Errors: those of [`open_at`](Loop::open_at).
    pub fn link_at(
        &self,
        from: (impl AsFd + 'static, impl AsRef<Path>),
        to: (impl AsFd + 'static, impl AsRef<Path>),
        flags: i32,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        let kept = ((from.0, path(from.1)?), (to.0, path(to.1)?));
        // SAFETY: the paths are kept.
        unsafe {
            self.submit_plain(kept, f, |(from, to)| {
                let (from, to) = ((raw(&from.0), from.1.as_ptr()), (raw(&to.0), to.1.as_ptr()));
                Ok((entries::linkat(from, to, flags), None))
            })
        }
    }

    /// symlinkat(2). Since Linux 5.15. Errors: those of [`open_at`](Loop::open_at).
    pub fn symlink_at(
        &self,
        target: impl AsRef<Path>,
        dir: impl AsFd + 'static,
        link: impl AsRef<Path>,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        let kept = (path(target)?, dir, path(link)?);
        // SAFETY: the paths are kept.
        unsafe {
            self.submit_plain(kept, f, |(target, dir, link)| {
                Ok((entries::symlinkat(target.as_ptr(), raw(dir), link.as_ptr()), None))
            })
        }
    }

    /// unlinkat(2). With AT_REMOVEDIR in `flags` it removes a directory. Since Linux 5.11. Errors: those of
    /// [`open_at`](Loop::open_at).
    pub fn unlink_at(
        &self,
        dir: impl AsFd + 'static,
        path: impl AsRef<Path>,
        flags: i32,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        let kept = (dir, self::path(path)?);
        // SAFETY: the path is kept.
        unsafe {
            self.submit_plain(kept, f, |(dir, path)| Ok((entries::unlinkat(raw(dir), path.as_ptr(), flags), None)))
        }
    }

    /// mkdirat(2). Since Linux 5.15. Errors: those of [`open_at`](Loop::open_at).
    pub fn mkdir_at(
        &self,
        dir: impl AsFd + 'static,
        path: impl AsRef<Path>,
        mode: u32,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        let kept = (dir, self::path(path)?);
        // SAFETY: the path is kept.
        unsafe { self.submit_plain(kept, f, |(dir, path)| Ok((entries::mkdirat(raw(dir), path.as_ptr(), mode), None))) }
    }

    /// ftruncate(2). Since Linux 6.9. Errors: those of [`read`](Loop::read).
    pub fn ftruncate(
        &self,
        fd: impl AsFd + 'static,
        size: u64,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        // SAFETY: the entry points at nothing.
        unsafe { self.submit_plain(fd, f, |fd| Ok((entries::ftruncate(raw(fd), size), None))) }
    }

    /// fallocate(2). `mode` is 0 or of `FALLOC_FL_*`. Errors: those of [`read`](Loop::read).
    pub fn fallocate(
        &self,
        fd: impl AsFd + 'static,
        mode: i32,
        offset: u64,
        length: u64,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        // SAFETY: the entry points at nothing.
        unsafe { self.submit_plain(fd, f, |fd| Ok((entries::fallocate(raw(fd), mode, offset, length), None))) }
    }
}
