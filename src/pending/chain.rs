//! Intrusive singly linked lists: an element moves from list to list, and from thread to thread,
//! without an allocation.
//!
//! An element is identified by its address. Its owner is the holder of its [`Element`], or of the
//! [`Chain`] that contains it. A dropped element or chain leaks.
//!
//! `unsafe` is here because an element is reached through its address: the maker of an `Element`
//! guarantees that the address is valid and has one owner.

use std::cell::Cell;
use std::ops::Deref;
use std::ptr::{self, NonNull};

use crate::sys::memory::prefetch_at;

/// The link in an element to the next one. Its alignment leaves three bits of the address free.
#[derive(Debug)]
#[repr(align(8))]
pub(crate) struct Link<T> {
    next: Cell<*mut T>,
}

/// A type whose values can be elements of a chain.
///
/// # Safety
/// The link is a part of the element, always the same one.
pub(crate) unsafe trait Linked: Sized {
    fn link(&self) -> &Link<Self>;
}

/// The owner of an element that is in no chain.
#[derive(Debug)]
pub(crate) struct Element<T>(NonNull<T>);

/// An intrusive list of elements, in order; the last has no next one.
#[derive(Debug)]
pub(crate) struct Chain<T> {
    first: Option<Element<T>>,
    /// The last element; only valid if there is a first.
    last: *mut T,
}

impl<T> Link<T> {
    pub(crate) const fn new() -> Link<T> {
        Link { next: Cell::new(ptr::null_mut()) }
    }
}

impl<T> Element<T> {
    /// # Safety
    /// The result owns the element, on any thread, and the element stays valid until an owner frees
    /// it.
    pub(crate) unsafe fn from_raw(at: NonNull<T>) -> Element<T> {
        Element(at)
    }

    /// The address, with the ownership of the element.
    pub(crate) fn into_raw(self) -> NonNull<T> {
        self.0
    }

    pub(crate) fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T: Linked> Element<T> {
    /// Links this element to the next one, for `Chain::of_stack`. A chain gives out no `&mut` of
    /// its elements, so its links do not change.
    pub(crate) fn put_before(&mut self, next: *mut T) {
        self.link().next.set(next);
    }

    /// The next element.
    ///
    /// # Safety
    /// The next element is valid, and belongs to the caller from here on.
    unsafe fn take_next(&self) -> Option<Element<T>> {
        NonNull::new(self.link().next.get()).map(Element)
    }
}

impl<T> Deref for Element<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the caller of `from_raw` guarantees that the element is valid as long as it has
        // an owner.
        unsafe { self.0.as_ref() }
    }
}

// SAFETY: the caller of `from_raw` guarantees that any thread may own the element.
unsafe impl<T> Send for Element<T> {}

/// Elements of a flood lie side by side, the older ones at higher addresses (`post_box`). So many
/// bytes ahead are prefetched, to hide the latency of memory that another processor has written.
const AHEAD: usize = 640;

impl<T: Linked> Chain<T> {
    pub(crate) const NONE: Chain<T> = Chain { first: None, last: ptr::null_mut() };

    /// Makes a chain from a stack; the element that was pushed first becomes the first. Shows each
    /// to `see`, the last one first.
    ///
    /// # Safety
    /// `top` and the links of the elements are null or addresses of elements, all owned by the
    /// caller.
    pub(crate) unsafe fn of_stack(top: *mut T, mut see: impl FnMut(&T)) -> Chain<T> {
        let mut chain = Chain { first: None, last: top };
        let mut rest = NonNull::new(top).map(Element);
        while let Some(mut element) = rest {
            // SAFETY: the caller guarantees to own the whole stack.
            rest = unsafe { element.take_next() };
            prefetch_at(element.as_ptr().cast::<u8>().wrapping_add(AHEAD), 1);
            see(&element);
            element.put_before(chain.first.map_or(ptr::null_mut(), |first| first.as_ptr()));
            chain.first = Some(element);
        }
        chain
    }

    pub(crate) fn first(&self) -> Option<&Element<T>> {
        self.first.as_ref()
    }

    pub(crate) fn push(&mut self, mut element: Element<T>) {
        element.put_before(ptr::null_mut());
        let last = element.as_ptr();
        self.append(Chain { first: Some(element), last });
    }

    /// Moves the elements of another chain to the end. O(1).
    pub(crate) fn append(&mut self, other: Chain<T>) {
        let Some(first) = other.first else { return };
        match self.first {
            // SAFETY: a chain with a first element has a valid last one, which the chain owns.
            Some(_) => unsafe { (*self.last).link().next.set(first.as_ptr()) },
            None => self.first = Some(first),
        }
        self.last = other.last;
    }

    pub(crate) fn pop(&mut self) -> Option<Element<T>> {
        let first = self.first.take()?;
        prefetch_at(first.as_ptr().cast::<u8>().wrapping_sub(AHEAD), 1);
        // SAFETY: the chain owns the element that its first element is linked to.
        self.first = unsafe { first.take_next() };
        Some(first)
    }
}
