//! Children and signals of tasks: S13, S22.

use std::cell::Cell;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::rc::Rc;

use libc::{ECANCELED, ECHILD, EINVAL, ENOENT, ETIMEDOUT};
use ringloop::process::Child;
use ringloop::signal::signal;
use ringloop::{HookPoint, Loop, Outcome, task};

use crate::streams::{poll_once, run};
use crate::trace::{errno, ms, real_loop};

fn sh(script: &str) -> Child {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Child::spawn(&mut command).unwrap()
}

#[test]
fn a_child_reads_writes_and_ends() {
    run(async {
        let mut child = sh("cat; echo error >&2; exit 3");
        let mut stdin = child.stdin.take().unwrap();
        let text: Vec<u8> = (0..300_000u32).map(|number| number as u8).collect();
        let copy = text.clone();
        let writing = task::spawn(async move { stdin.write_all(copy).await.0 }).unwrap();
        let read = child.stdout.as_mut().unwrap().read_exact(Vec::with_capacity(300_000)).await;
        assert!(read == (Ok(()), text));
        writing.await.unwrap().unwrap();
        assert_eq!(
            child.stderr.as_mut().unwrap().read_exact(Vec::with_capacity(6)).await.1,
            b"error\n"
        );
        for _ in 0..2 {
            assert_eq!(child.wait().await.unwrap().code(), Some(3));
        }
        child.kill().unwrap();
        let mut child = sh("read x");
        child.kill().unwrap();
        assert_eq!(child.wait().await.unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(errno(Child::spawn(&mut Command::new("/nonexistent"))), ENOENT);
    });
}

#[test]
fn s13_a_dropped_wait_leaves_the_child_to_the_next() {
    run(async {
        let mut child = sh("exec sleep 1000");
        assert_eq!(errno(task::timeout(ms(1), child.wait()).await), ETIMEDOUT);
        child.kill().unwrap();
        // The child is reaped, but no wait sees its status.
        {
            let mut waiting = pin!(child.wait());
            assert!(poll_once(waiting.as_mut()).await.is_none());
            task::sleep(ms(100)).await.unwrap();
        }
        child.kill().unwrap();
        assert_eq!(child.wait().await.unwrap().signal(), Some(libc::SIGKILL));
    });
}

#[test]
fn a_child_that_another_has_waited_for_has_no_status() {
    run(async {
        let mut child = sh("exit 0");
        let mut status = 0;
        // SAFETY: the status is written to a live variable.
        unsafe { libc::waitpid(child.id() as i32, &mut status, 0) };
        assert_eq!(errno(child.wait().await), ECHILD);
    });
}

fn raise(signal: i32) {
    // SAFETY: the signal is handled.
    assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
}

#[test]
fn a_signal_between_two_waits_is_not_lost() {
    run(async {
        let mut signals = signal(libc::SIGWINCH).unwrap();
        raise(libc::SIGWINCH);
        task::sleep(ms(10)).await.unwrap();
        raise(libc::SIGWINCH);
        task::sleep(ms(10)).await.unwrap();
        assert_eq!(poll_once(pin!(signals.next())).await, Some(Ok(())));
        assert_eq!(poll_once(pin!(signals.next())).await, None, "several signals count as one");
        {
            let mut waiting = pin!(signals.next());
            assert_eq!(poll_once(waiting.as_mut()).await, None);
            raise(libc::SIGWINCH);
            task::sleep(ms(10)).await.unwrap();
        }
        assert_eq!(signals.next().await, Ok(()), "the signal came in a dropped wait");
        let waiting = task::spawn(async move { signals.next().await }).unwrap();
        task::yield_now().await;
        raise(libc::SIGWINCH);
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert_eq!(errno(signal(libc::SIGKILL)), EINVAL);
    });
    assert_eq!(errno(signal(libc::SIGWINCH)), EINVAL);
}

#[test]
fn s22_signals_end_with_the_loop() {
    let lp = real_loop();
    let mut signals = lp.run_until_complete(async { signal(libc::SIGURG).unwrap() }).unwrap();
    lp.shutdown().unwrap();
    let next = futures_util::FutureExt::now_or_never(signals.next());
    assert_eq!(errno(next.unwrap()), ECANCELED);
    lp.close().unwrap();
}

#[cfg(feature = "futures-core")]
#[test]
fn signals_are_a_stream() {
    use futures_util::StreamExt;
    run(async {
        let mut signals = signal(libc::SIGCONT).unwrap();
        raise(libc::SIGCONT);
        assert_eq!(StreamExt::next(&mut signals).await, Some(()));
    });
}

/// `struct clone_args` of Linux 5.5.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}

/// Reaps an ended child, and gives its process ID to a new child, which waits for a signal.
fn swap(pid: libc::pid_t) {
    let arguments = CloneArguments {
        exit_signal: libc::SIGCHLD as u64,
        set_tid: std::ptr::from_ref(&pid).addr() as u64,
        set_tid_size: 1,
        ..CloneArguments::default()
    };
    // SAFETY: the child calls only alarm, pause and _exit; no other code waits for the first child.
    unsafe {
        assert_eq!(libc::waitpid(pid, std::ptr::null_mut(), 0), pid);
        let other = libc::syscall(libc::SYS_clone3, &arguments, size_of::<CloneArguments>());
        if other == 0 {
            // If the loop takes this child for the first one, the test must fail, not wait forever.
            libc::alarm(20);
            libc::pause();
            libc::_exit(5);
        }
        assert_eq!(other, pid.into());
    }
}

/// The process ID if the child has ended, otherwise 0; and the wait status.
fn status_of(pid: libc::pid_t, flags: i32) -> (libc::pid_t, i32) {
    let mut status = 0;
    // SAFETY: the status is written to a live variable.
    (unsafe { libc::waitpid(pid, &mut status, flags) }, status)
}

/// Runs `f` in the first process of a new PID namespace, which may choose its children's IDs.
fn in_a_namespace(f: fn()) {
    let enter = |f: &dyn Fn()| {
        // SAFETY: the child leaves by `_exit`.
        match unsafe { libc::fork() } {
            0 => {
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
                // SAFETY: _exit takes any number.
                unsafe { libc::_exit(i32::from(ended.is_err())) }
            }
            child => assert_eq!(status_of(child, 0), (child, 0)),
        }
    };
    enter(&|| {
        // SAFETY: neither function takes a pointer.
        unsafe {
            let user = if libc::geteuid() == 0 { 0 } else { libc::CLONE_NEWUSER };
            assert_eq!(libc::unshare(libc::CLONE_NEWPID | user), 0);
        }
        enter(&f);
    });
}

/// Ends the child that `swap` has made, after a check that the child was neither reaped nor killed.
fn end_other(pid: libc::pid_t) {
    assert_eq!(status_of(pid, libc::WNOHANG), (0, 0));
    // SAFETY: the child exists, and belongs to this process.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    assert_eq!(status_of(pid, 0), (pid, libc::SIGTERM));
}

#[test]
#[expect(clippy::zombie_processes, reason = "`swap` waits for the child, on purpose")]
fn s11_a_child_that_got_the_number_of_another_is_not_met() {
    in_a_namespace(|| {
        let lp = real_loop();
        let child = Command::new("true").spawn().unwrap();
        let pid = child.id() as libc::pid_t;
        let (swapped, seen) = (Cell::new(false), Rc::new(Cell::new(None)));
        let inner = Rc::clone(&seen);
        lp.watch_child(child.id(), move |_, status| inner.set(Some(status))).unwrap();
        // SAFETY: the result is written to a live variable.
        let await_end = move |_: &Loop| unsafe {
            let mut info = std::mem::zeroed();
            libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, libc::WEXITED | libc::WNOWAIT);
        };
        lp.add_hook(HookPoint::BeforeWait, await_end).unwrap();
        // This hook runs after the kernel has reported the end of the child, before the callback.
        lp.add_hook(HookPoint::AfterWait, move |_| {
            if !swapped.replace(true) {
                swap(pid);
            }
        })
        .unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(seen.get(), Some(None));
        end_other(pid);
    });
}

#[test]
fn s11_what_kills_a_child_kills_none_that_got_its_number() {
    in_a_namespace(|| {
        run(async {
            let mut child = Child::spawn(Command::new("true").stdin(Stdio::null())).unwrap();
            let pid = child.id() as libc::pid_t;
            swap(pid);
            child.kill().unwrap();
            end_other(pid);
            assert_eq!(errno(child.wait().await), ECHILD);
        });
    });
}
