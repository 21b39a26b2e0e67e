//! Children and signals of tasks: S13, S22.

use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{Command, Stdio};

use libc::{ECANCELED, ECHILD, EINVAL, ENOENT, ETIMEDOUT};
use ringloop::process::Child;
use ringloop::signal::signal;
use ringloop::task;

use crate::streams::{poll_once, run};
use crate::trace::{errno, ms, real_loop};

fn sh(script: &str) -> Child {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
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
        assert_eq!(child.stderr.as_mut().unwrap().read_exact(Vec::with_capacity(6)).await.1, b"error\n");
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
        // It is reaped, and nobody looks.
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
        assert_eq!(poll_once(pin!(signals.next())).await, None, "several are one");
        {
            let mut waiting = pin!(signals.next());
            assert_eq!(poll_once(waiting.as_mut()).await, None);
            raise(libc::SIGWINCH);
            task::sleep(ms(10)).await.unwrap();
        }
        assert_eq!(signals.next().await, Ok(()), "it came to a wait that was dropped");
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
