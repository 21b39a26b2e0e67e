//! S32: the features of the kernel that a loop uses on the versions that RINGLOOP_KERNEL can name.
//! The guarantees of a loop are the same without these features.
//!
//! A loop reads the variable when it is created. The variable belongs to the whole process, so each
//! version has a process of its own.

use std::cell::RefCell;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;
use std::{env, ptr, thread};

use nix::errno::Errno;
use ringloop::Sqe;

use crate::trace::{HOUR, ms, real_loop};

const CHILD: &str = "RINGLOOP_TEST_CHILD";
const POLL_ADD: u8 = 6;

/// Returns the result of `facts` in a process whose loops behave as on Linux `version`; "" is the
/// kernel itself. The process runs only the test `name`, which calls this function again.
fn as_on(version: &str, name: &str, facts: fn() -> String) -> String {
    if env::var_os(CHILD).is_some() {
        println!("\nfacts: {}", facts());
        std::process::exit(0);
    }
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", &format!("kernels::{name}"), "--nocapture"]).env(CHILD, "1");
    if version.is_empty() {
        child.env_remove("RINGLOOP_KERNEL")
    } else {
        child.env("RINGLOOP_KERNEL", version)
    };
    let output = child.output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let facts = stdout.lines().find_map(|line| line.strip_prefix("facts: "));
    facts
        .unwrap_or_else(|| {
            panic!("as on {version}: {stdout}{}", String::from_utf8_lossy(&output.stderr))
        })
        .to_owned()
}

/// A poll for data.
fn poll(stream: &UnixStream) -> Sqe {
    Sqe {
        opcode: POLL_ADD,
        fd: stream.as_raw_fd(),
        op_flags: libc::POLLIN as u32,
        ..Sqe::default()
    }
}

#[test]
fn s32_a_loop_knows_the_operations_of_its_version() {
    fn operations() -> String {
        let lp = real_loop();
        (0..=u8::MAX)
            .filter(|&opcode| lp.supports(opcode))
            .map(|opcode| format!("{opcode} "))
            .collect()
    }
    // From linux/io_uring.h: the last operation of each version that added operations, and of one
    // version before the next addition.
    const LAST: [(&str, u8); 20] = [
        ("5.10", 33), // TEE
        ("5.11", 36), // UNLINKAT
        ("5.14", 36),
        ("5.15", 39), // LINKAT
        ("5.17", 39),
        ("5.18", 40), // MSG_RING
        ("5.19", 46), // URING_CMD
        ("6.0", 47),  // SEND_ZC
        ("6.1", 48),  // SENDMSG_ZC
        ("6.6", 48),
        ("6.7", 53), // FUTEX_WAITV
        ("6.8", 54), // FIXED_FD_INSTALL
        ("6.9", 55), // FTRUNCATE
        ("6.10", 55),
        ("6.11", 57), // LISTEN
        ("6.14", 57),
        ("6.15", 61), // WRITEV_FIXED
        ("6.16", 62), // PIPE
        ("6.18", 62),
        ("6.19", 64), // URING_CMD128
    ];
    let as_on =
        |version| as_on(version, "s32_a_loop_knows_the_operations_of_its_version", operations);
    let there = as_on("");
    let there: Vec<u8> = there.split_whitespace().map(|opcode| opcode.parse().unwrap()).collect();
    for (version, last) in LAST {
        let expected: String = there
            .iter()
            .filter(|&&opcode| opcode <= last)
            .map(|opcode| format!("{opcode} "))
            .collect();
        assert_eq!(as_on(version), expected, "as on {version}");
    }
}

#[test]
fn s32_a_ring_is_set_up_with_what_its_version_has() {
    fn ring() -> String {
        let lp = real_loop();
        let fd = lp.ring_fd().unwrap();
        // SAFETY: the call submits nothing and waits for nothing.
        let entered = Errno::result(unsafe {
            libc::syscall(libc::SYS_io_uring_enter, fd, 0, 0, 0, ptr::null::<u8>(), 0)
        });
        lp.run_once(Duration::ZERO).unwrap();
        let register = move || {
            // SAFETY: the kernel refuses a probe without memory for the result.
            Errno::result(unsafe {
                libc::syscall(libc::SYS_io_uring_register, fd, 8, ptr::null::<u8>(), 1)
            })
        };
        let is_refused = thread::spawn(register).join().unwrap() == Err(Errno::EEXIST);
        let host = std::fs::read_link(format!("/proc/self/fd/{}", lp.fd().unwrap())).unwrap();
        let when = if entered == Err(Errno::EBADFD) {
            "is enabled by its thread"
        } else {
            "is enabled at once"
        };
        let whose = if is_refused { "one thread's" } else { "any thread's" };
        format!("{when}, {whose}, {}", host.display())
    }
    let as_on = |version| as_on(version, "s32_a_ring_is_set_up_with_what_its_version_has", ring);
    let there = as_on("");
    for version in ["5.10", "5.18"] {
        assert_eq!(
            as_on(version),
            "is enabled at once, any thread's, anon_inode:[eventpoll]",
            "as on {version}"
        );
    }
    if there != as_on("5.10") {
        for version in ["5.19", "6.0"] {
            let expected = "is enabled by its thread, any thread's, anon_inode:[eventfd]";
            assert_eq!(as_on(version), expected, "as on {version}");
        }
    }
    assert_eq!(as_on("6.1"), there);
}

/// Checks that the facts are `old` as on version `before`, and those of the kernel itself as on
/// version `since`, which added the feature.
fn check_since(facts: impl Fn(&str) -> String, before: &str, old: &str, since: &str) {
    assert_eq!(facts(before), old, "as on {before}");
    assert_eq!(facts(since), facts(""), "as on {since}");
}

#[test]
fn s32_a_cancel_is_silent_since_5_17() {
    fn completions() -> String {
        let lp = real_loop();
        let (stream, _peer) = UnixStream::pair().unwrap();
        // SAFETY: the entry of a poll has no pointers.
        let handle = unsafe { lp.submit(&poll(&stream), |_, _| {}) }.unwrap();
        lp.run_once(Duration::ZERO).unwrap();
        lp.cancel(handle).unwrap();
        lp.run().unwrap();
        lp.run_once(Duration::ZERO).unwrap();
        lp.metrics().completed.to_string()
    }
    let facts = |version: &str| as_on(version, "s32_a_cancel_is_silent_since_5_17", completions);
    check_since(facts, "5.16", "2", "5.17");
}

#[test]
fn s32_an_armed_timeout_is_updated_since_5_11() {
    fn entries() -> String {
        let lp = real_loop();
        let (stream, mut peer) = UnixStream::pair().unwrap();
        peer.write_all(b"x").unwrap();
        lp.call_later(HOUR, |_| {}).unwrap();
        // SAFETY: the entry of a poll has no pointers.
        unsafe { lp.submit(&poll(&stream), |_, _| {}) }.unwrap();
        // The loop sleeps until the poll completes, with the timeout armed for the timer.
        assert_eq!(lp.run_once(HOUR), Ok(1));
        let before = lp.metrics().submitted;
        lp.run_once(ms(1)).unwrap();
        (lp.metrics().submitted - before).to_string()
    }
    let facts =
        |version: &str| as_on(version, "s32_an_armed_timeout_is_updated_since_5_11", entries);
    check_since(facts, "5.10", "2", "5.11");
}

#[test]
fn s32_one_poll_is_for_all_wakes_since_5_13() {
    fn polls() -> String {
        let lp = real_loop();
        let wakes = 4;
        while lp.metrics().wakes < wakes {
            let remote = lp.remote();
            let waker = thread::spawn(move || {
                thread::sleep(ms(2));
                remote.call_soon(|lp| lp.stop().unwrap()).unwrap();
            });
            lp.run_forever().unwrap();
            waker.join().unwrap();
        }
        if lp.metrics().submitted >= wakes { "one for each" } else { "one" }.to_owned()
    }
    let facts = |version: &str| as_on(version, "s32_one_poll_is_for_all_wakes_since_5_13", polls);
    check_since(facts, "5.12", "one for each", "5.13");
}

#[test]
fn s32_a_buffer_is_filled_in_parts_since_6_12() {
    fn places() -> String {
        let lp = real_loop();
        let (stream, mut peer) = UnixStream::pair().unwrap();
        let buffers = lp.buffers(1, 4096).unwrap();
        let places: Rc<RefCell<Vec<usize>>> = Rc::default();
        let seen = Rc::clone(&places);
        lp.recv_multi(stream, &buffers, move |_, data| {
            seen.borrow_mut().push(data.unwrap().as_ptr() as usize)
        })
        .unwrap();
        for count in 1..=2 {
            peer.write_all(b"x").unwrap();
            while places.borrow().len() < count {
                lp.run_once(HOUR).unwrap();
            }
        }
        let places = places.borrow();
        (places[1] - places[0]).to_string()
    }
    let facts =
        |version: &str| as_on(version, "s32_a_buffer_is_filled_in_parts_since_6_12", places);
    check_since(facts, "6.11", "0", "6.12");
}

#[test]
fn s32_what_is_promised_holds_as_on_older_kernels() {
    for version in ["5.10", "5.19", "6.0"] {
        let mut tests = Command::new(env::current_exe().unwrap());
        tests
            .args(["io::", "operations::", "sends::", "streams::", "files::", "iteration::"])
            .args(["receiving::", "nonblock::", "letting_go::s12", "children::", "watchers::"])
            .env("RINGLOOP_KERNEL", version);
        let output = tests.output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "as on {version}: {stdout}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!stdout.contains("running 0 tests"), "{stdout}");
    }
}
