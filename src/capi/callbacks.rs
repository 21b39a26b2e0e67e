//! C functions as callbacks. They may be called any number of times; dropping them does nothing.
//!
//! Whoever makes one promises that calling the function with its `arg` is sound as long as the callback is stored: the header asks C for
//! that. The ABI lets a C++ exception arrive here, where it aborts with a message (S30).

use libc::{c_int, c_void, pid_t};

use super::{as_c, loop_t};
use crate::abi::source::{CFunction, Source};
use crate::error::Result;
use crate::event_loop::{Callback, Loop};
use crate::pending::callback::Callable;
use crate::pending::event::{Event, OpResult};

/// `loop_callback_t`.
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

/// A C function of a kind, and the argument that it gets.
struct CCallback<K: Kind>(K::Function, *mut c_void);

/// How a kind of C function is called.
trait Kind {
    type Function: Copy;

    /// # Safety
    /// The function may be called with this argument now.
    unsafe fn call(function: Self::Function, lp: &Loop, event: &Event, arg: *mut c_void);

    fn address(function: Self::Function) -> *mut c_void;
}

impl<K: Kind> Callable<Loop> for CCallback<K> {
    const ONCE: bool = false;

    #[inline]
    fn call(&mut self, lp: &Loop, event: &Event) {
        // SAFETY: whoever made the callback has promised that this is sound.
        unsafe { K::call(self.0, lp, event, self.1) }
    }

    #[inline]
    fn call_once(mut self, lp: &Loop, event: &Event) {
        self.call(lp, event);
    }

    fn source_of_type() -> Source {
        Source::Rust("a C function")
    }

    fn source(&self) -> Source {
        Source::C(CFunction { address: K::address(self.0), arg: self.1 })
    }
}

/// A function that makes a callback of a kind of C function, and how that is called.
macro_rules! kind {
    ($(#[$doc:meta])* $make:ident: $Function:ty, |$function:ident, $lp:ident, $event:ident, $arg:ident| $call:expr) => {
        $(#[$doc])*
        pub(crate) fn $make(function: $Function, arg: *mut c_void) -> Callback {
            struct This;

            impl Kind for This {
                type Function = $Function;

                #[inline]
                unsafe fn call($function: $Function, $lp: &Loop, $event: &Event, $arg: *mut c_void) {
                    // SAFETY: the caller says that the function may be called.
                    unsafe { $call }
                }

                fn address(function: $Function) -> *mut c_void {
                    function as *mut c_void
                }
            }

            Callback::inline(CCallback::<This>(function, arg))
        }
    };
}

kind!(
    /// Gets the loop and `arg`.
    call: Call, |function, lp, _event, arg| function(as_c(lp), arg)
);
kind!(
    /// Gets the loop, the signal that has come, and `arg`.
    signal: Signal, |function, lp, event, arg| {
        let Event::Signal(signal) = *event else { unreachable!("a signal handler was called for {event:?}") };
        function(as_c(lp), signal, arg);
    }
);
kind!(
    /// Gets the loop, the result of the operation, its flags, and `arg`.
    io: Io, |function, lp, event, arg| {
        let OpResult { result, flags, .. } = event.completed();
        function(as_c(lp), result, flags, arg);
    }
);
kind!(
    /// Gets the loop, the descriptor, the events, and `arg`.
    watch: Watch, |function, lp, event, arg| {
        let Event::Ready(fd, events) = *event else { unreachable!("a watcher was called for {event:?}") };
        function(as_c(lp), fd, events, arg);
    }
);
kind!(
    /// Gets the loop, the result of the operation, where its data is, its flags, and `arg`.
    recv: Recv, |function, lp, event, arg| {
        let OpResult { result, flags, data } = event.completed();
        function(as_c(lp), result, data.cast(), flags, arg);
    }
);
kind!(
    /// Gets the loop, the result of the work, and `arg`.
    done: Done, |function, lp, event, arg| function(as_c(lp), event.completed().result, arg)
);
kind!(
    /// Gets the loop, the child that has ended, its wait status, and `arg`.
    child: Child, |function, lp, event, arg| {
        let Event::Exited(pid, status) = *event else { unreachable!("a child's watcher was called for {event:?}") };
        function(as_c(lp), pid, status, arg);
    }
);
kind!(
    /// Gets `arg` alone.
    release: Release, |function, _lp, _event, arg| function(arg)
);

/// A closure that calls a C function once, by which it is known.
pub(crate) fn once<F: FnOnce(&Loop, &Event) + 'static>(function: CFunction, call: F) -> Result<Callback> {
    Callback::new(Prepared(function, call))
}

/// A C function, and a closure that calls it.
struct Prepared<F>(CFunction, F);

impl<F: FnOnce(&Loop, &Event)> Callable<Loop> for Prepared<F> {
    const ONCE: bool = true;

    fn call(&mut self, _: &Loop, _: &Event) {}

    fn call_once(self, lp: &Loop, event: &Event) {
        (self.1)(lp, event);
    }

    fn source_of_type() -> Source {
        Source::Rust("a C function")
    }

    fn source(&self) -> Source {
        Source::C(self.0)
    }
}
