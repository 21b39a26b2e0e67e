//! The trace file: RINGLOOP_TRACE and Builder::trace.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ringloop::{Loop, Time};
use serde_json::Value;

/// A file name that no other test and no other process uses.
fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("ringloop-{}-{name}.json", std::process::id()))
}

/// Reads the events of a file, and removes the file.
fn events(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::remove_file(file).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The events in a category whose name contains `name`.
fn named<'a>(events: &'a [Value], category: &str, name: &str) -> Vec<&'a Value> {
    let is_it =
        |event: &&Value| event["cat"] == category && event["name"].as_str().unwrap().contains(name);
    events.iter().filter(is_it).collect()
}

fn micros(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn timer_of_5_ms(_: &Loop) {
    thread::sleep(Duration::from_millis(2));
}

fn tick(_: &Loop) {}

fn posted(lp: &Loop) {
    lp.stop().unwrap();
}

/// Runs a call, a 2 ms timer callback, a repeating timer, a hook and a post, on a traced loop.
fn program(lp: Loop) {
    let begin = lp.time();
    lp.call_soon(|_| {}).unwrap();
    lp.call_at(begin + Duration::from_millis(5), timer_of_5_ms).unwrap();
    lp.call_every(Duration::from_millis(4), tick).unwrap();
    lp.add_hook(ringloop::HookPoint::BeforeWait, |_| {}).unwrap();
    let remote = lp.remote();
    let poster = thread::spawn(move || {
        thread::sleep(Duration::from_millis(15));
        remote.call_soon(posted).unwrap();
    });
    lp.run_forever().unwrap();
    // Runs a timer that was due when the loop took the post.
    lp.run_once(Duration::ZERO).unwrap();
    poster.join().unwrap();
    lp.close().unwrap();
}

fn check_program(events: &[Value], begin: Time) {
    for event in events {
        assert_eq!(event["pid"], events[0]["pid"]);
        assert!(micros(&event["ts"]) >= begin.as_nanos() as f64 / 1e3 - 1.0);
    }
    assert_eq!(named(events, "call", "program::{{closure}}").len(), 1);
    let timer = named(events, "timer", "timer_of_5_ms");
    assert_eq!(timer.len(), 1);
    let thread = &timer[0]["tid"];
    assert!(micros(&timer[0]["dur"]) >= 2000.0 && timer[0]["ph"] == "X");
    assert!(micros(&timer[0]["args"]["late_us"]) > 0.0);
    let ticks = named(events, "repeating timer", "tick");
    assert!(!ticks.is_empty() && ticks.iter().all(|tick| micros(&tick["args"]["late_us"]) > 0.0));
    assert!(!named(events, "hook", "program::{{closure}}").is_empty());
    // The post is on the track of the posting thread, its callback on the loop's track.
    let post = named(events, "post", "post");
    assert!(post.len() == 1 && post[0]["tid"] != *thread && post[0]["ph"] == "i");
    let ran = named(events, "call", "tracing::posted");
    assert_eq!(ran[0]["name"], "tracing::posted");
    assert!(
        ran.len() == 1
            && ran[0]["tid"] == *thread
            && micros(&ran[0]["ts"]) >= micros(&post[0]["ts"])
    );
}

/// Whether the loop slept between its timers, and was woken by the post. On a busy machine it may
/// be late for both.
fn shows_sleep(events: &[Value]) -> bool {
    let sleeps = named(events, "loop", "sleep");
    let asleep = sleeps.iter().map(|sleep| micros(&sleep["dur"])).sum::<f64>();
    sleeps.len() >= 3 && asleep > 8000.0 && named(events, "loop", "wake").len() == 1
}

#[test]
fn a_loop_writes_what_it_does() {
    let is_shown = |attempt| {
        let begin = Time::now();
        let file = file(&format!("option-{attempt}"));
        program(Loop::builder().trace(&file).build().unwrap());
        let events = events(&file);
        check_program(&events, begin);
        shows_sleep(&events)
    };
    assert!((0..20).any(is_shown));
}

#[test]
fn loops_that_name_the_same_file_share_it_one_after_the_other_too() {
    let file = file("shared");
    for _ in 0..3 {
        let (lp, other) = (
            Loop::builder().trace(&file).build().unwrap(),
            Loop::builder().trace(&file).build().unwrap(),
        );
        lp.call_soon(|_| {}).unwrap();
        other.call_soon(|_| {}).unwrap();
        lp.run().unwrap();
        other.run().unwrap();
    }
    assert_eq!(events(&file).len(), 6);
}

#[test]
fn more_than_is_gathered_is_whole() {
    let file = file("large");
    let lp = Loop::builder().trace(&file).build().unwrap();
    for _ in 0..5000 {
        lp.call_soon(tick).unwrap();
    }
    lp.run().unwrap();
    assert_eq!(events(&file).len(), 5000);
}

#[test]
fn what_the_trace_costs_is_no_callbacks() {
    let file = file("costs");
    let lp = Loop::builder().trace(&file).build().unwrap();
    for _ in 0..2000 {
        lp.call_soon(tick).unwrap();
    }
    let begin = Instant::now();
    lp.run().unwrap();
    let each = begin.elapsed().as_secs_f64() * 1e6 / 2000.0;
    let mut durations: Vec<_> = events(&file).iter().map(|event| micros(&event["dur"])).collect();
    durations.sort_by(f64::total_cmp);
    // The median: a busy machine may interrupt some. Tracing takes nearly all of the time.
    assert!(durations[1000] < each / 3.0, "{} us in the call, of {each} us", durations[1000]);
}

#[test]
fn one_file_by_two_names_is_one_file_and_a_pipe_is_none() {
    let file = file("alias");
    let other = file.parent().unwrap().join(".").join(file.file_name().unwrap());
    for name in [&file, &other] {
        let lp = Loop::builder().trace(name).build().unwrap();
        lp.call_soon(tick).unwrap();
        lp.run().unwrap();
    }
    assert_eq!(events(&file).len(), 2);
    let status = Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(status.success());
    assert!(Loop::builder().trace(&file).build().is_err());
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_virtual_loop_is_late_by_its_own_clock() {
    let file = file("virtual");
    let lp = Loop::builder().virtual_time(Time::from_nanos(0)).trace(&file).build().unwrap();
    lp.call_later(Duration::from_secs(3600), tick).unwrap();
    lp.run().unwrap();
    let events = events(&file);
    assert_eq!(events.len(), 1);
    assert_eq!(micros(&events[0]["args"]["late_us"]), 0.0);
}

#[test]
fn a_file_that_cannot_be_made_is_an_error() {
    let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/no such folder/trace.json");
    let error = Loop::builder().trace(file).build().unwrap_err();
    assert_eq!(error.raw_os_error(), libc::ENOENT);
    assert!(error.to_string().contains("RINGLOOP_TRACE"), "{error}");
}

#[test]
fn s33_a_child_writes_nothing_to_the_parents_file() {
    let file = file("forked");
    let lp = Loop::builder().trace(&file).build().unwrap();
    lp.call_soon(tick).unwrap();
    lp.run().unwrap();
    lp.call_soon(tick).unwrap();
    // SAFETY: the child calls only the loop, which supports this, and exits.
    match unsafe { libc::fork() } {
        0 => {
            let refused = lp.run().is_err();
            drop(lp);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(!refused)) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child made above.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
    lp.run().unwrap();
    assert_eq!(events(&file).len(), 2);
}

/// The next test runs this one in a process of its own.
#[test]
fn in_a_process_of_its_own() {
    if std::env::var_os("RINGLOOP_TRACE").is_some() {
        program(Loop::new().unwrap());
    }
}

#[test]
fn the_environment_names_the_file() {
    let begin = Time::now();
    let name = file("environment-%p-is-the-number-of-the-process");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_a_process_of_its_own"])
        .env("RINGLOOP_TRACE", &name)
        .spawn()
        .unwrap();
    let number = child.id().to_string();
    assert!(child.wait_with_output().unwrap().status.success());
    let name = PathBuf::from(name.to_str().unwrap().replace("%p", &number));
    check_program(&events(&name), begin);
}
