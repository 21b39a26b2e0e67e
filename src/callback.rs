//! A stored callback: what to call, and what it carries.
//!
//! A closure of two words or less and a C function with its argument are stored inline and cost no allocation;
//! anything larger is boxed. A callback can be called again after it has run: a closure that runs once has then
//! nothing left to do. `unsafe` lives here because the type of what is stored is known only to the table of functions
//! that was made for it.

use std::fmt;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit, align_of, needs_drop, size_of};

use crate::error::Result;
use crate::event_loop::Loop;
use crate::memory::try_box;

/// Room for what a callback carries inline.
type Data = [Word; 2];
type Word = MaybeUninit<usize>;

/// A callback and what it carries. Dropping it drops what it carries.
pub(crate) struct Callback {
    table: &'static Table,
    data: Data,
}

/// The functions for one type of callback. Each takes the data of a callback that was made with this table.
struct Table {
    /// Calls it for the last time, and drops what it carries. The data comes by value, in two registers.
    call_once: unsafe fn(Word, Word, &Loop),
    call: unsafe fn(&mut Callback, &Loop),
    drop: unsafe fn(&mut Data),
    needs_drop: bool,
    describe: unsafe fn(&Data) -> Source,
    /// A table that describes the same callback, and does nothing else with its data.
    stand_in: &'static Table,
}

/// What a callback is, for the reports to people.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// The type of a closure.
    Rust(&'static str),
    #[cfg(feature = "capi")]
    C(CFunction),
}

/// The address of a C function and the argument it gets.
#[cfg(feature = "capi")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct CFunction {
    pub(crate) address: *mut libc::c_void,
    pub(crate) arg: *mut libc::c_void,
}

impl Callback {
    /// Does nothing, carries nothing.
    pub(crate) const EMPTY: Callback = Callback { table: &EMPTY, data: [Word::uninit(); 2] };

    /// A closure that runs once.
    pub(crate) fn once<F: FnOnce(&Loop) + 'static>(f: F) -> Result<Callback> {
        if fits::<F>() { Ok(Callback::store::<F>(f, Once::<F>::INLINE)) } else { Callback::boxed(f, Once::<F>::BOXED) }
    }

    /// Whether a closure is stored inline.
    pub(crate) const fn is_inline<F>() -> bool {
        fits::<F>()
    }

    /// As `once`, for a closure that is stored inline.
    pub(crate) fn once_inline<F: FnOnce(&Loop) + 'static>(f: F) -> Callback {
        Callback::store::<F>(f, Once::<F>::INLINE)
    }

    /// As `once`, for a closure of two words or less that calls a `D`, by whose name it is known.
    pub(crate) fn once_for<D: 'static, F: FnOnce(&Loop) + 'static>(f: F) -> Callback {
        const { assert!(fits::<F>()) };
        Callback::store::<F>(f, Once::<F, D>::INLINE)
    }

    /// A closure that runs many times.
    pub(crate) fn many<F: FnMut(&Loop) + 'static>(f: F) -> Result<Callback> {
        if fits::<F>() { Ok(Callback::store::<F>(f, Many::<F>::INLINE)) } else { Callback::boxed(f, Many::<F>::BOXED) }
    }

    /// Calls it for the last time.
    #[inline]
    pub(crate) fn call_once(self, lp: &Loop) {
        let this = ManuallyDrop::new(self);
        let [first, second] = this.data;
        // SAFETY: `data` was stored by the constructor that chose `table`, and is not used again.
        unsafe { (this.table.call_once)(first, second, lp) }
    }

    /// Calls it. A closure that runs once is gone afterwards, and with it what it carried.
    #[inline]
    pub(crate) fn call(&mut self, lp: &Loop) {
        // SAFETY: `data` was stored by the constructor that chose `table`, and nothing else writes either of them.
        unsafe { (self.table.call)(self, lp) }
    }

    pub(crate) fn source(&self) -> Source {
        // SAFETY: `data` was stored by the constructor that chose `table`.
        unsafe { (self.table.describe)(&self.data) }
    }

    /// Whether dropping it does anything.
    #[inline]
    pub(crate) fn needs_drop(&self) -> bool {
        self.table.needs_drop
    }

    /// Takes the callback out and leaves one that needs no drop: nothing is written if it is one itself.
    #[inline]
    pub(crate) fn take(&mut self) -> Callback {
        let taken = Callback { table: self.table, data: self.data };
        if taken.needs_drop() {
            self.table = &EMPTY;
        }
        taken
    }

    /// Drops it, on a path that is seldom taken: its words go there in registers, so that they need not be in memory on
    /// the other path either.
    #[inline(always)]
    pub(crate) fn refuse(this: ManuallyDrop<Callback>) {
        #[cold]
        fn drop_words(table: &'static Table, first: Word, second: Word) {
            drop(Callback { table, data: [first, second] });
        }
        let [first, second] = this.data;
        drop_words(this.table, first, second);
    }

    /// Puts it in the place of one that needs no drop, and that is not even read: it may be far away in memory.
    #[inline(always)]
    pub(crate) fn put_over(self, place: &mut Callback) {
        debug_assert!(!place.needs_drop());
        std::mem::forget(std::mem::replace(place, self));
    }

    /// What describes this callback while the callback itself is elsewhere. Calling it does nothing.
    pub(crate) fn stand_in(&self) -> Callback {
        Callback { table: self.table.stand_in, data: self.data }
    }

    /// Stores a value inline; `table` is one made for a `T` stored inline.
    fn store<T>(value: T, table: &'static Table) -> Callback {
        const { assert!(size_of::<Data>() == 16 && align_of::<Data>() == 8) };
        assert!(fits::<T>());
        let mut data: Data = [Word::uninit(); 2];
        // SAFETY: `fits` says that a `T` has room in `data`, in size and in alignment.
        unsafe { data.as_mut_ptr().cast::<T>().write(value) };
        Callback { table, data }
    }

    fn boxed<F: 'static>(f: F, table: &'static Table) -> Result<Callback> {
        Ok(Callback::store(try_box(f)?, table))
    }
}

impl Drop for Callback {
    #[inline]
    fn drop(&mut self) {
        if self.table.needs_drop {
            // SAFETY: `data` was stored by the constructor that chose `table`, and a dropped callback is used no more.
            unsafe { (self.table.drop)(&mut self.data) }
        }
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source().fmt(f)
    }
}

const fn fits<T>() -> bool {
    size_of::<T>() <= size_of::<Data>() && align_of::<T>() <= align_of::<Data>()
}

static EMPTY: Table = Table {
    call_once: |_, _, _| {},
    call: |_, _| {},
    drop: |_| {},
    needs_drop: false,
    describe: |_| Source::Rust("nothing"),
    stand_in: &EMPTY,
};

/// Describes an `F` and does nothing.
struct StandIn<F>(F);

impl<F> StandIn<F> {
    const TABLE: &'static Table = &Table {
        call_once: |_, _, _| {},
        call: |_, _| {},
        drop: |_| {},
        needs_drop: false,
        describe: describe_as::<F>,
        stand_in: &EMPTY,
    };
}

fn describe_as<F>(_: &Data) -> Source {
    Source::Rust(std::any::type_name::<F>())
}

/// Calls an `F`, and is known by the name of a `D`.
struct Once<F, D = F>(PhantomData<(F, D)>);

impl<F: FnOnce(&Loop) + 'static, D: 'static> Once<F, D> {
    const INLINE: &'static Table = &Table {
        call_once: |first, second, lp| {
            let data: Data = [first, second];
            // SAFETY: the data is an `F`, which is read once.
            let f = unsafe { data.as_ptr().cast::<F>().read() };
            f(lp);
        },
        call: |callback, lp| {
            // SAFETY: the data is an `F`, which is read once: the empty table says from here on that it is gone.
            let f = unsafe { callback.data.as_ptr().cast::<F>().read() };
            callback.table = &EMPTY;
            f(lp);
        },
        drop: drop_as::<F>,
        needs_drop: needs_drop::<F>(),
        describe: describe_as::<D>,
        stand_in: StandIn::<D>::TABLE,
    };
    const BOXED: &'static Table = &Table {
        call_once: |first, second, lp| {
            let data: Data = [first, second];
            // SAFETY: the data is a `Box<F>`, which is read once.
            let f = unsafe { data.as_ptr().cast::<Box<F>>().read() };
            f(lp);
        },
        call: |callback, lp| {
            // SAFETY: the data is a `Box<F>`, which is read once: the empty table says from here on that it is gone.
            let f = unsafe { callback.data.as_ptr().cast::<Box<F>>().read() };
            callback.table = &EMPTY;
            f(lp);
        },
        drop: drop_as::<Box<F>>,
        needs_drop: true,
        describe: describe_as::<D>,
        stand_in: StandIn::<D>::TABLE,
    };
}

struct Many<F>(F);

impl<F: FnMut(&Loop) + 'static> Many<F> {
    const INLINE: &'static Table = &Table {
        call_once: |first, second, lp| {
            let data: Data = [first, second];
            // SAFETY: the data is an `F`, which is read once.
            let mut f = unsafe { data.as_ptr().cast::<F>().read() };
            f(lp);
        },
        call: |callback, lp| {
            // SAFETY: the data is an `F`, borrowed for the call alone.
            let f = unsafe { &mut *callback.data.as_mut_ptr().cast::<F>() };
            f(lp);
        },
        drop: drop_as::<F>,
        needs_drop: needs_drop::<F>(),
        describe: describe_as::<F>,
        stand_in: StandIn::<F>::TABLE,
    };
    const BOXED: &'static Table = &Table {
        call_once: |first, second, lp| {
            let data: Data = [first, second];
            // SAFETY: the data is a `Box<F>`, which is read once.
            let mut f = unsafe { data.as_ptr().cast::<Box<F>>().read() };
            f(lp);
        },
        call: |callback, lp| {
            // SAFETY: the data is a `Box<F>`, borrowed for the call alone.
            let f = unsafe { &mut *callback.data.as_mut_ptr().cast::<Box<F>>() };
            f(lp);
        },
        drop: drop_as::<Box<F>>,
        needs_drop: true,
        describe: describe_as::<F>,
        stand_in: StandIn::<F>::TABLE,
    };
}

/// # Safety
/// `data` holds a `T`, which is used no more.
unsafe fn drop_as<T>(data: &mut Data) {
    // SAFETY: the caller says that a `T` is there and that this is its end.
    unsafe { data.as_mut_ptr().cast::<T>().drop_in_place() }
}

#[cfg(feature = "capi")]
pub(crate) mod c {
    //! C functions as callbacks. They may be called any number of times; dropping them does nothing.

    use libc::{c_int, c_void, pid_t};

    use std::marker::PhantomData;

    use super::{CFunction, Callback, Data, EMPTY, Source, Table};
    use crate::error::Result;
    use crate::event_loop::Loop;
    use crate::op::driver::Given;

    /// `loop_callback_t`. The ABI lets a C++ exception arrive here, where it aborts with a message (S30).
    pub(crate) type Call = unsafe extern "C-unwind" fn(*mut Loop, *mut c_void);
    /// `loop_signal_callback_t`.
    pub(crate) type Signal = unsafe extern "C-unwind" fn(*mut Loop, c_int, *mut c_void);
    /// `loop_io_callback_t`.
    pub(crate) type Io = unsafe extern "C-unwind" fn(*mut Loop, i32, u32, *mut c_void);
    /// `loop_fd_callback_t`.
    pub(crate) type Watch = unsafe extern "C-unwind" fn(*mut Loop, c_int, u32, *mut c_void);
    /// `loop_recv_callback_t`.
    pub(crate) type Recv = unsafe extern "C-unwind" fn(*mut Loop, i32, *const c_void, u32, *mut c_void);
    /// `loop_done_t`.
    pub(crate) type Done = unsafe extern "C-unwind" fn(*mut Loop, c_int, *mut c_void);
    /// `loop_child_callback_t`.
    pub(crate) type Child = unsafe extern "C-unwind" fn(*mut Loop, pid_t, c_int, *mut c_void);
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

    static CALL: Table = Table {
        call_once: |first, second, lp| {
            let data: Data = [first, second];
            // SAFETY: the data is what `c_call` stored, and its caller vouched for the call.
            unsafe {
                let (function, arg) = data.as_ptr().cast::<(Call, *mut c_void)>().read();
                function(lp.as_c(), arg);
            }
        },
        // SAFETY: as for `call_once`, which a C function does not mind.
        call: |callback, lp| unsafe { (CALL.call_once)(callback.data[0], callback.data[1], lp) },
        drop: |_| {},
        needs_drop: false,
        describe: describe_call,
        stand_in: &CALL_STAND_IN,
    };

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

    static SIGNAL: Table = Table {
        call_once: |first, second, lp| {
            let data: Data = [first, second];
            // SAFETY: the data is what `c_signal` stored, and its caller vouched for the call.
            unsafe {
                let (function, arg) = data.as_ptr().cast::<(Signal, *mut c_void)>().read();
                function(lp.as_c(), lp.current_signal(), arg);
            }
        },
        // SAFETY: as for `call_once`, which a C function does not mind.
        call: |callback, lp| unsafe { (SIGNAL.call_once)(callback.data[0], callback.data[1], lp) },
        drop: |_| {},
        needs_drop: false,
        describe: describe_call,
        stand_in: &CALL_STAND_IN,
    };

    static IO: Table = Table {
        call_once: |first, second, lp| {
            let data: Data = [first, second];
            let Given { result, flags, .. } = lp.result.get();
            // SAFETY: the data is what `c_io` stored, and its caller vouched for the call.
            unsafe {
                let (function, arg) = data.as_ptr().cast::<(Io, *mut c_void)>().read();
                function(lp.as_c(), result, flags, arg);
            }
        },
        // SAFETY: as for `call_once`, which a C function does not mind.
        call: |callback, lp| unsafe { (IO.call_once)(callback.data[0], callback.data[1], lp) },
        drop: |_| {},
        needs_drop: false,
        describe: describe_call,
        stand_in: &CALL_STAND_IN,
    };

    static WATCH: Table = Table {
        call_once: |first, second, lp| {
            let data: Data = [first, second];
            let Given { result: fd, flags: events, .. } = lp.result.get();
            // SAFETY: the data is what `c_watch` stored, and its caller vouched for the call.
            unsafe {
                let (function, arg) = data.as_ptr().cast::<(Watch, *mut c_void)>().read();
                function(lp.as_c(), fd, events, arg);
            }
        },
        // SAFETY: as for `call_once`, which a C function does not mind.
        call: |callback, lp| unsafe { (WATCH.call_once)(callback.data[0], callback.data[1], lp) },
        drop: |_| {},
        needs_drop: false,
        describe: describe_call,
        stand_in: &CALL_STAND_IN,
    };

    static DONE: Table = Table {
        call_once: |first, second, lp| {
            let data: Data = [first, second];
            // SAFETY: the data is what `c_done` stored, and its caller vouched for the call.
            unsafe {
                let (function, arg) = data.as_ptr().cast::<(Done, *mut c_void)>().read();
                function(lp.as_c(), lp.result.get().result, arg);
            }
        },
        // SAFETY: as for `call_once`, which a C function does not mind.
        call: |callback, lp| unsafe { (DONE.call_once)(callback.data[0], callback.data[1], lp) },
        drop: |_| {},
        needs_drop: false,
        describe: describe_call,
        stand_in: &CALL_STAND_IN,
    };

    static RECV: Table = Table {
        call_once: |first, second, lp| {
            let words: Data = [first, second];
            let Given { result, flags, data } = lp.result.get();
            // SAFETY: the words are what `c_recv` stored, and its caller vouched for the call.
            unsafe {
                let (function, arg) = words.as_ptr().cast::<(Recv, *mut c_void)>().read();
                function(lp.as_c(), result, data.cast(), flags, arg);
            }
        },
        // SAFETY: as for `call_once`, which a C function does not mind.
        call: |callback, lp| unsafe { (RECV.call_once)(callback.data[0], callback.data[1], lp) },
        drop: |_| {},
        needs_drop: false,
        describe: describe_call,
        stand_in: &CALL_STAND_IN,
    };

    static CHILD: Table = Table {
        call_once: |first, second, lp| {
            let data: Data = [first, second];
            let (pid, status) = lp.ended_child();
            // SAFETY: the data is what `c_child` stored, and its caller vouched for the call.
            unsafe {
                let (function, arg) = data.as_ptr().cast::<(Child, *mut c_void)>().read();
                function(lp.as_c(), pid, status, arg);
            }
        },
        // SAFETY: as for `call_once`, which a C function does not mind.
        call: |callback, lp| unsafe { (CHILD.call_once)(callback.data[0], callback.data[1], lp) },
        drop: |_| {},
        needs_drop: false,
        describe: describe_call,
        stand_in: &CALL_STAND_IN,
    };

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
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn two_words_are_stored_inline_and_three_are_boxed() {
        assert!(fits::<[usize; 2]>() && !fits::<[usize; 3]>() && !fits::<u128>());
        assert_eq!(size_of::<Callback>(), 24);
    }

    #[test]
    fn what_a_closure_carries_is_dropped_once() {
        let token = Rc::new(());
        let lp = Loop::new().unwrap();
        for large in [false, true] {
            let (t, room) = (Rc::clone(&token), [0usize; 8]);
            let mut callback = if large {
                Callback::once(move |_: &Loop| drop((t, std::hint::black_box(room)))).unwrap()
            } else {
                Callback::once(move |_: &Loop| drop(t)).unwrap()
            };
            assert_eq!(Rc::strong_count(&token), 2);
            callback.call(&lp);
            assert_eq!(Rc::strong_count(&token), 1);
            callback.call(&lp);
            drop(callback);
            assert_eq!(Rc::strong_count(&token), 1);

            let (t, room) = (Rc::clone(&token), [0usize; 8]);
            let unused = if large {
                Callback::many(move |_: &Loop| drop((Rc::clone(&t), std::hint::black_box(room)))).unwrap()
            } else {
                Callback::many(move |_: &Loop| drop(Rc::clone(&t))).unwrap()
            };
            assert_eq!(Rc::strong_count(&token), 2);
            drop(unused);
            assert_eq!(Rc::strong_count(&token), 1);
        }
    }
}
