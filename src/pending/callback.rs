//! A stored callback: what to call, and what it carries.
//!
//! A closure of two words or less and a C function with its argument are stored inline and cost no
//! allocation; anything larger is boxed. A callback can be called again after it has run: a closure
//! that runs once has then nothing left to do. `L` is the loop that it is called with, of which
//! this room knows nothing.
//!
//! `unsafe` lives here because the type of what is stored is known only to the table of functions
//! that was made for it: `Table::of::<T>` goes with data that is a `T`, from `Callback::store`
//! until the callback is dropped or called for the last time.

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
/// A pointer, so that a callback is not `Send`: it may hold what is for one thread.
type Word = MaybeUninit<*const u8>;

/// How much is fetched: a task's head, and the beginning of its future.
const LINES: usize = 3;

/// A callback and what it carries. Dropping it drops what it carries.
pub(crate) struct Callback<L: 'static> {
    table: &'static Table<L>,
    data: Data,
}

/// A callback of no loop, which is called once, on any thread.
pub(crate) struct Job(Callback<()>);

// SAFETY: `new` takes what may be sent.
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
    /// Whether it is gone when it has been called once.
    const ONCE: bool;

    /// Calls it. Not used where `ONCE` is set.
    fn call(&mut self, lp: &L, event: &Event);

    fn call_once(self, lp: &L, event: &Event);

    /// What it is, for the reports to people, as far as its type tells.
    fn source_of_type() -> Source;

    fn source(&self) -> Source {
        Self::source_of_type()
    }

    /// The memory that a call begins with, for the cache; null: what is stored is all.
    fn memory(&self) -> *const u8 {
        ptr::null()
    }
}

/// The functions for one type of callback. Each takes the data of a callback that was made with
/// this table.
struct Table<L: 'static> {
    /// Calls it for the last time, and drops what it carries. The data comes by value, in two
    /// registers.
    call_once: unsafe fn(Word, Word, &L, &Event),
    call: unsafe fn(&mut Callback<L>, &L, &Event),
    drop: unsafe fn(&mut Data),
    needs_drop: bool,
    describe: unsafe fn(&Data) -> Source,
    memory: unsafe fn(&Data) -> *const u8,
    /// A table that describes the same callback, and does nothing else with its data; None: it is
    /// that one.
    stand_in: Option<&'static Table<L>>,
}

impl<L: 'static> Table<L> {
    /// For any data, which it leaves alone.
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

    /// The same, for one that is told why it is called.
    pub(crate) fn once_event<F: FnOnce(&L, &Event) + 'static>(f: F) -> Result<Callback<L>> {
        Callback::once_for::<F, _>(f)
    }

    /// The same, for one that is known by the name of a `D`.
    pub(crate) fn once_for<D: 'static, F: FnOnce(&L, &Event) + 'static>(
        f: F,
    ) -> Result<Callback<L>> {
        Callback::new(Once(f, PhantomData::<D>))
    }

    pub(crate) fn many<F: FnMut(&L) + 'static>(mut f: F) -> Result<Callback<L>> {
        Callback::new(Many(move |lp: &L, _: &Event| f(lp), PhantomData::<F>))
    }

    /// The same, for one that is told why it is called.
    pub(crate) fn many_event<F: FnMut(&L, &Event) + 'static>(f: F) -> Result<Callback<L>> {
        Callback::new(Many(f, PhantomData::<F>))
    }

    /// Anything that can be called: inline if it fits, else in a box.
    #[inline]
    pub(crate) fn new<T: Callable<L> + 'static>(value: T) -> Result<Callback<L>> {
        Ok(if fits::<T>() { Callback::inline(value) } else { Callback::inline(try_box(value)?) })
    }

    /// What is two words or less.
    #[inline]
    pub(crate) fn inline<T: Callable<L> + 'static>(value: T) -> Callback<L> {
        // SAFETY: it borrows nothing that does not live for ever.
        unsafe { Callback::inline_borrowing(value) }
    }

    /// The same for what may borrow.
    ///
    /// # Safety
    /// The callback is dropped, and what stands in for it not asked for more than its type, before
    /// what it borrows is gone.
    #[inline]
    pub(crate) unsafe fn inline_borrowing<T: Callable<L>>(value: T) -> Callback<L> {
        assert!(fits::<T>());
        let mut data: Data = [Word::uninit(); 2];
        // SAFETY: `fits` says that a `T` has room in `data`, in size and in alignment.
        unsafe { data.as_mut_ptr().cast::<T>().write(value) };
        Callback { table: TablesOf::<L, T>::TABLE, data }
    }

    pub(crate) const fn is_inline<F>() -> bool {
        fits::<F>()
    }

    /// Has the memory fetched into the cache that a call begins with.
    #[inline]
    pub(crate) fn prefetch(&self) {
        // SAFETY: `data` was stored by the constructor that chose `table`.
        prefetch_at(unsafe { (self.table.memory)(&self.data) }, LINES);
    }

    /// Takes the callback out for the time that it runs. What stands in for it describes it, and
    /// does nothing else.
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
        // SAFETY: `data` was stored by the constructor that chose `table`, and is not used again.
        unsafe { (this.table.call_once)(first, second, lp, event) }
    }

    /// Calls it. A closure that runs once is gone afterwards, and with it what it carried.
    #[inline]
    pub(crate) fn call(&mut self, lp: &L, event: &Event) {
        // SAFETY: `data` was stored by the constructor that chose `table`, and nothing else writes
        // either of them.
        unsafe { (self.table.call)(self, lp, event) }
    }

    pub(crate) fn source(&self) -> Source {
        // SAFETY: `data` was stored by the constructor that chose `table`.
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

    /// Drops it, on a path that is seldom taken: its words go there in registers, so that they need
    /// not be in memory on the other path either.
    #[inline(always)]
    pub(crate) fn refuse(this: ManuallyDrop<Callback<L>>) {
        #[cold]
        fn drop_words<L>(table: &'static Table<L>, first: Word, second: Word) {
            drop(Callback { table, data: [first, second] });
        }
        let [first, second] = this.data;
        drop_words(this.table, first, second);
    }

    /// Puts it in the place of one that needs no drop, and that is not even read: it may be far
    /// away in memory.
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
            // SAFETY: `data` was stored by the constructor that chose `table`, and a dropped
            // callback is used no more.
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
            // SAFETY: the data is a `T`, which is read once.
            unsafe { data.as_ptr().cast::<T>().read() }.call_once(lp, event);
        },
        call: |callback, lp, event| {
            let this = callback.data.as_mut_ptr().cast::<T>();
            if T::ONCE {
                // SAFETY: the data is a `T`, which is read once: the empty table says from here on
                // that it is gone.
                let this = unsafe { this.read() };
                callback.table = Table::NOTHING;
                this.call_once(lp, event);
            } else {
                // SAFETY: the data is a `T`, borrowed for the call alone.
                unsafe { &mut *this }.call(lp, event);
            }
        },
        // SAFETY: the data is a `T`, of which this is the end.
        drop: |data| unsafe { data.as_mut_ptr().cast::<T>().drop_in_place() },
        needs_drop: needs_drop::<T>(),
        // SAFETY: the data is a `T`.
        describe: |data| unsafe { &*data.as_ptr().cast::<T>() }.source(),
        // SAFETY: the data is a `T`.
        memory: |data| unsafe { &*data.as_ptr().cast::<T>() }.memory(),
        stand_in: Some(Self::STAND_IN),
    };
    /// Describes a `T`, which is elsewhere: only what needs no drop is still in the data.
    const STAND_IN: &'static Table<L> = &Table {
        describe: |data| match needs_drop::<T>() {
            true => T::source_of_type(),
            // SAFETY: the data is a copy of a `T` that owns nothing.
            false => unsafe { &*data.as_ptr().cast::<T>() }.source(),
        },
        ..*Table::NOTHING
    };
}

/// Calls an `F` once, and is known by the name of a `D`.
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

/// Calls an `F` any number of times, and is known by the name of a `D`.
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
