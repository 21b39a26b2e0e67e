//! Watchers of children: S11, S19, S22.

use std::cell::Cell;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use libc::{ECHILD, EINVAL, ENOENT};
use ringloop::{Kind, Loop, Outcome, Time};

use crate::support::Watched;
use crate::trace::{Trace, errno, later, real_loop};

fn sh(script: &str) -> std::process::Child {
    Command::new("sh").arg("-c").arg(script).stdin(Stdio::piped()).spawn().unwrap()
}

#[test]
#[expect(clippy::zombie_processes, reason = "the loop waits for the children")]
fn a_child_ends_and_the_loop_says_how() {
    let lp = real_loop();
    let seen = Rc::new(Cell::new([None; 2]));
    for (at, script) in ["exit 7", "kill -9 $$"].into_iter().enumerate() {
        let seen = Rc::clone(&seen);
        let child = sh(script);
        let handle = lp
            .watch_child(child.id(), move |_, status: Option<ExitStatus>| {
                let mut all = seen.get();
                all[at] = status;
                seen.set(all);
            })
            .unwrap();
        lp.walk(|_, info| assert_eq!(info.kind(), Kind::Child)).unwrap();
        assert!(lp.has_ref(handle));
    }
    assert_eq!(lp.run(), Ok(Outcome::Done));
    let [first, second] = seen.get().map(Option::unwrap);
    assert_eq!((first.code(), second.signal()), (Some(7), Some(libc::SIGKILL)));
}

#[test]
fn s11_a_cancelled_watcher_leaves_the_child() {
    let lp = real_loop();
    let trace = Trace::new();
    let mut child = sh("read x; exit 3");
    let dropped = trace.on_drop("dropped");
    let handle = lp
        .watch_child(child.id(), move |_, _| {
            panic!("a callback has run, {}", std::mem::size_of_val(&dropped))
        })
        .unwrap();
    lp.on_release(handle, trace.note("release")).unwrap();
    lp.run_once(Duration::ZERO).unwrap();
    lp.cancel(handle).unwrap();
    assert_eq!(trace.take(), ["dropped", "release"]);
    assert_eq!(errno(lp.cancel(handle)), ENOENT);
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(lp.run_once(Duration::from_millis(2)), Ok(0));
}

/// Waits until a child has ended, and leaves its status to a later wait.
fn await_end(child: &std::process::Child) {
    // SAFETY: a zeroed `siginfo_t` is valid, and the result is written to a live variable.
    let ended = unsafe {
        let mut info = std::mem::zeroed();
        libc::waitid(libc::P_PID, child.id(), &mut info, libc::WEXITED | libc::WNOWAIT)
    };
    assert_eq!(ended, 0);
}

#[test]
fn s11_a_watcher_that_is_cancelled_in_its_batch_leaves_the_child() {
    let lp = real_loop();
    let [first, mut second] = ["exit 1", "exit 2"].map(sh);
    await_end(&first);
    await_end(&second);
    let (victim, inner) = later();
    lp.watch_child(first.id(), move |lp, _| lp.cancel(inner.get().unwrap()).unwrap()).unwrap();
    victim.set(Some(lp.watch_child(second.id(), |_, _| panic!("a callback has run")).unwrap()));
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(second.wait().unwrap().code(), Some(2));
}

/// The loop uses a slot again while the kernel still has the request of its previous watcher.
#[test]
#[expect(clippy::zombie_processes, reason = "the loop waits for the child")]
fn s10_a_late_completion_meets_nobody() {
    let lp = real_loop();
    let mut child = sh("read x; exit 7");
    for _ in 0..200 {
        let handle = lp.watch_child(child.id(), |_, _| panic!("a callback has run")).unwrap();
        lp.run_once(Duration::ZERO).unwrap();
        lp.cancel(handle).unwrap();
    }
    let seen = Rc::new(Cell::new(None));
    let inner = Rc::clone(&seen);
    lp.watch_child(child.id(), move |_, status| inner.set(status.unwrap().code())).unwrap();
    drop(child.stdin.take());
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(seen.get(), Some(7));
}

/// When close cancels the request, the kernel has already completed the request.
#[test]
fn s22_closing_leaves_a_child_that_has_ended() {
    for ends_before in [false, true] {
        let lp = real_loop();
        let mut child = sh("read x; exit 3");
        if ends_before {
            drop(child.stdin.take());
            await_end(&child);
        }
        lp.watch_child(child.id(), |_, _| panic!("a callback has run")).unwrap();
        if !ends_before {
            lp.run_once(Duration::ZERO).unwrap();
            drop(child.stdin.take());
            await_end(&child);
        }
        lp.close().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(3));
    }
}

#[test]
fn what_is_no_child_is_refused_and_one_that_another_reaped_has_no_status() {
    let lp = real_loop();
    assert_eq!(errno(lp.watch_child(1, |_, _| ())), ECHILD);
    for pid in [0, u32::MAX] {
        assert_eq!(errno(lp.watch_child(pid, |_, _| ())), EINVAL);
    }
    let mut child = sh("read x");
    let seen = Rc::new(Cell::new(0));
    let inner = Rc::clone(&seen);
    lp.watch_child(child.id(), move |_, status| inner.set(1 + i32::from(status.is_some())))
        .unwrap();
    lp.run_once(Duration::ZERO).unwrap();
    child.wait().unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(seen.get(), 1);
    assert_eq!(errno(lp.watch_child(child.id(), |_, _| ())), ECHILD);
}

#[test]
fn s22_closing_leaves_the_child() {
    let mut child = sh("read x; exit 3");
    for _ in 0..3 {
        let lp = real_loop();
        lp.watch_child(child.id(), |_, _| panic!("a callback has run")).unwrap();
        lp.run_once(Duration::ZERO).unwrap();
        lp.close().unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
#[expect(clippy::zombie_processes, reason = "the loop waits for the child")]
fn s36_a_virtual_clock_stands_still_while_a_child_lives() {
    let lp = Watched::new(Loop::builder().virtual_time(Time::from_nanos(0)).build().unwrap());
    let mut child = sh("read x");
    let ended = Rc::new(Cell::new(false));
    let inner = Rc::clone(&ended);
    lp.watch_child(child.id(), move |_, _| inner.set(true)).unwrap();
    lp.call_later(Duration::from_secs(10), |_| ()).unwrap();
    assert_eq!(lp.run_once(Duration::from_millis(5)), Ok(0));
    assert_eq!(lp.time(), Time::from_nanos(0));
    drop(child.stdin.take());
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!((ended.get(), lp.time().as_nanos()), (true, 10_000_000_000));
}
