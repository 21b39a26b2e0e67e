//! The C API as a program sees it: the declarations of `include/ringloop.h`.

use std::ffi::{c_char, c_int, c_void};

// Brings the library in, whose symbols these are.
use ringloop as _;

#[repr(C)]
pub(crate) struct Loop([u8; 0]);

#[repr(C)]
pub(crate) struct Remote([u8; 0]);

#[repr(C)]
pub(crate) struct Buffers([u8; 0]);

pub(crate) use ringloop::Sqe;

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
pub(crate) const KIND_CALL: u32 = 1;
pub(crate) const KIND_TIMER: u32 = 2;
pub(crate) const KIND_REPEAT: u32 = 3;
pub(crate) const KIND_HOOK: u32 = 4;
pub(crate) const KIND_SIGNAL: u32 = 5;
pub(crate) const KIND_OPERATION: u32 = 6;
pub(crate) const KIND_WATCH: u32 = 7;
pub(crate) const KIND_WORK: u32 = 8;

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

// SAFETY: the interpreter alone calls these, with NULL, loops that are open, remotes and buffers
// that it holds, memory that lives until the run is over, and callbacks whose argument does.
unsafe extern "C" {
    pub(crate) safe fn loop_new(options: *const Options, out: *mut *mut Loop) -> c_int;
    pub(crate) safe fn loop_adopt(lp: *mut Loop) -> c_int;
    pub(crate) safe fn loop_shutdown(lp: *mut Loop) -> c_int;
    pub(crate) safe fn loop_close(lp: *mut Loop) -> c_int;
    pub(crate) safe fn loop_close_within(lp: *mut Loop, timeout_ns: u64) -> c_int;
    pub(crate) safe fn loop_set_data(lp: *mut Loop, data: *mut c_void);
    pub(crate) safe fn loop_data(lp: *const Loop) -> *mut c_void;

    pub(crate) safe fn loop_run_forever(lp: *mut Loop) -> c_int;
    pub(crate) safe fn loop_run(lp: *mut Loop) -> c_int;
    pub(crate) safe fn loop_run_once(lp: *mut Loop, timeout_ns: u64) -> c_int;
    pub(crate) safe fn loop_stop(lp: *mut Loop) -> c_int;
    pub(crate) safe fn loop_break(lp: *mut Loop) -> c_int;
    pub(crate) safe fn loop_is_running(lp: *const Loop) -> bool;
    pub(crate) safe fn loop_is_alive(lp: *const Loop) -> bool;
    pub(crate) safe fn loop_running() -> *mut Loop;

    pub(crate) safe fn loop_call_soon(lp: *mut Loop, callback: Callback, arg: *mut c_void) -> i64;
    pub(crate) safe fn loop_call_later(
        lp: *mut Loop,
        delay_ns: u64,
        callback: Callback,
        arg: *mut c_void,
    ) -> i64;
    pub(crate) safe fn loop_call_at(
        lp: *mut Loop,
        when_ns: u64,
        callback: Callback,
        arg: *mut c_void,
    ) -> i64;
    pub(crate) safe fn loop_call_every(
        lp: *mut Loop,
        period_ns: u64,
        callback: Callback,
        arg: *mut c_void,
    ) -> i64;
    pub(crate) safe fn loop_time(lp: *const Loop) -> u64;
    pub(crate) safe fn loop_next_deadline(lp: *const Loop) -> u64;
    pub(crate) safe fn loop_cancel(lp: *mut Loop, handle: i64) -> c_int;
    pub(crate) safe fn loop_reschedule(lp: *mut Loop, handle: i64, when_ns: u64) -> c_int;
    pub(crate) safe fn loop_when(lp: *const Loop, handle: i64, when_ns: *mut u64) -> c_int;
    pub(crate) safe fn loop_skipped(lp: *const Loop, handle: i64, count: *mut u64) -> c_int;
    pub(crate) safe fn loop_is_pending(lp: *const Loop, handle: i64) -> bool;
    pub(crate) safe fn loop_current(lp: *const Loop) -> i64;
    pub(crate) safe fn loop_ref(lp: *mut Loop, handle: i64) -> c_int;
    pub(crate) safe fn loop_unref(lp: *mut Loop, handle: i64) -> c_int;
    pub(crate) safe fn loop_has_ref(lp: *const Loop, handle: i64) -> bool;
    pub(crate) safe fn loop_on_release(lp: *mut Loop, handle: i64, release: Release) -> c_int;
    pub(crate) safe fn loop_add_hook(
        lp: *mut Loop,
        when: u32,
        callback: Callback,
        arg: *mut c_void,
    ) -> i64;

    pub(crate) safe fn loop_add_signal_handler(
        lp: *mut Loop,
        signum: c_int,
        callback: SignalCallback,
        arg: *mut c_void,
    ) -> i64;

    pub(crate) safe fn loop_call_soon_threadsafe(
        lp: *mut Loop,
        callback: Callback,
        arg: *mut c_void,
    ) -> c_int;
    pub(crate) safe fn loop_wakeup(lp: *mut Loop) -> c_int;
    pub(crate) safe fn loop_remote_new(lp: *mut Loop, out: *mut *mut Remote) -> c_int;
    pub(crate) safe fn loop_remote_retain(remote: *mut Remote) -> *mut Remote;
    pub(crate) safe fn loop_remote_release(remote: *mut Remote);
    pub(crate) safe fn loop_remote_call_soon(
        remote: *mut Remote,
        callback: Callback,
        arg: *mut c_void,
        release: Release,
    ) -> c_int;
    pub(crate) safe fn loop_remote_call_later(
        remote: *mut Remote,
        delay_ns: u64,
        callback: Callback,
        arg: *mut c_void,
        release: Release,
    ) -> c_int;
    pub(crate) safe fn loop_remote_wakeup(remote: *mut Remote) -> c_int;
    pub(crate) safe fn loop_remote_stop(remote: *mut Remote) -> c_int;

    pub(crate) safe fn loop_watch_fd(
        lp: *mut Loop,
        fd: c_int,
        events: u32,
        callback: FdCallback,
        arg: *mut c_void,
    ) -> i64;
    pub(crate) safe fn loop_watch_update(lp: *mut Loop, handle: i64, events: u32) -> c_int;
    pub(crate) safe fn loop_forget_fd(lp: *mut Loop, fd: c_int) -> c_int;

    pub(crate) safe fn loop_submit(
        lp: *mut Loop,
        sqe: *const Sqe,
        callback: IoCallback,
        arg: *mut c_void,
    ) -> i64;
    pub(crate) safe fn loop_submit_chain(
        lp: *mut Loop,
        sqes: *const Sqe,
        count: usize,
        callback: IoCallback,
        args: *const *mut c_void,
        handles: *mut i64,
    ) -> c_int;
    pub(crate) safe fn loop_set_deadline(lp: *mut Loop, handle: i64, when_ns: u64) -> c_int;
    pub(crate) safe fn loop_read(
        lp: *mut Loop,
        fd: c_int,
        buffer: *mut c_void,
        length: usize,
        offset: u64,
        callback: IoCallback,
        arg: *mut c_void,
    ) -> i64;
    pub(crate) safe fn loop_write(
        lp: *mut Loop,
        fd: c_int,
        buffer: *const c_void,
        length: usize,
        offset: u64,
        callback: IoCallback,
        arg: *mut c_void,
    ) -> i64;
    pub(crate) safe fn loop_write_all(
        lp: *mut Loop,
        fd: c_int,
        buffer: *const c_void,
        length: usize,
        offset: u64,
        callback: IoCallback,
        arg: *mut c_void,
    ) -> i64;
    pub(crate) safe fn loop_recv(
        lp: *mut Loop,
        fd: c_int,
        buffer: *mut c_void,
        length: usize,
        flags: c_int,
        callback: IoCallback,
        arg: *mut c_void,
    ) -> i64;
    pub(crate) safe fn loop_send(
        lp: *mut Loop,
        fd: c_int,
        buffer: *const c_void,
        length: usize,
        flags: c_int,
        callback: IoCallback,
        arg: *mut c_void,
    ) -> i64;
    pub(crate) safe fn loop_send_all(
        lp: *mut Loop,
        fd: c_int,
        buffer: *const c_void,
        length: usize,
        flags: c_int,
        callback: IoCallback,
        arg: *mut c_void,
    ) -> i64;
    pub(crate) safe fn loop_accept(
        lp: *mut Loop,
        fd: c_int,
        flags: c_int,
        callback: IoCallback,
        arg: *mut c_void,
    ) -> i64;
    pub(crate) safe fn loop_accept_multi(
        lp: *mut Loop,
        fd: c_int,
        flags: c_int,
        callback: IoCallback,
        arg: *mut c_void,
    ) -> i64;
    pub(crate) safe fn loop_buffers_new(
        lp: *mut Loop,
        count: u32,
        size: u32,
        out: *mut *mut Buffers,
    ) -> c_int;
    pub(crate) safe fn loop_buffers_free(buffers: *mut Buffers) -> c_int;
    pub(crate) safe fn loop_buffer_keep(buffers: *mut Buffers, data: *const c_void) -> c_int;
    pub(crate) safe fn loop_buffer_return(buffers: *mut Buffers, data: *const c_void) -> c_int;
    pub(crate) safe fn loop_recv_multi(
        lp: *mut Loop,
        fd: c_int,
        buffers: *mut Buffers,
        callback: RecvCallback,
        arg: *mut c_void,
    ) -> i64;
    pub(crate) safe fn loop_run_in_executor(
        lp: *mut Loop,
        work: Work,
        done: Done,
        arg: *mut c_void,
    ) -> i64;

    pub(crate) safe fn loop_fd(lp: *mut Loop) -> c_int;
    pub(crate) safe fn loop_flush(lp: *mut Loop) -> c_int;

    pub(crate) safe fn loop_metrics(lp: *const Loop, out: *mut Metrics) -> c_int;
    pub(crate) safe fn loop_set_slow_callback(
        lp: *mut Loop,
        threshold_ns: u64,
        callback: SlowCallback,
        arg: *mut c_void,
    ) -> c_int;
    pub(crate) safe fn loop_walk(lp: *mut Loop, callback: WalkCallback, arg: *mut c_void) -> c_int;

    pub(crate) safe fn loop_strerror(error: c_int) -> *const c_char;
    pub(crate) safe fn loop_last_error() -> *const c_char;
}
