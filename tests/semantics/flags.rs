//! The flags, modes and offsets of operations reach the kernel. S13.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::rc::Rc;

use libc::EEXIST;
use ringloop::{CWD, OpenOptions};

use crate::operations::{Folder, LINKAT, UNLINKAT, finish, got, result_of, result_with};
use crate::trace::{errno, real_loop};

#[test]
fn s13_flags_of_sends_and_receives_reach_the_kernel() {
    let lp = real_loop();
    let (ours, theirs) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = ours.local_addr().unwrap();
    theirs.connect(address).unwrap();
    let (ours, theirs) = (Rc::new(ours), Rc::new(theirs));
    // With MSG_MORE, the kernel waits for the rest of the datagram.
    let sent = result_with(&lp, |f| lp.send(Rc::clone(&theirs), "ab", libc::MSG_MORE, f));
    assert_eq!(sent.0, Ok(2));
    let sent =
        result_with(&lp, |f| lp.send_to(Rc::clone(&theirs), "cd", libc::MSG_MORE, address, f));
    assert_eq!(sent.0, Ok(2));
    assert_eq!(result_with(&lp, |f| lp.send(Rc::clone(&theirs), "e", 0, f)).0, Ok(1));
    // With MSG_PEEK, the datagram stays in the socket.
    let room = || Vec::with_capacity(10);
    for _ in 0..2 {
        let peeked = result_with(&lp, |f| lp.recv(Rc::clone(&ours), room(), libc::MSG_PEEK, f));
        assert_eq!(peeked, (Ok(5), b"abcde".to_vec()));
        let (inner, got) = got();
        lp.recv_from(Rc::clone(&ours), room(), libc::MSG_PEEK, move |_, result, buffer| {
            inner.replace(Some((result.unwrap().0, buffer)));
        })
        .unwrap();
        assert_eq!(finish(&lp, &got), (5, b"abcde".to_vec()));
    }
}

#[test]
fn flags_and_modes_of_operations_on_names_reach_the_kernel() {
    const RENAME_NOREPLACE: u32 = 1;
    let lp = real_loop();
    let folder = Folder::new("flags");
    let dir = Rc::new(File::open(&folder.0).unwrap());
    let at = || Rc::clone(&dir);
    let status = |name, flags| result_of(&lp, |f| lp.statx(at(), name, flags, f)).unwrap();
    folder.file("file", "text");
    std::os::unix::fs::symlink("file", folder.0.join("link")).unwrap();
    assert!(status("link", 0).is_file() && !status("link", libc::AT_SYMLINK_NOFOLLOW).is_file());
    let created: OwnedFd = result_of(&lp, |f| {
        lp.open_at(at(), "private", OpenOptions::new().write().create_new().mode(0o600), f)
    })
    .unwrap();
    assert_eq!(File::from(created).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let linked = folder.0.join("link");
    let followed = result_of(&lp, |f| {
        lp.open_at(CWD, linked, OpenOptions::new().read().flags(libc::O_NOFOLLOW), f)
    });
    assert_eq!(errno(followed), libc::ELOOP);
    if lp.supports(UNLINKAT) {
        let renamed = result_of(&lp, |f| {
            lp.rename_at((at(), "file"), (at(), "private"), RENAME_NOREPLACE, f)
        });
        assert_eq!(errno(renamed), EEXIST);
    }
    if lp.supports(LINKAT) {
        assert_eq!(result_of(&lp, |f| lp.mkdir_at(at(), "dir", 0o700, f)), Ok(()));
        assert_eq!(fs::metadata(folder.0.join("dir")).unwrap().permissions().mode() & 0o777, 0o700);
        let followed =
            |name, flags| result_of(&lp, |f| lp.link_at((at(), "link"), (at(), name), flags, f));
        assert_eq!((followed("a", 0), followed("b", libc::AT_SYMLINK_FOLLOW)), (Ok(()), Ok(())));
        let is_link = |name| folder.0.join(name).symlink_metadata().unwrap().is_symlink();
        assert!(is_link("a") && !is_link("b"));
    }
}

#[test]
fn modes_and_offsets_of_operations_on_files_reach_the_kernel() {
    let lp = real_loop();
    let folder = Folder::new("offsets");
    let file = folder.file("file", "0123456789");
    let size = || fs::metadata(folder.0.join("file")).unwrap().len();
    let fd = || Rc::clone(&file);
    assert_eq!(
        result_of(&lp, |f| lp.fallocate(fd(), libc::FALLOC_FL_KEEP_SIZE, 0, 100, f)),
        Ok(())
    );
    assert_eq!(size(), 10);
    assert_eq!(result_of(&lp, |f| lp.fallocate(fd(), 0, 15, 5, f)), Ok(()));
    assert_eq!(size(), 20);
    let (ours, theirs) = std::io::pipe().unwrap();
    let (ours, theirs) = (OwnedFd::from(ours), OwnedFd::from(theirs));
    assert_eq!(result_of(&lp, |f| lp.splice((fd(), Some(4)), (theirs, None), 4, 0, f)), Ok(4));
    assert_eq!(result_of(&lp, |f| lp.splice((ours, None), (fd(), Some(1)), 3, 0, f)), Ok(3));
    assert_eq!(&fs::read(folder.0.join("file")).unwrap()[..10], b"0456456789");
}

#[test]
fn s28_a_descriptor_that_cannot_be_made_blocking_is_refused() {
    let path = File::options().read(true).custom_flags(libc::O_PATH).open("/").unwrap();
    let refused = ringloop::net::TcpStream::from_std(OwnedFd::from(path).into());
    assert_eq!(errno(refused.map(drop)), libc::EBADF);
}
