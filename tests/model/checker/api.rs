//! The C API as a program sees it: the declarations of `include/ringloop.h`.

use std::ffi::{c_char, c_int, c_void};

// Links the library, which defines these symbols.
use ringloop as _;

#[repr(C)]
pub(crate) struct Loop([u8; 0]);

#[repr(C)]
pub(crate) struct Remote([u8; 0]);

#[repr(C)]
pub(crate) struct Buffers([u8; 0]);

pub(crate) use ringloop::Sqe;

type Lp = *mut Loop;
type Arg = *mut c_void;
pub(crate) type Callback = Option<unsafe extern "C-unwind" fn(*mut Loop, *mut c_void)>;
pub(crate) type Release = Option<unsafe extern "C-unwind" fn(*mut c_void)>;
pub(crate) type SlowCallback =
    Option<unsafe extern "C-unwind" fn(*mut Loop, u64, u32, *mut c_void, *mut c_void)>;
pub(crate) type SignalCallback = Option<unsafe extern "C-unwind" fn(*mut Loop, c_int, *mut c_void)>;
pub(crate) type FdCallback =
    Option<unsafe extern "C-unwind" fn(*mut Loop, c_int, u32, *mut c_void)>;
pub(crate) type IoCallback = Option<unsafe extern "C-unwind" fn(*mut Loop, i32, u32, *mut c_void)>;
pub(crate) type RecvCallback =
    Option<unsafe extern "C-unwind" fn(*mut Loop, i32, *const c_void, u32, *mut c_void)>;
pub(crate) type Work = Option<unsafe extern "C-unwind" fn(*mut c_void)>;
pub(crate) type Done = Option<unsafe extern "C-unwind" fn(*mut Loop, c_int, *mut c_void)>;
pub(crate) type WalkCallback =
    Option<unsafe extern "C-unwind" fn(*mut Loop, *const Info, *mut c_void)>;

pub(crate) const VIRTUAL_TIME: u32 = 1;
pub(crate) const DONE: i64 = 0;
pub(crate) const STOPPED: i64 = 1;
pub(crate) const BROKEN: i64 = 2;
/// The result of a run of the Rust API that a panic has left.
pub(crate) const PANICKED: i32 = 3;
pub(crate) const KIND_CALL: u32 = 1;
pub(crate) const KIND_TIMER: u32 = 2;
pub(crate) const KIND_REPEAT: u32 = 3;
pub(crate) const KIND_HOOK: u32 = 4;
pub(crate) const KIND_SIGNAL: u32 = 5;
pub(crate) const KIND_OPERATION: u32 = 6;
pub(crate) const KIND_WATCH: u32 = 7;
pub(crate) const KIND_WORK: u32 = 8;
pub(crate) const KIND_TASK: u32 = 10;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) size: u32,
    pub(crate) flags: u32,
    pub(crate) sq_entries: u32,
    pub(crate) cq_entries: u32,
    pub(crate) spin_ns: u64,
    pub(crate) slack_ns: u64,
    pub(crate) start_ns: u64,
    pub(crate) trace: *const c_char,
    pub(crate) executor_threads: u32,
    pub(crate) reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Metrics {
    pub(crate) size: u32,
    pub(crate) iterations: u64,
    pub(crate) callbacks: u64,
    pub(crate) timers_fired: u64,
    pub(crate) timers_cancelled: u64,
    pub(crate) timers_skipped: u64,
    pub(crate) asleep_ns: u64,
    pub(crate) submitted: u64,
    pub(crate) completed: u64,
    pub(crate) enters: u64,
    pub(crate) overflows: u64,
    pub(crate) posts: u64,
    pub(crate) wakes: u64,
    pub(crate) late: [u64; 32],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Info {
    pub(crate) size: u32,
    pub(crate) kind: u32,
    pub(crate) handle: i64,
    pub(crate) callback_address: *mut c_void,
    pub(crate) arg: *mut c_void,
    pub(crate) when_ns: u64,
    pub(crate) fd: c_int,
    pub(crate) referenced: bool,
}

// SAFETY: only the interpreter calls these, with NULL, open loops, remotes and buffers that it
// holds, memory that lives until the run is over, and callbacks whose argument does.
unsafe extern "C" {
    pub(crate) safe fn loop_new(_: *const Options, _: *mut Lp) -> c_int;
    pub(crate) safe fn loop_adopt(_: Lp) -> c_int;
    pub(crate) safe fn loop_shutdown(_: Lp) -> c_int;
    pub(crate) safe fn loop_close(_: Lp) -> c_int;
    pub(crate) safe fn loop_close_within(_: Lp, _: u64) -> c_int;

    pub(crate) safe fn loop_run_forever(_: Lp) -> c_int;
    pub(crate) safe fn loop_run(_: Lp) -> c_int;
    pub(crate) safe fn loop_run_once(_: Lp, _: u64) -> c_int;
    pub(crate) safe fn loop_stop(_: Lp) -> c_int;
    pub(crate) safe fn loop_break(_: Lp) -> c_int;
    pub(crate) safe fn loop_is_running(_: *const Loop) -> bool;
    pub(crate) safe fn loop_is_alive(_: *const Loop) -> bool;
    pub(crate) safe fn loop_running() -> *mut Loop;

    pub(crate) safe fn loop_call_soon(_: Lp, _: Callback, _: Arg) -> i64;
    pub(crate) safe fn loop_call_later(_: Lp, _: u64, _: Callback, _: Arg) -> i64;
    pub(crate) safe fn loop_call_at(_: Lp, _: u64, _: Callback, _: Arg) -> i64;
    pub(crate) safe fn loop_call_every(_: Lp, _: u64, _: Callback, _: Arg) -> i64;
    pub(crate) safe fn loop_time(_: *const Loop) -> u64;
    pub(crate) safe fn loop_next_deadline(_: *const Loop) -> u64;
    pub(crate) safe fn loop_cancel(_: Lp, _: i64) -> c_int;
    pub(crate) safe fn loop_reschedule(_: Lp, _: i64, _: u64) -> c_int;
    pub(crate) safe fn loop_when(_: *const Loop, _: i64, _: *mut u64) -> c_int;
    pub(crate) safe fn loop_skipped(_: *const Loop, _: i64, _: *mut u64) -> c_int;
    pub(crate) safe fn loop_is_pending(_: *const Loop, _: i64) -> bool;
    pub(crate) safe fn loop_current(_: *const Loop) -> i64;
    pub(crate) safe fn loop_ref(_: Lp, _: i64) -> c_int;
    pub(crate) safe fn loop_unref(_: Lp, _: i64) -> c_int;
    pub(crate) safe fn loop_has_ref(_: *const Loop, _: i64) -> bool;
    pub(crate) safe fn loop_on_release(_: Lp, _: i64, _: Release) -> c_int;
    pub(crate) safe fn loop_add_hook(_: Lp, _: u32, _: Callback, _: Arg) -> i64;

    pub(crate) safe fn loop_add_signal_handler(_: Lp, _: c_int, _: SignalCallback, _: Arg) -> i64;

    pub(crate) safe fn loop_call_soon_threadsafe(_: Lp, _: Callback, _: Arg) -> c_int;
    pub(crate) safe fn loop_wakeup(_: Lp) -> c_int;
    pub(crate) safe fn loop_remote_new(_: Lp, _: *mut *mut Remote) -> c_int;
    pub(crate) safe fn loop_remote_retain(_: *mut Remote) -> *mut Remote;
    pub(crate) safe fn loop_remote_release(_: *mut Remote);
    pub(crate) safe fn loop_remote_call_soon(
        _: *mut Remote,
        _: Callback,
        _: Arg,
        _: Release,
    ) -> c_int;
    pub(crate) safe fn loop_remote_call_later(
        _: *mut Remote,
        _: u64,
        _: Callback,
        _: Arg,
        _: Release,
    ) -> c_int;
    pub(crate) safe fn loop_remote_wakeup(_: *mut Remote) -> c_int;
    pub(crate) safe fn loop_remote_stop(_: *mut Remote) -> c_int;

    pub(crate) safe fn loop_watch_fd(_: Lp, _: c_int, _: u32, _: FdCallback, _: Arg) -> i64;
    pub(crate) safe fn loop_watch_update(_: Lp, _: i64, _: u32) -> c_int;
    pub(crate) safe fn loop_forget_fd(_: Lp, _: c_int) -> c_int;

    pub(crate) safe fn loop_submit(_: Lp, _: *const Sqe, _: IoCallback, _: Arg) -> i64;
    pub(crate) safe fn loop_submit_chain(
        _: Lp,
        _: *const Sqe,
        _: usize,
        _: IoCallback,
        _: *const *mut c_void,
        _: *mut i64,
    ) -> c_int;
    pub(crate) safe fn loop_set_deadline(_: Lp, _: i64, _: u64) -> c_int;
    pub(crate) safe fn loop_read(
        _: Lp,
        _: c_int,
        _: Arg,
        _: usize,
        _: u64,
        _: IoCallback,
        _: Arg,
    ) -> i64;
    pub(crate) safe fn loop_write(
        _: Lp,
        _: c_int,
        _: *const c_void,
        _: usize,
        _: u64,
        _: IoCallback,
        _: Arg,
    ) -> i64;
    pub(crate) safe fn loop_write_all(
        _: Lp,
        _: c_int,
        _: *const c_void,
        _: usize,
        _: u64,
        _: IoCallback,
        _: Arg,
    ) -> i64;
    pub(crate) safe fn loop_recv(
        _: Lp,
        _: c_int,
        _: Arg,
        _: usize,
        _: c_int,
        _: IoCallback,
        _: Arg,
    ) -> i64;
    pub(crate) safe fn loop_send(
        _: Lp,
        _: c_int,
        _: *const c_void,
        _: usize,
        _: c_int,
        _: IoCallback,
        _: Arg,
    ) -> i64;
    pub(crate) safe fn loop_send_all(
        _: Lp,
        _: c_int,
        _: *const c_void,
        _: usize,
        _: c_int,
        _: IoCallback,
        _: Arg,
    ) -> i64;
    pub(crate) safe fn loop_accept(_: Lp, _: c_int, _: c_int, _: IoCallback, _: Arg) -> i64;
    pub(crate) safe fn loop_accept_multi(_: Lp, _: c_int, _: c_int, _: IoCallback, _: Arg) -> i64;
    pub(crate) safe fn loop_buffers_new(_: Lp, _: u32, _: u32, _: *mut *mut Buffers) -> c_int;
    pub(crate) safe fn loop_buffers_free(_: *mut Buffers) -> c_int;
    pub(crate) safe fn loop_buffer_keep(_: *mut Buffers, _: *const c_void) -> c_int;
    pub(crate) safe fn loop_buffer_return(_: *mut Buffers, _: *const c_void) -> c_int;
    pub(crate) safe fn loop_recv_multi(
        _: Lp,
        _: c_int,
        _: *mut Buffers,
        _: RecvCallback,
        _: Arg,
    ) -> i64;
    pub(crate) safe fn loop_run_in_executor(_: Lp, _: Work, _: Done, _: Arg) -> i64;

    pub(crate) safe fn loop_fd(_: Lp) -> c_int;
    pub(crate) safe fn loop_flush(_: Lp) -> c_int;

    pub(crate) safe fn loop_metrics(_: *const Loop, _: *mut Metrics) -> c_int;
    pub(crate) safe fn loop_set_slow_callback(_: Lp, _: u64, _: SlowCallback, _: Arg) -> c_int;
    pub(crate) safe fn loop_walk(_: Lp, _: WalkCallback, _: Arg) -> c_int;

    pub(crate) safe fn loop_strerror(_: c_int) -> *const c_char;
    pub(crate) safe fn loop_last_error() -> *const c_char;
}
