//! C functions as callbacks. They may be called any number of times; dropping them does nothing.

use libc::{c_int, c_void, pid_t};

use std::marker::PhantomData;

use super::{CFunction, Callback, Data, EMPTY, Source, Table};
use crate::capi::loop_t;
use crate::error::Result;
use crate::event_loop::Loop;
use crate::op::driver::Given;

/// `loop_callback_t`. The ABI lets a C++ exception arrive here, where it aborts with a message (S30).
pub(crate) type Call = unsafe extern "C-unwind" fn(*mut loop_t, *mut c_void);
/// `loop_signal_callback_t`.
pub(crate) type Signal = unsafe extern "C-unwind" fn(*mut loop_t, c_int, *mut c_void);
/// `loop_io_callback_t`.
pub(crate) type Io = unsafe extern "C-unwind" fn(*mut loop_t, i32, u32, *mut c_void);
/// `loop_fd_callback_t`.
pub(crate) type Watch = unsafe extern "C-unwind" fn(*mut loop_t, c_int, u32, *mut c_void);
/// `loop_recv_callback_t`.
pub(crate) type Recv = unsafe extern "C-unwind" fn(*mut loop_t, i32, *const c_void, u32, *mut c_void);
/// `loop_done_t`.
pub(crate) type Done = unsafe extern "C-unwind" fn(*mut loop_t, c_int, *mut c_void);
/// `loop_child_callback_t`.
pub(crate) type Child = unsafe extern "C-unwind" fn(*mut loop_t, pid_t, c_int, *mut c_void);
/// `loop_release_t`.
pub(crate) type Release = unsafe extern "C-unwind" fn(*mut c_void);

impl Callback {
    /// A C function that gets the loop and `arg`. Whoever hands it over promises that calling it with this `arg`
    /// is sound as long as the callback is stored.
    pub(crate) fn c_call(function: Call, arg: *mut c_void) -> Callback {
        Callback::store((function, arg), &CALL)
    }

    /// A C function that gets the loop, the signal of the handler that runs, and `arg`, with the same promise.
    pub(crate) fn c_signal(function: Signal, arg: *mut c_void) -> Callback {
        Callback::store((function, arg), &SIGNAL)
    }

    /// A C function that gets the loop, the result of the operation that it is called for, and `arg`, with the same promise.
    pub(crate) fn c_io(function: Io, arg: *mut c_void) -> Callback {
        Callback::store((function, arg), &IO)
    }

    /// A C function that gets the loop, the descriptor and events of the watcher that it is called for, and `arg`, with the
    /// same promise.
    pub(crate) fn c_watch(function: Watch, arg: *mut c_void) -> Callback {
        Callback::store((function, arg), &WATCH)
    }

    /// A C function that gets the loop, the result of the operation that it is called for, where its data is, and `arg`, with
    /// the same promise.
    pub(crate) fn c_recv(function: Recv, arg: *mut c_void) -> Callback {
        Callback::store((function, arg), &RECV)
    }

    /// A C function that gets the loop, the result of the work that it is called for, and `arg`, with the same promise.
    pub(crate) fn c_done(function: Done, arg: *mut c_void) -> Callback {
        Callback::store((function, arg), &DONE)
    }

    /// A C function that gets the loop, the child that has ended, its wait status, and `arg`, with the same promise.
    pub(crate) fn c_child(function: Child, arg: *mut c_void) -> Callback {
        Callback::store((function, arg), &CHILD)
    }

    /// A closure that calls a C function once, by which it is known.
    pub(crate) fn c_once<F: FnOnce(&Loop) + 'static>(function: CFunction, call: F) -> Result<Callback> {
        Callback::boxed((function, call), Prepared::<F>::TABLE)
    }

    /// A C function that gets `arg` alone, with the same promise.
    pub(crate) fn c_release(function: Release, arg: *mut c_void) -> Callback {
        Callback::store((function, arg), &RELEASE)
    }
}

/// The table of a kind of C function: how it is called with the loop, what it is told, and `arg`.
macro_rules! table {
    ($name:ident: $Function:ty, |$function:ident, $lp:ident, $arg:ident| $call:expr) => {
        static $name: Table = Table {
            call_once: |first, second, $lp| {
                let data: Data = [first, second];
                // SAFETY: the data is what the constructor for this table stored, and its caller vouched for the call.
                unsafe {
                    let ($function, $arg) = data.as_ptr().cast::<($Function, *mut c_void)>().read();
                    $call;
                }
            },
            // SAFETY: as for `call_once`, which a C function does not mind.
            call: |callback, lp| unsafe { ($name.call_once)(callback.data[0], callback.data[1], lp) },
            drop: |_| {},
            needs_drop: false,
            describe: describe_call,
            stand_in: &CALL_STAND_IN,
        };
    };
}

table!(CALL: Call, |function, lp, arg| function(lp.as_c(), arg));
table!(SIGNAL: Signal, |function, lp, arg| function(lp.as_c(), lp.current_signal(), arg));
table!(IO: Io, |function, lp, arg| {
    let Given { result, flags, .. } = lp.result.get();
    function(lp.as_c(), result, flags, arg)
});
table!(WATCH: Watch, |function, lp, arg| {
    let Given { result: fd, flags: events, .. } = lp.result.get();
    function(lp.as_c(), fd, events, arg)
});
table!(RECV: Recv, |function, lp, arg| {
    let Given { result, flags, data } = lp.result.get();
    function(lp.as_c(), result, data.cast(), flags, arg)
});
table!(DONE: Done, |function, lp, arg| function(lp.as_c(), lp.result.get().result, arg));
table!(CHILD: Child, |function, lp, arg| {
    let (pid, status) = lp.ended_child();
    function(lp.as_c(), pid, status, arg)
});

static CALL_STAND_IN: Table = Table {
    call_once: |_, _, _| {},
    call: |_, _| {},
    drop: |_| {},
    needs_drop: false,
    describe: describe_call,
    stand_in: &CALL_STAND_IN,
};

/// # Safety
/// The data is what `c_call` or `c_signal` stored: an address and an argument.
unsafe fn describe_call(data: &Data) -> Source {
    // SAFETY: the caller says so; a function's address may be read as that of anything.
    let (address, arg) = unsafe { data.as_ptr().cast::<(*mut c_void, *mut c_void)>().read() };
    Source::C(CFunction { address, arg })
}

/// A C function, and a closure that calls it, in a box.
struct Prepared<F>(PhantomData<F>);

impl<F: FnOnce(&Loop) + 'static> Prepared<F> {
    const TABLE: &'static Table = &Table {
        call_once: |first, second, lp| {
            let data: Data = [first, second];
            // SAFETY: the data is the box that `c_once` made, which is read once.
            let prepared = unsafe { data.as_ptr().cast::<Box<(CFunction, F)>>().read() };
            (prepared.1)(lp);
        },
        call: |callback, lp| {
            // SAFETY: the data is the box that `c_once` made, which is read once: the empty table says that it is gone.
            let prepared = unsafe { callback.data.as_ptr().cast::<Box<(CFunction, F)>>().read() };
            callback.table = &EMPTY;
            (prepared.1)(lp);
        },
        drop: super::drop_as::<Box<(CFunction, F)>>,
        needs_drop: true,
        // SAFETY: the data is the box that `c_once` made.
        describe: |data| Source::C(unsafe { (*data.as_ptr().cast::<Box<(CFunction, F)>>()).0 }),
        stand_in: &EMPTY,
    };
}

static RELEASE: Table = Table {
    call_once: |first, second, _| {
        let data: Data = [first, second];
        // SAFETY: the data is what `c_release` stored, and its caller vouched for the call.
        unsafe {
            let (function, arg) = data.as_ptr().cast::<(Release, *mut c_void)>().read();
            function(arg);
        }
    },
    // SAFETY: as for `call_once`, which a C function does not mind.
    call: |callback, lp| unsafe { (RELEASE.call_once)(callback.data[0], callback.data[1], lp) },
    drop: |_| {},
    needs_drop: false,
    describe: |_| Source::Rust("a release hook"),
    stand_in: &RELEASE,
};
