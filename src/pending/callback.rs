//! A stored callback: a function and the values that it owns.
//!
//! A closure of at most two words, or a C function with its argument, is stored inline without an
//! allocation; larger closures are boxed. A callback that runs once may be called again, which does
//! nothing. `L` is the type of the loop that is passed to the call; this room does not use it.
//!
//! `unsafe` is here because only the function table made for a stored value knows its type: the
//! table of `T` is paired with data that is a `T`, from `inline_borrowing` until the callback is
//! dropped or called for the last time.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit, needs_drop};
use std::ptr;

use super::event::Event;
use crate::abi::source::Source;
use crate::error::Result;
use crate::sys::memory::{prefetch_at, try_box};

type Data = [Word; 2];
/// A pointer, so that a callback is not `Send`: it may hold values of one thread.
type Word = MaybeUninit<*const u8>;

/// The number of prefetched cache lines: a task's header, and the beginning of its future.
const LINES: usize = 3;

/// A callback and its values. Dropping it drops the values.
pub(crate) struct Callback<L: 'static> {
    table: &'static Table<L>,
    data: Data,
}

/// A callback without a loop, which is called once, on any thread.
pub(crate) struct Job(Callback<()>);

// SAFETY: the bound of `new`, the only constructor, guarantees a closure that is `Send`.
unsafe impl Send for Job {}

impl Job {
    /// Allocates nothing for a closure of two words or less.
    pub(crate) fn new(f: impl FnOnce() + Send + 'static) -> Result<Job> {
        Callback::once(move |(): &()| f()).map(Job)
    }

    pub(crate) fn run(self) {
        self.0.call_once(&(), &Event::Turn);
    }
}

pub(crate) trait Callable<L> {
    /// Whether the first call consumes the value.
    const ONCE: bool;

    /// Calls it. Not used if `ONCE` is set.
    fn call(&mut self, lp: &L, event: &Event);

    fn call_once(self, lp: &L, event: &Event);

    /// Describes the callback in reports, as far as its type is known.
    fn source_of_type() -> Source;

    fn source(&self) -> Source {
        Self::source_of_type()
    }

    /// The memory that a call reads first, for prefetching; null if there is none beyond the value.
    fn memory(&self) -> *const u8 {
        ptr::null()
    }
}

/// The functions for one type of callback. Each takes the data of a callback that was made with
/// this table.
struct Table<L: 'static> {
    /// Calls the callback for the last time, and drops its values. The data comes by value, in two
    /// registers.
    call_once: unsafe fn(Word, Word, &L, &Event),
    call: unsafe fn(&mut Callback<L>, &L, &Event),
    drop: unsafe fn(&mut Data),
    needs_drop: bool,
    describe: unsafe fn(&Data) -> Source,
    memory: unsafe fn(&Data) -> *const u8,
    /// A table that describes the same callback and ignores its data; None: this table is one.
    stand_in: Option<&'static Table<L>>,
}

impl<L: 'static> Table<L> {
    /// A table for any data, which it ignores.
    const NOTHING: &'static Table<L> = &Table {
        call_once: |_, _, _, _| {},
        call: |_, _, _| {},
        drop: |_| {},
        needs_drop: false,
        describe: |_| Source::Rust("nothing"),
        memory: |_| ptr::null(),
        stand_in: None,
    };
}

impl<L: 'static> Callback<L> {
    pub(crate) const EMPTY: Callback<L> =
        Callback { table: Table::NOTHING, data: [Word::uninit(); 2] };

    pub(crate) fn once<F: FnOnce(&L) + 'static>(f: F) -> Result<Callback<L>> {
        Callback::once_for::<F, _>(move |lp: &L, _: &Event| f(lp))
    }

    /// The same, for a closure that takes the event.
    pub(crate) fn once_event<F: FnOnce(&L, &Event) + 'static>(f: F) -> Result<Callback<L>> {
        Callback::once_for::<F, _>(f)
    }

    /// The same, for a closure that is described by the type name of `D`.
    pub(crate) fn once_for<D: 'static, F: FnOnce(&L, &Event) + 'static>(
        f: F,
    ) -> Result<Callback<L>> {
        Callback::new(Once(f, PhantomData::<D>))
    }

    pub(crate) fn many<F: FnMut(&L) + 'static>(mut f: F) -> Result<Callback<L>> {
        Callback::new(Many(move |lp: &L, _: &Event| f(lp), PhantomData::<F>))
    }

    /// The same, for a closure that takes the event.
    pub(crate) fn many_event<F: FnMut(&L, &Event) + 'static>(f: F) -> Result<Callback<L>> {
        Callback::new(Many(f, PhantomData::<F>))
    }

    /// Stores any callable value: inline if it fits, otherwise in a box.
    #[inline]
    pub(crate) fn new<T: Callable<L> + 'static>(value: T) -> Result<Callback<L>> {
        Ok(if fits::<T>() { Callback::inline(value) } else { Callback::inline(try_box(value)?) })
    }

    /// Stores a value of at most two words.
    #[inline]
    pub(crate) fn inline<T: Callable<L> + 'static>(value: T) -> Callback<L> {
        // SAFETY: the bound `T: 'static` guarantees that the value borrows nothing.
        unsafe { Callback::inline_borrowing(value) }
    }

    /// The same for a value that may borrow.
    ///
    /// # Safety
    /// The callback is dropped before the end of the borrowed data; of its stand-in, only the type
    /// is used afterwards.
    #[inline]
    pub(crate) unsafe fn inline_borrowing<T: Callable<L>>(value: T) -> Callback<L> {
        assert!(fits::<T>());
        let mut data: Data = [Word::uninit(); 2];
        // SAFETY: `fits`, asserted above, guarantees that `data` has the size and the alignment of
        // a `T`.
        unsafe { data.as_mut_ptr().cast::<T>().write(value) };
        Callback { table: TablesOf::<L, T>::TABLE, data }
    }

    pub(crate) const fn is_inline<F>() -> bool {
        fits::<F>()
    }

    /// Prefetches the memory that a call reads first.
    #[inline]
    pub(crate) fn prefetch(&self) {
        // SAFETY: the constructor that chose `table` stored `data`.
        prefetch_at(unsafe { (self.table.memory)(&self.data) }, LINES);
    }

    /// Takes the callback out while it runs. The stand-in that stays only describes it.
    #[inline]
    pub(crate) fn lend(&mut self) -> Callback<L> {
        let lent = Callback { table: self.table, data: self.data };
        self.table = self.table.stand_in.unwrap_or(self.table);
        lent
    }

    #[inline]
    pub(crate) fn call_once(self, lp: &L, event: &Event) {
        let this = ManuallyDrop::new(self);
        let [first, second] = this.data;
        // SAFETY: the constructor that chose `table` stored `data`, which `ManuallyDrop` keeps from
        // reuse.
        unsafe { (this.table.call_once)(first, second, lp, event) }
    }

    /// Calls the callback. A closure that runs once is consumed, with its values.
    #[inline]
    pub(crate) fn call(&mut self, lp: &L, event: &Event) {
        // SAFETY: the constructor that chose `table` stored `data`, and only `call` and `take`
        // write them.
        unsafe { (self.table.call)(self, lp, event) }
    }

    pub(crate) fn source(&self) -> Source {
        // SAFETY: the constructor that chose `table` stored `data`.
        unsafe { (self.table.describe)(&self.data) }
    }

    #[inline]
    pub(crate) fn needs_drop(&self) -> bool {
        self.table.needs_drop
    }

    /// Takes the callback out and leaves an empty one.
    #[inline]
    pub(crate) fn take(&mut self) -> Callback<L> {
        let taken = Callback { table: self.table, data: self.data };
        self.table = Table::NOTHING;
        taken
    }

    /// Drops the callback on a cold path. Its words are passed in registers, so that the hot path
    /// need not store them in memory either.
    #[inline(always)]
    pub(crate) fn refuse(this: ManuallyDrop<Callback<L>>) {
        #[cold]
        fn drop_words<L>(table: &'static Table<L>, first: Word, second: Word) {
            drop(Callback { table, data: [first, second] });
        }
        let [first, second] = this.data;
        drop_words(this.table, first, second);
    }

    /// Overwrites a callback that needs no drop, without reading it, because it may not be in the
    /// cache.
    #[inline(always)]
    pub(crate) fn put_over(self, place: &mut Callback<L>) {
        debug_assert!(!place.needs_drop());
        std::mem::forget(std::mem::replace(place, self));
    }
}

impl<L> Drop for Callback<L> {
    #[inline]
    fn drop(&mut self) {
        if self.table.needs_drop {
            // SAFETY: the constructor that chose `table` stored `data`, and a dropped callback is
            // not used again.
            unsafe { (self.table.drop)(&mut self.data) }
        }
    }
}

impl<L> fmt::Debug for Callback<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source().fmt(f)
    }
}

const fn fits<T>() -> bool {
    size_of::<T>() <= size_of::<Data>() && align_of::<T>() <= align_of::<Data>()
}

struct TablesOf<L, T>(PhantomData<(L, T)>);

impl<L: 'static, T: Callable<L>> TablesOf<L, T> {
    const TABLE: &'static Table<L> = &Table {
        call_once: |first, second, lp, event| {
            let data: Data = [first, second];
            // SAFETY: the table belongs to data that is a `T`, which is read once.
            unsafe { data.as_ptr().cast::<T>().read() }.call_once(lp, event);
        },
        call: |callback, lp, event| {
            let this = callback.data.as_mut_ptr().cast::<T>();
            if T::ONCE {
                // SAFETY: the table belongs to data that is a `T`; it is read once, because the
                // callback gets the empty table below.
                let this = unsafe { this.read() };
                callback.table = Table::NOTHING;
                this.call_once(lp, event);
            } else {
                // SAFETY: the table belongs to data that is a `T`, borrowed only during the call.
                unsafe { &mut *this }.call(lp, event);
            }
        },
        // SAFETY: the table belongs to data that is a `T`, and the caller does not use it again.
        drop: |data| unsafe { data.as_mut_ptr().cast::<T>().drop_in_place() },
        needs_drop: needs_drop::<T>(),
        // SAFETY: the table belongs to data that is a `T`.
        describe: |data| unsafe { &*data.as_ptr().cast::<T>() }.source(),
        // SAFETY: the table belongs to data that is a `T`.
        memory: |data| unsafe { &*data.as_ptr().cast::<T>() }.memory(),
        stand_in: Some(Self::STAND_IN),
    };
    /// Describes a `T` that was taken out; the data is still a copy only if a `T` needs no drop.
    const STAND_IN: &'static Table<L> = &Table {
        describe: |data| match needs_drop::<T>() {
            true => T::source_of_type(),
            // SAFETY: the data is a copy of a `T`, which `needs_drop` shows to own nothing.
            false => unsafe { &*data.as_ptr().cast::<T>() }.source(),
        },
        ..*Table::NOTHING
    };
}

/// Calls an `F` once, and is described by the type name of `D`.
struct Once<F, D>(F, PhantomData<D>);

impl<L, F: FnOnce(&L, &Event), D> Callable<L> for Once<F, D> {
    const ONCE: bool = true;

    fn call(&mut self, _: &L, _: &Event) {}

    fn call_once(self, lp: &L, event: &Event) {
        (self.0)(lp, event);
    }

    fn source_of_type() -> Source {
        Source::Rust(type_name::<D>())
    }
}

/// Calls an `F` any number of times, and is described by the type name of `D`.
struct Many<F, D>(F, PhantomData<D>);

impl<L, F: FnMut(&L, &Event), D> Callable<L> for Many<F, D> {
    const ONCE: bool = false;

    fn call(&mut self, lp: &L, event: &Event) {
        (self.0)(lp, event);
    }

    fn call_once(mut self, lp: &L, event: &Event) {
        (self.0)(lp, event);
    }

    fn source_of_type() -> Source {
        Source::Rust(type_name::<D>())
    }
}

impl<L, T: Callable<L>> Callable<L> for Box<T> {
    const ONCE: bool = T::ONCE;

    fn call(&mut self, lp: &L, event: &Event) {
        (**self).call(lp, event);
    }

    fn call_once(self, lp: &L, event: &Event) {
        (*self).call_once(lp, event);
    }

    fn source_of_type() -> Source {
        T::source_of_type()
    }

    fn source(&self) -> Source {
        (**self).source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn two_words_are_stored_inline_and_three_are_boxed() {
        assert!(fits::<[usize; 2]>() && !fits::<[usize; 3]>() && !fits::<u128>());
        assert_eq!(size_of::<Callback<()>>(), 24);
    }

    #[test]
    fn what_a_closure_carries_is_dropped_once() {
        let token = Rc::new(());
        let large = |token: Rc<()>| {
            let room = [0usize; 8];
            move |&(): &()| drop((Rc::clone(&token), std::hint::black_box(room)))
        };
        let small = |token: Rc<()>| move |&(): &()| drop(Rc::clone(&token));
        for (mut callback, is_once) in [
            (Callback::once(small(token.clone())).unwrap(), true),
            (Callback::once(large(token.clone())).unwrap(), true),
            (Callback::many(small(token.clone())).unwrap(), false),
            (Callback::many(large(token.clone())).unwrap(), false),
        ] {
            let owners = Rc::strong_count(&token);
            callback.call(&(), &Event::Turn);
            callback.call(&(), &Event::Turn);
            assert_eq!(Rc::strong_count(&token), owners - usize::from(is_once));
            let mut place = callback;
            let lent = place.lend();
            drop(place);
            assert_eq!(Rc::strong_count(&token), owners - usize::from(is_once));
            drop(lent);
            assert_eq!(Rc::strong_count(&token), owners - 1);
        }
        assert_eq!(Rc::strong_count(&token), 1);
    }
}
