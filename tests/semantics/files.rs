//! Files of tasks: S13, S28.

use std::os::fd::AsRawFd;
use std::pin::pin;

use libc::{EBADF, EINVAL, ENODATA, ENOENT};
use ringloop::OpenOptions;
use ringloop::fs::File;

use crate::streams::{poll_once, run};
use crate::trace::errno;

/// The path of a file that is removed when this value is dropped.
struct Path(std::path::PathBuf);

impl Path {
    fn new(name: &str) -> Path {
        Path(std::env::temp_dir().join(format!("ringloop-{}-files-{name}", std::process::id())))
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn room(size: usize) -> Vec<u8> {
    Vec::with_capacity(size)
}

#[test]
fn a_file_is_made_written_read_and_closed() {
    let path = Path::new("all");
    run(async {
        let mut file =
            OpenOptions::new().read().write().create_new().mode(0o600).open(&path.0).await.unwrap();
        assert_eq!(file.write_all("hello ").await.0, Ok(()));
        assert_eq!(file.write("world").await.0, Ok(5));
        assert_eq!(file.write_all_at("W", 6).await.0, Ok(()));
        assert_eq!(file.write_at(vec![b'!'], 11).await, (Ok(1), vec![b'!']));
        file.sync_data().await.unwrap();
        file.sync_all().await.unwrap();
        assert_eq!(file.read_at(room(100), 6).await, (Ok(6), b"World!".to_vec()));
        assert_eq!(file.read(room(100)).await.0, Ok(1), "the position is after the written data");
        assert_eq!(file.read(room(100)).await.0, Ok(0));
        file.set_len(5).await.unwrap();
        let status = file.metadata().await.unwrap();
        assert_eq!((status.size, status.mode & 0o777, status.is_file()), (5, 0o600, true));
        assert_eq!(file.read_at(room(1), 5).await.0, Ok(0));
        file.close().await.unwrap();
        let mut file = File::open(&path.0).await.unwrap();
        assert_eq!(file.read(Box::<[u8]>::from([b'.'; 3])).await, (Ok(3), Box::from(*b"hel")));
        assert_eq!(file.read_exact(room(2)).await, (Ok(()), b"lo".to_vec()));
        let file = File::create(&path.0).await.unwrap();
        assert_eq!(file.metadata().await.unwrap().size, 0);
    });
    assert_eq!(std::fs::read(&path.0).unwrap(), b"");
}

#[test]
fn s28_a_buffer_comes_back_from_a_file_that_says_no() {
    let path = Path::new("refused");
    run(async {
        assert_eq!(errno(File::open(&path.0).await), ENOENT);
        assert_eq!(errno(File::open("a\0b").await), EINVAL);
        let file = File::create(&path.0).await.unwrap();
        let (read, back) = file.read_at(room(10), 0).await;
        assert_eq!((errno(read), back.capacity()), (EBADF, 10));
        let (read, back) = file.read_at(Vec::new(), 0).await;
        assert_eq!((errno(read), back.capacity()), (EINVAL, 0));
        let mut file = File::open(&path.0).await.unwrap();
        assert_eq!(file.write_at("x", 0).await.0.map_err(|error| error.raw_os_error()), Err(EBADF));
        assert_eq!(
            file.write_all_at("x", 0).await.0.map_err(|error| error.raw_os_error()),
            Err(EBADF)
        );
        assert_eq!(file.write_all("x").await, (Err(file.write_all("x").await.0.unwrap_err()), "x"));
        let (read, back) = file.read_exact(room(10)).await;
        assert_eq!((errno(read), back.capacity()), (ENODATA, 10));
        assert!(file.set_len(1).await.is_err());
    });
}

#[test]
fn s13_a_dropped_operation_on_a_file_is_no_harm() {
    let path = Path::new("dropped");
    std::fs::write(&path.0, "0123456789").unwrap();
    run(async {
        let mut file = OpenOptions::new().read().write().open(&path.0).await.unwrap();
        for _ in 0..20 {
            drop(poll_once(pin!(file.read_at(room(5), 3))).await);
            let _ = poll_once(pin!(file.sync_all())).await;
            let _ = poll_once(pin!(file.metadata())).await;
            drop(poll_once(pin!(File::open(&path.0))).await);
        }
        // Data that a dropped read has read at the file's position goes to the next read.
        let mut all = Vec::new();
        loop {
            if let Some((read, part)) = poll_once(pin!(file.read(room(3)))).await {
                if read.unwrap() == 0 {
                    break;
                }
                all.extend(part);
            }
            ringloop::task::yield_now().await;
        }
        assert_eq!(all, b"0123456789");
        drop(poll_once(pin!(file.read(room(3)))).await);
        file.close().await.unwrap();
        let file = File::open(&path.0).await.unwrap();
        let mut closing = Box::pin(file.close());
        let _ = poll_once(closing.as_mut()).await;
    });
}

#[test]
fn s45_a_write_begins_where_a_dropped_read_has_ended() {
    const SIZE: usize = 1 << 16;
    let path = Path::new("position");
    for _ in 0..10 {
        std::fs::write(&path.0, vec![b'.'; 2 * SIZE]).unwrap();
        let cold = std::fs::File::open(&path.0).unwrap();
        cold.sync_all().unwrap();
        // SAFETY: `posix_fadvise` takes no pointers. Without the cache, the read takes a while.
        unsafe { libc::posix_fadvise(cold.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        run(async {
            let mut file = OpenOptions::new().read().write().open(&path.0).await.unwrap();
            drop(poll_once(pin!(file.read(room(SIZE)))).await);
            ringloop::task::yield_now().await;
            assert_eq!(file.write_all("here").await.0, Ok(()));
            let (read, data) = file.read(room(2 * SIZE)).await;
            assert_eq!((read, data.contains(&b'h')), (Ok(SIZE), false));
        });
        let data = std::fs::read(&path.0).unwrap();
        assert_eq!(data.iter().position(|byte| *byte == b'h'), Some(SIZE));
    }
}

/// Describes an opened file: its flags, its contents, and whether it can be read and written; or
/// the error.
fn opened(fd: Result<std::os::fd::OwnedFd, std::io::Error>, path: &std::path::Path) -> String {
    use std::io::{Read, Write};
    let fd = match fd {
        Ok(fd) => fd,
        Err(error) => return format!("{:?}, {:?}", error.kind(), std::fs::read(path).ok()),
    };
    // SAFETY: these commands of `fcntl` take no pointers.
    let (flags, close) = unsafe {
        (libc::fcntl(fd.as_raw_fd(), libc::F_GETFL), libc::fcntl(fd.as_raw_fd(), libc::F_GETFD))
    };
    let mut file = std::fs::File::from(fd);
    let mut held = String::new();
    let read = file.read_to_string(&mut held).is_ok();
    let wrote = file.write(b"X").is_ok();
    format!("{flags:o} {close} {read} {held} {wrote} {:?}", std::fs::read(path).unwrap())
}

#[test]
fn s28_open_options_are_those_of_the_standard_library() {
    let (ours, theirs) = (Path::new("options-ours"), Path::new("options-theirs"));
    let mut refused = 0;
    for bits in 0..256 {
        let on = |bit: u32| bits >> bit & 1 == 1;
        let flags = if on(7) { libc::O_NOATIME | libc::O_RDWR } else { 0 };
        let mut options = OpenOptions::new().flags(flags);
        let mut standard = std::fs::File::options();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut standard, flags);
        type Set = (
            fn(OpenOptions) -> OpenOptions,
            fn(&mut std::fs::OpenOptions, bool) -> &mut std::fs::OpenOptions,
        );
        let sets: [Set; 6] = [
            (OpenOptions::read, std::fs::OpenOptions::read),
            (OpenOptions::write, std::fs::OpenOptions::write),
            (OpenOptions::append, std::fs::OpenOptions::append),
            (OpenOptions::truncate, std::fs::OpenOptions::truncate),
            (OpenOptions::create, std::fs::OpenOptions::create),
            (OpenOptions::create_new, std::fs::OpenOptions::create_new),
        ];
        for (bit, (set, set_standard)) in sets.into_iter().enumerate() {
            if on(bit as u32) {
                options = set(options);
                set_standard(&mut standard, true);
            }
        }
        for path in [&ours.0, &theirs.0] {
            let _ = std::fs::remove_file(path);
            if on(6) {
                std::fs::write(path, "held").unwrap();
            }
        }
        let file = run(options.open(&ours.0)).map_err(std::io::Error::from);
        let file = file.and_then(|file| std::os::fd::AsFd::as_fd(&file).try_clone_to_owned());
        let was = opened(file, &ours.0);
        assert_eq!(was, opened(standard.open(&theirs.0).map(Into::into), &theirs.0), "{options:?}");
        refused += usize::from(was.starts_with("InvalidInput"));
    }
    // Refused without read, write and append: 8; with only read: 7; with append and truncate: 8.
    // Each with and without a file, and with and without flags.
    assert_eq!(refused, 23 * 4);
}

#[test]
fn s28_a_name_with_a_nul_is_called_that() {
    let said = |error: ringloop::Error| {
        assert_eq!(error.raw_os_error(), EINVAL);
        assert!(error.to_string().contains("has a NUL inside"), "{error}");
    };
    run(async {
        said(File::open("a\0b").await.err().unwrap());
        said(ringloop::net::UnixStream::connect("a\0b").await.err().unwrap());
        said(ringloop::net::UnixListener::bind("a\0b").err().unwrap());
        said(ringloop::net::TcpStream::connect_host("a\0b", 80).await.err().unwrap());
        said(
            ringloop::process::Child::spawn(&mut std::process::Command::new("a\0b")).err().unwrap(),
        );
        said(
            ringloop::process::Child::spawn(std::process::Command::new("true").arg("a\0b"))
                .err()
                .unwrap(),
        );
        let error = ringloop::net::UnixStream::connect("a".repeat(200)).await.err().unwrap();
        assert!(error.to_string().contains("too long"), "{error}");
    });
}
