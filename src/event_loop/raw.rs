//! A loop behind a pointer, for C.
//!
//! A call from a process or thread that does not own the loop fails before it makes a reference to
//! fields that only the owner may use (S29). A forked child that has closed its copy gets the same
//! error as long as it lives. This relies on callers: their pointer is that of a loop that is open,
//! or was closed in a forked child. Only `close_raw` ends such a loop.
//!
//! `unsafe` is here because C has no lifetimes: each function states its requirements for the
//! pointer.

use std::cell::Cell;
use std::ffi::c_void;
use std::mem::forget;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;

use super::Shared;
use super::thread::leaving::Links;
use crate::error::{Error, Result, Sentence};
use crate::event_loop::Loop;
use crate::sys::memory::{TryArc, try_box};
use crate::sys::owner::Owner;
use crate::time::Clock;

/// The fields of a loop that only a loop behind a pointer needs.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    is_raw: Cell<bool>,
    word: Cell<*mut c_void>,
    pub(super) links: Links,
}

/// The fields of a loop behind a pointer that all threads may read.
#[derive(Clone, Copy)]
pub(crate) struct Public<'a> {
    owner: &'a Owner,
    pub(crate) clock: &'a Clock,
    pub(crate) shared: &'a TryArc<Shared>,
    lp: *const Loop,
}

const _: () = {
    const fn is_for_all_threads<T: Sync>() {}
    is_for_all_threads::<(Owner, Clock, TryArc<Shared>)>();
};

impl<'a> Public<'a> {
    /// # Safety
    /// The pointer is that of a loop that is not closed during 'a, or that this process, a forked
    /// child, has closed.
    #[inline]
    pub(crate) unsafe fn of(lp: *const Loop) -> Public<'a> {
        // SAFETY: the caller guarantees that these fields are alive, and no reference is made to
        // the other fields, which the loop's thread may be using.
        unsafe { Public { owner: &(*lp).owner, clock: &(*lp).clock, shared: &(*lp).shared, lp } }
    }

    /// The loop, if the calling process and thread own it; if not, EOWNERDEAD or EPERM.
    #[inline]
    pub(crate) fn enter(self) -> Result<&'a Loop> {
        self.owner.check()?;
        // SAFETY: `check` proved that this thread owns the loop, the caller of `of` guarantees that
        // it is open, and a loop behind a pointer is never borrowed mutably.
        Ok(unsafe { &*self.lp })
    }

    /// Makes the calling thread the owner of a loop that has not run.
    ///
    /// # Safety
    /// The former owner's last call has returned.
    pub(crate) unsafe fn adopt(self) -> Result<()> {
        self.owner.check_adoptable()?;
        // SAFETY: `check_adoptable` proved that the loop has not run, and the caller guarantees
        // that no other thread uses it.
        unsafe { &*self.lp }.adopt()
    }
}

impl Loop {
    /// Puts the loop behind a pointer.
    pub(crate) fn into_raw(self) -> Result<*mut Loop> {
        self.raw.is_raw.set(true);
        let lp = Box::into_raw(try_box(self)?);
        lp.expose_provenance();
        Ok(lp)
    }

    /// Whether the loop is behind a pointer, and not owned by Rust code.
    pub(super) fn is_raw(&self) -> bool {
        self.raw.is_raw.get()
    }

    /// A word of user data, for the C API.
    #[inline]
    pub(crate) fn word(&self) -> &Cell<*mut c_void> {
        &self.raw.word
    }

    /// Ends the loop behind a pointer and frees it, if the calling thread owns it, inherits it from
    /// a thread that has exited, or is in a forked child. Waits at most `limit` nanoseconds for the
    /// kernel to release all data.
    ///
    /// # Safety
    /// As for `Public::of`. After success, the loop is closed.
    pub(crate) unsafe fn close_raw(lp: *const Loop, limit: u64) -> Result<()> {
        // SAFETY: the caller guarantees as for `Public::of` that the loop is open, and its owner
        // stays in place until the loop is freed.
        let owner = unsafe { Public::of(lp) }.owner;
        let is_forked = !owner.process().is_current();
        if !is_forked {
            owner.is_heir()?;
        } else if owner.is_abandoned() {
            return Err(Error::FORKED);
        }
        if is_forked && !owner.is_of_this_thread() {
            // Another thread has forked. The loop's thread may have been anywhere in the library
            // and does not exist here, so the whole loop leaks.
            owner.leave_to_nobody();
            // SAFETY: only `Public` uses the loop from now on; the loop's thread, the only other
            // user of this word, does not exist in this process.
            keep_abandoned(lp, unsafe { &(*lp).raw.word });
            return Ok(());
        }
        // SAFETY: the checks above proved that this thread owns the loop, in this process or its
        // parent.
        let this = unsafe { &*lp };
        if !this.is_raw() {
            return Err(Error::new(Errno::EINVAL, Sentence::MadeInRust));
        }
        this.prepare_close(limit)?;
        // A shared reference, because release hooks reach the loop through the same pointer.
        this.end_everything();
        this.unlink_from_thread();
        // A release hook may have forked, and this may be the child.
        let is_copy = !owner.process().is_current();
        let lp = ptr::with_exposed_provenance_mut::<Loop>(lp.addr());
        // SAFETY: `into_raw` made the pointer from a Box, and after `end_everything` no user code
        // and no other thread of this process uses the loop.
        unsafe { if is_copy { free_copy(lp) } else { drop(Box::from_raw(lp)) } };
        Ok(())
    }
}

/// Frees a forked child's copy of a loop, except for the fields of `Public`. The child may still
/// hold the pointer, for example in a Handle of C++ that no hook has informed of the end. Such a
/// caller gets EOWNERDEAD as long as the child lives.
///
/// # Safety
/// The pointer comes from `into_raw`, and only `Public` uses the loop from now on.
unsafe fn free_copy(lp: *mut Loop) {
    // SAFETY: the caller guarantees that the pointer's Box memory is valid and unused by others;
    // each of the three fields is copied before the drop and overwritten after it, so each is owned
    // once.
    unsafe {
        (*lp).owner.abandon();
        forget((*lp).shared.clone());
        let kept = (
            (&raw const (*lp).owner).read(),
            (&raw const (*lp).clock).read(),
            (&raw const (*lp).shared).read(),
        );
        ptr::drop_in_place(lp);
        (&raw mut (*lp).owner).write(kept.0);
        (&raw mut (*lp).clock).write(kept.1);
        (&raw mut (*lp).shared).write(kept.2);
        (&raw mut (*lp).raw).write(Raw::default());
        keep_abandoned(lp, &(*lp).raw.word);
    }
}

/// Keeps the remains of a loop in a forked child reachable, so that leak checkers do not report it.
/// `word` is the loop's own.
fn keep_abandoned(lp: *const Loop, word: &Cell<*mut c_void>) {
    static ABANDONED: AtomicPtr<Loop> = AtomicPtr::new(ptr::null_mut());

    word.set(ABANDONED.swap(lp.cast_mut(), Relaxed).cast());
}
