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
use crate::sys::memory::{prefetch_at, try_box};

/// Room for what a callback carries inline.
type Data = [Word; 2];
type Word = MaybeUninit<usize>;

/// How much of a task is fetched before it is polled: its head, and the beginning of its future.
const TASK_LINES: usize = 3;

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

    /// Polls a task. It may borrow what does not live for ever, if it is dropped before that is gone.
    pub(crate) fn for_task<T: Polled>(task: T) -> Callback {
        const { assert!(fits::<T>()) };
        Callback::store::<T>(task, Polling::<T>::TABLE)
    }

    /// Has the task that this callback polls fetched into the cache.
    #[inline]
    pub(crate) fn prefetch_task(&self) {
        // SAFETY: what polls a task begins with its address.
        prefetch_at(std::ptr::without_provenance(unsafe { self.data[0].assume_init() }), TASK_LINES);
    }

    /// A task's callback, to be called while it stays where it is: it must not be dropped meanwhile.
    #[inline]
    pub(crate) fn lend(&self) -> ManuallyDrop<Callback> {
        ManuallyDrop::new(Callback { table: self.table, data: self.data })
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

/// A task, as its callback has it: two words or less.
pub(crate) trait Polled {
    /// By whose name it is known.
    type Future;

    fn poll(&self, lp: &Loop);
}

struct Polling<T>(T);

impl<T: Polled> Polling<T> {
    const TABLE: &'static Table = &Table {
        call_once: |first, second, _| {
            let mut data: Data = [first, second];
            // SAFETY: the data is a `T`, which is dropped once.
            unsafe { drop_as::<T>(&mut data) }
        },
        call: |callback, lp| {
            // SAFETY: the data is a `T`, borrowed for the call alone.
            unsafe { &*callback.data.as_ptr().cast::<T>() }.poll(lp);
        },
        drop: drop_as::<T>,
        needs_drop: true,
        describe: describe_as::<T::Future>,
        stand_in: StandIn::<T::Future>::TABLE,
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
pub(crate) mod c;

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
