//! The pointers that C has to loops, remotes and buffers, and the only access to these objects.
//!
//! A function of the C API gets such a pointer as one of these types. C promises, as the header
//! says, that the object is valid during the call. No code in Rust can make such a pointer, copy
//! it, or keep it for longer, so its users need no `unsafe`. The process and the thread are checked
//! before a reference to a loop exists (S29).

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::{self, NonNull};

use super::{NULL_POINTER, handle, loop_handle_t, loop_t};
use crate::abi::handle::Handle;
use crate::error::{Error, Result};
use crate::event_loop::raw::Public;
use crate::event_loop::{Loop, Shared};
use crate::kernel::buffers::Pool;
use crate::sys::memory::{Inner, TryArc};

/// `loop_t *`: NULL, or the pointer of a loop that is open until the call ends or closes it, or of
/// a loop that was closed in a forked child.
#[repr(transparent)]
#[derive(Debug)]
pub struct LoopPtr<'a>(*const loop_t, PhantomData<&'a Loop>);

/// `const loop_t *`.
pub type ConstLoopPtr<'a> = LoopPtr<'a>;

impl LoopPtr<'_> {
    pub(super) fn as_ptr(&self) -> *const Loop {
        self.0.cast()
    }

    /// The parts that all threads may read.
    pub(super) fn public(&self) -> Result<Public<'_>> {
        if self.0.is_null() {
            return Err(NULL_POINTER);
        }
        // SAFETY: C promises that the loop is not closed during the call, or was closed in a forked
        // child.
        Ok(unsafe { Public::of(self.as_ptr()) })
    }

    /// Calls `f` with the loop, if the calling process and thread own it.
    pub(super) fn with<T>(&self, f: impl FnOnce(&Loop) -> Result<T>) -> Result<T> {
        f(self.public()?.enter()?)
    }

    /// The same, with arguments that have been checked: their errors come first (S29).
    pub(super) fn with_args<A, T>(
        &self,
        args: Result<A>,
        f: impl FnOnce(&Loop, A) -> Result<T>,
    ) -> Result<T> {
        let args = args?;
        self.with(|lp| f(lp, args))
    }

    /// The same, if the loop accepts new entries.
    pub(super) fn add<A, T>(
        &self,
        args: Result<A>,
        f: impl FnOnce(&Loop, A) -> Result<T>,
    ) -> Result<T> {
        self.with_args(args, |lp, args| {
            lp.check_accepts()?;
            f(lp, args)
        })
    }

    /// The same, for functions that return a handle.
    pub(super) fn schedule<A>(
        &self,
        args: Result<A>,
        f: impl FnOnce(&Loop, A) -> Result<Handle>,
    ) -> loop_handle_t {
        handle(self.add(args, f))
    }

    /// The result of `f`, or `otherwise` if the loop must not be used.
    pub(super) fn ask<T>(&self, otherwise: T, f: impl FnOnce(&Loop) -> T) -> T {
        self.with(|lp| lp.check_answers().map(|()| f(lp))).unwrap_or(otherwise)
    }
}

/// NULL, or an owner of a `T` that exists during the call.
#[repr(transparent)]
#[derive(Debug)]
pub struct OwnerPtr<'a, T>(Option<NonNull<Inner<T>>>, PhantomData<&'a T>);

/// `loop_remote_t *`: NULL, or a remote that the caller holds during the call.
pub type RemotePtr<'a> = OwnerPtr<'a, Shared>;

/// `loop_buffers_t *`: NULL, or buffers of an open loop that exist until the call ends or frees
/// them.
pub type BuffersPtr<'a> = OwnerPtr<'a, Pool>;

impl<T> OwnerPtr<'_, T> {
    pub(super) fn is_null(&self) -> bool {
        self.0.is_none()
    }

    /// The owner, which belongs to C and is not dropped here. Other threads may use the value.
    fn lent(&self) -> Result<impl Deref<Target = TryArc<T>> + use<'_, T>> {
        // SAFETY: C promises that the owner exists during the call.
        let owner = self.0.map(|inner| ManuallyDrop::new(unsafe { TryArc::from_raw(inner) }));
        owner.ok_or(NULL_POINTER)
    }
}

impl RemotePtr<'_> {
    /// Calls `f` with the data of the loop that all threads share.
    pub(super) fn with<T>(&self, f: impl FnOnce(&TryArc<Shared>) -> Result<T>) -> Result<T> {
        f(&*self.lent()?)
    }

    /// Takes the caller's ownership.
    ///
    /// # Safety
    /// The caller gives its ownership up.
    pub(super) unsafe fn take(self) -> Option<TryArc<Shared>> {
        // SAFETY: the caller gives its ownership up.
        self.0.map(|inner| unsafe { TryArc::from_raw(inner) })
    }
}

impl BuffersPtr<'_> {
    /// Calls `f` with the loop and the buffers, if the calling process and thread own them. The
    /// buffers stay valid until `f` returns, even if `f` frees them.
    pub(super) fn with<T>(&self, f: impl FnOnce(&Loop, &TryArc<Pool>) -> Result<T>) -> Result<T> {
        let pool = TryArc::clone(&*self.lent()?);
        // C promises that the loop of the buffers is not closed.
        LoopPtr(pool.owner.cast(), PhantomData).with(|lp| f(lp, &pool))
    }

    /// The buffers, if they belong to `lp`.
    pub(super) fn of(&self, lp: &Loop) -> Result<TryArc<Pool>> {
        let pool = self.lent()?;
        if ptr::eq(pool.owner.cast(), lp) {
            Ok(TryArc::clone(&*pool))
        } else {
            Err(Error::FOREIGN_BUFFERS)
        }
    }
}
