//! Lists whose elements are linked through themselves: an element goes from list to list, and from
//! thread to thread, without memory of the list's own.
//!
//! An element is known by its address, and owned by whoever has its [`Element`]; in a [`Chain`], by
//! who has that. An element or a chain that is dropped is leaked. This file knows nothing of what
//! the elements are.
//!
//! `unsafe` lives here because an element is reached through its address: whoever makes an
//! `Element` of one promises that it is there, and owned once.

use std::cell::Cell;
use std::ops::Deref;
use std::ptr::{self, NonNull};

/// Where an element has the next one. It leaves three bits of the element's address to others.
#[derive(Debug)]
#[repr(align(8))]
pub(crate) struct Link<T> {
    next: Cell<*mut T>,
}

/// What can stand in a chain.
///
/// # Safety
/// The link is a part of the element, always the same one.
pub(crate) unsafe trait Linked: Sized {
    fn link(&self) -> &Link<Self>;
}

/// An element, which stands in no chain.
#[derive(Debug)]
pub(crate) struct Element<T>(NonNull<T>);

/// Elements, in order: each is linked to the next one, the last to none.
#[derive(Debug)]
pub(crate) struct Chain<T> {
    first: Option<Element<T>>,
    /// The last one, if there is a first.
    last: *mut T,
}

impl<T> Link<T> {
    pub(crate) const fn new() -> Link<T> {
        Link { next: Cell::new(ptr::null_mut()) }
    }
}

impl<T> Element<T> {
    /// # Safety
    /// Whoever has what this returns owns it from here on, on any thread, and it is there until an
    /// owner makes an end of it.
    pub(crate) unsafe fn from_raw(at: NonNull<T>) -> Element<T> {
        Element(at)
    }

    /// Where it is. Whoever takes it from there owns it.
    pub(crate) fn into_raw(self) -> NonNull<T> {
        self.0
    }

    pub(crate) fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T: Linked> Element<T> {
    /// Says which element comes next, for who will take them with `Chain::of_stack`. A chain lends
    /// none of its elements out mutably, so its links stay as they are.
    pub(crate) fn put_before(&mut self, next: *mut T) {
        self.link().next.set(next);
    }

    /// The element that this one was put before.
    ///
    /// # Safety
    /// It is there, and the caller's from here on.
    unsafe fn take_next(&self) -> Option<Element<T>> {
        NonNull::new(self.link().next.get()).map(Element)
    }
}

impl<T> Deref for Element<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `from_raw` was told that it is there as long as it has an owner, who has this.
        unsafe { self.0.as_ref() }
    }
}

// SAFETY: `from_raw` was told that its owner may be on any thread.
unsafe impl<T> Send for Element<T> {}

impl<T: Linked> Chain<T> {
    pub(crate) const NONE: Chain<T> = Chain { first: None, last: ptr::null_mut() };

    /// The elements of a stack, the one that was pushed first at the beginning.
    ///
    /// # Safety
    /// `top` is null or an element's address, as is what each was put before; all of them are the
    /// caller's.
    pub(crate) unsafe fn of_stack(top: *mut T) -> Chain<T> {
        let mut chain = Chain { first: None, last: top };
        let mut rest = NonNull::new(top).map(Element);
        while let Some(mut element) = rest {
            // SAFETY: the caller has the whole stack.
            rest = unsafe { element.take_next() };
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

    /// Puts the elements of another chain at the end. O(1).
    pub(crate) fn append(&mut self, other: Chain<T>) {
        let Some(first) = other.first else { return };
        match self.first {
            // SAFETY: with a first element there is a last one, which the chain owns.
            Some(_) => unsafe { (*self.last).link().next.set(first.as_ptr()) },
            None => self.first = Some(first),
        }
        self.last = other.last;
    }

    pub(crate) fn pop(&mut self) -> Option<Element<T>> {
        let first = self.first.take()?;
        // SAFETY: the chain owns what its first element is linked to, and hands it to itself.
        self.first = unsafe { first.take_next() };
        Some(first)
    }
}
