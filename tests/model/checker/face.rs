//! The two faces of a loop, C and Rust: functions with the same arguments and results.
//!
//! A loop in C is a pointer to a loop in Rust: either face may be used at any time.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use ringloop::{Error, Handle, Outcome, Time};

use super::api::{self, Callback, Loop, Release};
use super::language;
use super::memory::Exempt;
use super::thing::Thing;

pub(crate) struct Face {
    pub(crate) call_soon: extern "C" fn(*mut Loop, Callback, *mut c_void) -> i64,
    pub(crate) call_later: extern "C" fn(*mut Loop, u64, Callback, *mut c_void) -> i64,
    pub(crate) call_at: extern "C" fn(*mut Loop, u64, Callback, *mut c_void) -> i64,
    pub(crate) call_every: extern "C" fn(*mut Loop, u64, Callback, *mut c_void) -> i64,
    pub(crate) cancel: extern "C" fn(*mut Loop, i64) -> i32,
    pub(crate) reschedule: extern "C" fn(*mut Loop, i64, u64) -> i32,
    pub(crate) when: extern "C" fn(*const Loop, i64, *mut u64) -> i32,
    pub(crate) skipped: extern "C" fn(*const Loop, i64, *mut u64) -> i32,
    pub(crate) ref_: extern "C" fn(*mut Loop, i64) -> i32,
    pub(crate) unref: extern "C" fn(*mut Loop, i64) -> i32,
    pub(crate) run: extern "C" fn(*mut Loop) -> i32,
    pub(crate) run_forever: extern "C" fn(*mut Loop) -> i32,
    pub(crate) run_once: extern "C" fn(*mut Loop, u64) -> i32,
    pub(crate) stop: extern "C" fn(*mut Loop) -> i32,
    pub(crate) break_: extern "C" fn(*mut Loop) -> i32,
}

static C: Face = Face {
    call_soon: api::loop_call_soon,
    call_later: api::loop_call_later,
    call_at: api::loop_call_at,
    call_every: api::loop_call_every,
    cancel: api::loop_cancel,
    reschedule: api::loop_reschedule,
    when: api::loop_when,
    skipped: api::loop_skipped,
    ref_: api::loop_ref,
    unref: api::loop_unref,
    run: api::loop_run,
    run_forever: api::loop_run_forever,
    run_once: api::loop_run_once,
    stop: api::loop_stop,
    break_: api::loop_break,
};

static RUST: Face = Face {
    call_soon,
    call_later,
    call_at,
    call_every,
    cancel,
    reschedule,
    when,
    skipped,
    ref_,
    unref,
    run,
    run_forever,
    run_once,
    stop,
    break_,
};

pub(crate) fn of(face: language::Face) -> &'static Face {
    match face {
        language::Face::C => &C,
        language::Face::Rust => &RUST,
    }
}

pub(crate) fn rust<'a>(lp: *const Loop) -> &'a ringloop::Loop {
    // SAFETY: the library's pointer points to such a loop, and the loop is open.
    unsafe { &*lp.cast() }
}

/// A value that a callback in Rust carries; its drop is reported to the thing.
pub(crate) struct Carried(pub(crate) *const Thing);

impl Drop for Carried {
    fn drop(&mut self) {
        // SAFETY: the machine keeps the thing until all loops are closed.
        unsafe { &*self.0 }.was_dropped();
    }
}

/// The payload of a panic of a program.
pub(crate) struct AsWritten;

fn closure(arg: *mut c_void) -> impl FnMut(&ringloop::Loop) + 'static {
    let carried = Carried(arg.cast());
    move |lp| {
        let carried = &carried;
        // SAFETY: as above.
        let thing = unsafe { &*carried.0 };
        thing.machine().called(thing, std::ptr::from_ref(lp).cast_mut().cast());
        if thing.panics.take() {
            let _exempt = Exempt::begin();
            // The panic prints no message on stderr.
            resume_unwind(Box::new(AsWritten));
        }
    }
}

fn errno(error: Error) -> i32 {
    -error.raw_os_error()
}

fn handle(result: Result<Handle, Error>) -> i64 {
    result.map_or_else(|error| errno(error).into(), Handle::as_raw)
}

fn status(result: Result<(), Error>) -> i32 {
    result.map_or_else(errno, |()| 0)
}

fn time(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

/// The handle with this number, which must not be 0.
fn known(raw: i64) -> Handle {
    Handle::from_raw(raw).expect("0 is no handle")
}

fn write(out: *mut u64, result: Result<u64, Error>) -> i32 {
    // SAFETY: the caller passes a pointer to a number.
    status(result.map(|number| unsafe { *out = number }))
}

extern "C" fn call_soon(lp: *mut Loop, _: Callback, arg: *mut c_void) -> i64 {
    handle(rust(lp).call_soon(closure(arg)))
}

extern "C" fn call_later(lp: *mut Loop, delay: u64, _: Callback, arg: *mut c_void) -> i64 {
    handle(rust(lp).call_later(time(delay), closure(arg)))
}

extern "C" fn call_at(lp: *mut Loop, when: u64, _: Callback, arg: *mut c_void) -> i64 {
    handle(rust(lp).call_at(Time::from_nanos(when), closure(arg)))
}

extern "C" fn call_every(lp: *mut Loop, period: u64, _: Callback, arg: *mut c_void) -> i64 {
    handle(rust(lp).call_every(time(period), closure(arg)))
}

extern "C" fn cancel(lp: *mut Loop, raw: i64) -> i32 {
    status(rust(lp).cancel(known(raw)))
}

extern "C" fn reschedule(lp: *mut Loop, raw: i64, when: u64) -> i32 {
    status(rust(lp).reschedule(known(raw), Time::from_nanos(when)))
}

extern "C" fn when(lp: *const Loop, raw: i64, out: *mut u64) -> i32 {
    write(out, rust(lp).when(known(raw)).map(Time::as_nanos))
}

extern "C" fn skipped(lp: *const Loop, raw: i64, out: *mut u64) -> i32 {
    write(out, rust(lp).skipped(known(raw)))
}

extern "C" fn ref_(lp: *mut Loop, raw: i64) -> i32 {
    status(rust(lp).ref_(known(raw)))
}

extern "C" fn unref(lp: *mut Loop, raw: i64) -> i32 {
    status(rust(lp).unref(known(raw)))
}

/// Sets the release hook of a thing that was scheduled in Rust.
pub(crate) fn on_release(lp: *mut Loop, raw: i64, release: Release, arg: *mut c_void) -> i32 {
    let hook = move |_: &ringloop::Loop| {
        if let Some(release) = release {
            // SAFETY: the hook takes the address of a thing, and `arg` is one.
            unsafe { release(arg) };
        }
    };
    status(rust(lp).on_release(known(raw), hook))
}

/// Runs `run`, which a panic of the program may leave.
fn caught<T>(run: impl FnOnce() -> Result<T, Error>, number: impl FnOnce(T) -> i32) -> i32 {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_or_else(errno, number),
        Err(payload) if payload.is::<AsWritten>() => api::PANICKED,
        Err(payload) => resume_unwind(payload),
    }
}

fn outcome(outcome: Outcome) -> i32 {
    outcome as i32
}

extern "C" fn run(lp: *mut Loop) -> i32 {
    caught(|| rust(lp).run(), outcome)
}

extern "C" fn run_forever(lp: *mut Loop) -> i32 {
    caught(|| rust(lp).run_forever(), outcome)
}

extern "C" fn run_once(lp: *mut Loop, limit: u64) -> i32 {
    let limit = if limit == u64::MAX { Duration::MAX } else { time(limit) };
    caught(|| rust(lp).run_once(limit), |ran| ran as i32)
}

extern "C" fn stop(lp: *mut Loop) -> i32 {
    status(rust(lp).stop())
}

extern "C" fn break_(lp: *mut Loop) -> i32 {
    status(rust(lp).break_())
}
