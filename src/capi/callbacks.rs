//! C functions as callbacks. They may be called any number of times; dropping them does nothing.
//!
//! A function of the C API gets a callback as `Function` and its argument as `Arg`. C promises, as
//! the header says, that the function may be called with the argument until the operation, timer or
//! hook has ended. No code in Rust can make either. The ABI permits a C++ exception to arrive here,
//! where it aborts with a message (S30).

use std::marker::PhantomData;

use libc::{c_int, c_void};

use super::{NULL_POINTER, as_c, loop_callback_t, loop_release_t, loop_t};
use crate::abi::source::{CFunction, Source};
use crate::error::Result;
use crate::event_loop::{Callback, Held, Loop, Shared};
use crate::pending::callback::Callable;
use crate::pending::event::{Event, OpResult};
use crate::pending::posts::{Open, Posted};

/// A pointer to a function: NULL, or a function that may be called with the `Arg` of the same call
/// until the operation, timer or the like for which C passes them has ended.
#[repr(transparent)]
#[derive(Debug)]
pub struct Function<'a, F>(F, PhantomData<&'a ()>);

/// `void *`: the argument of the functions of the same call.
#[repr(transparent)]
#[derive(Debug)]
pub struct Arg<'a>(*mut c_void, PhantomData<&'a ()>);

impl<'a, F: Copy> Function<'a, Option<F>> {
    /// The function, if it is not NULL.
    pub(super) fn get(self) -> Result<Function<'a, F>> {
        self.0.map(|function| Function(function, PhantomData)).ok_or(NULL_POINTER)
    }

    /// The function, if it is not NULL, with its argument.
    pub(super) fn with(self, arg: &Arg<'a>) -> Result<CCallback<F>> {
        // SAFETY: `self` is consumed, so the function is bound only once.
        Ok(unsafe { self.get()?.bind(arg) })
    }
}

impl<'a, F: Copy> Function<'a, F> {
    /// The function with its argument.
    ///
    /// # Safety
    /// They are bound for one operation, timer or the like, which has not ended while the callback
    /// exists.
    pub(super) unsafe fn bind(&self, arg: &Arg<'a>) -> CCallback<F> {
        CCallback(self.0, arg.0)
    }
}

/// A C function and its argument. The function may be called while this value exists.
#[derive(Debug)]
pub(super) struct CCallback<F>(F, *mut c_void);

/// C functions that get the loop, up to three other values, and an argument.
type Call = unsafe extern "C-unwind" fn(*mut loop_t, *mut c_void);
type Call1<A> = unsafe extern "C-unwind" fn(*mut loop_t, A, *mut c_void);
type Call2<A, B> = unsafe extern "C-unwind" fn(*mut loop_t, A, B, *mut c_void);
type Call3<A, B, C> = unsafe extern "C-unwind" fn(*mut loop_t, A, B, C, *mut c_void);
/// A C function that gets only the argument.
pub(super) type Plain = unsafe extern "C-unwind" fn(*mut c_void);

/// A C function whose address is known.
pub(super) trait Address: Copy + 'static {
    fn address(self) -> *mut c_void;
}

/// Implements `call` and `Address` for a type of C functions.
macro_rules! call {
    (
        [$($Type:ident),*] $Function:ty,
        |$function:ident, $arg:ident, $($given:ident: $Given:ty),*| $call:expr
    ) => {
        impl<$($Type),*> CCallback<$Function> {
            pub(super) fn call(&self, $($given: $Given),*) {
                let CCallback($function, $arg) = *self;
                // SAFETY: C promises that the function may be called with this argument
                // (`Function`).
                unsafe { $call }
            }
        }

        impl<$($Type: 'static),*> Address for $Function {
            fn address(self) -> *mut c_void {
                self as *mut c_void
            }
        }
    };
}

call!([] Plain, |function, arg, | function(arg));
call!([] Call, |function, arg, lp: &Loop| function(as_c(lp), arg));
call!([A] Call1<A>, |function, arg, lp: &Loop, a: A| function(as_c(lp), a, arg));
call!([A, B] Call2<A, B>, |function, arg, lp: &Loop, a: A, b: B| function(as_c(lp), a, b, arg));
call!(
    [A, B, C] Call3<A, B, C>,
    |function, arg, lp: &Loop, a: A, b: B, c: C| function(as_c(lp), a, b, c, arg)
);

/// A C function that a loop calls. `tell` calls the function with values of the event.
pub(super) trait Told: Address {
    fn tell(callback: &CCallback<Self>, lp: &Loop, event: &Event);
}

/// `loop_release_t`.
impl Told for Plain {
    fn tell(callback: &CCallback<Plain>, _: &Loop, _: &Event) {
        callback.call();
    }
}

/// `loop_callback_t`.
impl Told for Call {
    fn tell(callback: &CCallback<Call>, lp: &Loop, _: &Event) {
        callback.call(lp);
    }
}

/// `loop_signal_callback_t`, `loop_done_t`.
impl Told for Call1<c_int> {
    fn tell(callback: &CCallback<Self>, lp: &Loop, event: &Event) {
        match *event {
            Event::Signal(signal) => callback.call(lp, signal),
            _ => callback.call(lp, event.completed().result),
        }
    }
}

/// `loop_io_callback_t`, `loop_fd_callback_t`.
impl Told for Call2<i32, u32> {
    fn tell(callback: &CCallback<Self>, lp: &Loop, event: &Event) {
        match *event {
            Event::Ready(fd, events) => callback.call(lp, fd, events),
            _ => {
                let OpResult { result, flags, .. } = event.completed();
                callback.call(lp, result, flags);
            }
        }
    }
}

/// `loop_recv_callback_t`.
impl Told for Call3<i32, *const c_void, u32> {
    fn tell(callback: &CCallback<Self>, lp: &Loop, event: &Event) {
        let OpResult { result, flags, data } = event.completed();
        callback.call(lp, result, data.cast(), flags);
    }
}

/// `loop_child_callback_t`.
impl Told for Call2<c_int, c_int> {
    fn tell(callback: &CCallback<Self>, lp: &Loop, event: &Event) {
        let Event::Exited(pid, status) = *event else {
            unreachable!("a child's watcher was called for {event:?}")
        };
        callback.call(lp, pid, status);
    }
}

impl<F: Address> CCallback<F> {
    fn source(&self) -> Source {
        Source::C(CFunction { address: self.0.address(), arg: self.1 })
    }

    /// A closure that calls the function once. The function is the source of the callback.
    pub(super) fn once(self, call: impl FnOnce(&Self, &Loop) + 'static) -> Result<Callback> {
        Callback::new(Prepared(self, call))
    }
}

impl<F: Told> Callable<Loop> for CCallback<F> {
    const ONCE: bool = false;

    fn call(&mut self, lp: &Loop, event: &Event) {
        F::tell(self, lp, event);
    }

    fn call_once(self, lp: &Loop, event: &Event) {
        F::tell(&self, lp, event);
    }

    fn source_of_type() -> Source {
        Source::Rust("a C function")
    }

    fn source(&self) -> Source {
        CCallback::source(self)
    }
}

impl<F: Told> From<CCallback<F>> for Callback {
    fn from(callback: CCallback<F>) -> Callback {
        Callback::inline(callback)
    }
}

impl Function<'_, loop_release_t> {
    /// A release hook for the argument of a callback; None for NULL.
    ///
    /// # Safety
    /// The argument is that of the callback for which C gives the hook.
    pub(super) unsafe fn for_arg(self, arg: *mut c_void) -> Option<Callback> {
        self.0.map(|release| CCallback(release, arg).into())
    }
}

/// A C function that is posted, with a release hook for its argument, or with `()`.
pub(super) struct CPost<R> {
    callback: CCallback<Call>,
    release: R,
}

// SAFETY: C promises that function, hook and argument may be used on the loop's thread
// (`Function`).
unsafe impl<R> Send for CPost<R> {}

/// Posts a C function, as `Shared::post` does.
pub(super) fn post<'a>(
    shared: &Shared,
    delay: Option<u64>,
    callback: Function<'a, loop_callback_t>,
    release: Option<Function<'a, loop_release_t>>,
    arg: &Arg<'a>,
) -> Result<()> {
    let callback = callback.with(arg)?;
    match release.and_then(|release| release.0) {
        None => shared.post(CPost { callback, release: () }, delay).map_err(|(_, error)| error),
        Some(release) => {
            shared.post(CPost { callback, release }, delay).map_err(|(_, error)| error)
        }
    }
}

impl Posted<Loop> for CPost<()> {
    fn unpack(post: impl Open<CPost<()>>) -> Held {
        Held { callback: post.open().callback.into(), release: None }
    }
}

impl Posted<Loop> for CPost<Plain> {
    fn unpack(post: impl Open<CPost<Plain>>) -> Held {
        let CPost { callback, release } = post.open();
        Held { release: Some(CCallback(release, callback.1).into()), callback: callback.into() }
    }
}

/// A C function, and a closure that calls it.
struct Prepared<F, C>(CCallback<F>, C);

impl<F: Address, C: FnOnce(&CCallback<F>, &Loop)> Callable<Loop> for Prepared<F, C> {
    const ONCE: bool = true;

    fn call(&mut self, _: &Loop, _: &Event) {}

    fn call_once(self, lp: &Loop, _: &Event) {
        (self.1)(&self.0, lp);
    }

    fn source_of_type() -> Source {
        Source::Rust("a C function")
    }

    fn source(&self) -> Source {
        self.0.source()
    }
}
