//! A loop behind a pointer, as C has it.
//!
//! A process or a thread that does not own the loop is refused before there is a reference to more
//! than what all threads may look at (S29), and so is, for as long as it lives, a forked child that
//! has closed its copy. This relies on those who have a pointer: it is that of a loop that has not
//! been closed, or was closed in a forked child. Nothing but `close_raw` ends such a loop.
//!
//! `unsafe` lives here because C has no lifetimes: each function says what it expects of whoever
//! has the pointer.

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

/// What a loop has for those who have it behind a pointer.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    is_raw: Cell<bool>,
    word: Cell<*mut c_void>,
    pub(super) links: Links,
}

/// What all threads may look at of the loop behind a pointer.
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
    /// The pointer is that of a loop that is not closed during 'a, or was closed in a forked child,
    /// which this is.
    #[inline]
    pub(crate) unsafe fn of(lp: *const Loop) -> Public<'a> {
        // SAFETY: the caller says that these fields are there; no reference to the others is made,
        // which may be in use by the loop's thread.
        unsafe { Public { owner: &(*lp).owner, clock: &(*lp).clock, shared: &(*lp).shared, lp } }
    }

    /// The loop, if the calling process and thread own it; if not, EOWNERDEAD or EPERM.
    #[inline]
    pub(crate) fn enter(self) -> Result<&'a Loop> {
        self.owner.check()?;
        // SAFETY: the loop is this thread's, and is not closed (`of`); nobody borrows it mutably
        // while it is behind a pointer.
        Ok(unsafe { &*self.lp })
    }

    /// Makes the calling thread the owner of a loop that has not run.
    ///
    /// # Safety
    /// The former owner's last call has returned.
    pub(crate) unsafe fn adopt(self) -> Result<()> {
        self.owner.check_adoptable()?;
        // SAFETY: the loop has not run, and the caller says that no other thread uses it.
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

    /// Whether it is behind a pointer, and nobody's in Rust.
    pub(super) fn is_raw(&self) -> bool {
        self.raw.is_raw.get()
    }

    /// A word for whoever has the pointer.
    #[inline]
    pub(crate) fn word(&self) -> &Cell<*mut c_void> {
        &self.raw.word
    }

    /// Ends the loop behind a pointer and frees it, if the calling thread owns it, or inherits it
    /// from one that has exited, or this is a forked child. Waits at most `limit` nanoseconds until
    /// the kernel has let go.
    ///
    /// # Safety
    /// As for `Public::of`; and when it succeeds, the loop is closed.
    pub(crate) unsafe fn close_raw(lp: *const Loop, limit: u64) -> Result<()> {
        // SAFETY: the loop has not been closed (`Public::of`), and its owner stays where it is
        // until it is freed.
        let owner = unsafe { Public::of(lp) }.owner;
        let is_forked = !owner.process().is_current();
        if !is_forked {
            owner.is_heir()?;
        } else if owner.is_abandoned() {
            return Err(Error::FORKED);
        }
        if is_forked && !owner.is_of_this_thread() {
            // Another thread has forked: the loop's may have been anywhere, and is not here to go
            // on. All of it is leaked.
            owner.leave_to_nobody();
            // SAFETY: nothing but `public` uses the loop from now on, and this word, which no other
            // thread of this process does.
            keep_abandoned(lp, unsafe { &(*lp).raw.word });
            return Ok(());
        }
        // SAFETY: the loop is this thread's, here or in the process that has forked.
        let this = unsafe { &*lp };
        if !this.is_raw() {
            return Err(Error::new(Errno::EINVAL, Sentence::MadeInRust));
        }
        this.prepare_close(limit)?;
        // Shared: release hooks reach the loop through the same pointer.
        this.end_everything();
        this.unlink_from_thread();
        // A release hook may have forked meanwhile, and this may be the child.
        let is_copy = !owner.process().is_current();
        let lp = ptr::with_exposed_provenance_mut::<Loop>(lp.addr());
        // SAFETY: `into_raw` made the pointer of a Box; all has ended, so that no user code runs
        // any more, and nobody else has the loop, or is in this process.
        unsafe { if is_copy { free_copy(lp) } else { drop(Box::from_raw(lp)) } };
        Ok(())
    }
}

/// Frees a forked child's copy of a loop, but for what `Public` gives: what has the pointer still,
/// such as a Handle in C++, which no hook has told of the end, gets EOWNERDEAD for it as long as
/// the child lives.
///
/// # Safety
/// The pointer is that of `into_raw`, and nothing but `Public` uses the loop from now on.
unsafe fn free_copy(lp: *mut Loop) {
    // SAFETY: each of the three is owned twice while there are two of it, and the loop's memory is
    // that of its Box still.
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

/// Keeps what is left of a loop in a forked child, so that no tool takes it for lost. The word is
/// the loop's own.
fn keep_abandoned(lp: *const Loop, word: &Cell<*mut c_void>) {
    static ABANDONED: AtomicPtr<Loop> = AtomicPtr::new(ptr::null_mut());

    word.set(ABANDONED.swap(lp.cast_mut(), Relaxed).cast());
}
