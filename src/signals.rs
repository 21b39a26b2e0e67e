//! Signals: which loops want to know of them, and the one signal handler that tells them.
//!
//! A signal's disposition belongs to the process. It is taken when the first loop asks for that signal, and given back when the
//! last one no longer does. No mask is changed: a signalfd needs one, which every thread and every child process would have to
//! share. Signals come as often as they can be told apart: like the kernel, a loop notes that one has come, not how often.
//!
//! The handler walks a list that changes while it does, and takes no lock. Changes take one, link and unlink with one store,
//! and free what they have unlinked when no handler runs any more: a handler that began before the unlinking has counted itself
//! in `running` before it looked at the list, and one that begins later does not find it.
//!
//! In a forked child the loops' handlers are void (S33): a signal that is still handled here does there what it would have done
//! before the parent's loops asked for it. A child that makes loops of its own gets a registry of its own.

use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libc::{c_int, c_void, sigaction, siginfo_t};
use nix::errno::Errno;

use crate::counted::Counted;
use crate::error::{Error, Result, Sentence};
use crate::fork::Process;
use crate::memory::try_box;
use crate::remote::Shared;

/// Signals are numbered from 1 to this.
const LAST: usize = 64;

/// One handler of a loop's for one signal; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    watcher: NonNull<Watcher>,
}

/// An element of the list that the signal handler walks.
struct Watcher {
    next: AtomicPtr<Watcher>,
    signal: c_int,
    shared: Counted<Shared>,
    registry: &'static Registry,
}

/// Who wants to know of what, in one process.
struct Registry {
    process: Process,
    /// That of the parent process. It is of no use but to those who look for leaks.
    _former: *mut Registry,
    changes: Mutex<()>,
    /// How many signal handlers are looking at the lists.
    running: AtomicUsize,
    lists: [AtomicPtr<Watcher>; LAST + 1],
}

/// The registry of the process that made one last; a forked child finds its parent's here.
static REGISTRY: AtomicPtr<Registry> = AtomicPtr::new(ptr::null_mut());

/// What became of each signal before loops asked for it. A forked child inherits this with the handlers.
static FORMER: [Former; LAST + 1] = [const { Former::new() }; LAST + 1];

/// A disposition, in words that a signal handler may read while they change.
struct Former {
    handler: AtomicUsize,
    flags: AtomicI32,
    mask: AtomicU64,
}

const NOT_CATCHABLE: Error = Error::new(Errno::EINVAL, Sentence::NotCatchable);

impl Registration {
    /// Has `shared` told of every `signal` from now on.
    pub(crate) fn new(signal: c_int, shared: Counted<Shared>) -> Result<Registration> {
        check_catchable(signal)?;
        let registry = Registry::current()?;
        let watcher = Watcher { next: AtomicPtr::new(ptr::null_mut()), signal, shared, registry };
        let registration = Registration { watcher: NonNull::from(Box::leak(try_box(watcher)?)) };
        registry.link(registration.watcher())?;
        Ok(registration)
    }

    fn watcher(&self) -> &Watcher {
        // SAFETY: the watcher was boxed by `new`, and is freed by `drop` alone.
        unsafe { self.watcher.as_ref() }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let registry = self.watcher().registry;
        // In a forked child the list is a copy that nobody walks (S33).
        if !registry.process.is_current() {
            return;
        }
        registry.unlink(self.watcher());
        // SAFETY: nobody can reach the watcher any more: it is unlinked, and no handler that may have seen it still runs.
        drop(unsafe { Box::from_raw(self.watcher.as_ptr()) });
    }
}

// SAFETY: the pointers are to the lists that this is all about, and to what is never freed.
unsafe impl Send for Registry {}
// SAFETY: as above; the lists are changed under the lock, and walked as the module says.
unsafe impl Sync for Registry {}

impl Registry {
    /// The registry of this process, which is made when it is first asked for and never freed.
    fn current() -> Result<&'static Registry> {
        let process = Process::current()?;
        let mut known = REGISTRY.load(Ordering::Acquire);
        // SAFETY: a registry that has been published is never freed.
        while unsafe { known.as_ref() }.is_none_or(|registry| !registry.process.is_current()) {
            let fresh = Box::into_raw(try_box(Registry {
                process,
                _former: known,
                changes: Mutex::new(()),
                running: AtomicUsize::new(0),
                lists: [const { AtomicPtr::new(ptr::null_mut()) }; LAST + 1],
            })?);
            match REGISTRY.compare_exchange(known, fresh, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => known = fresh,
                Err(other) => {
                    // SAFETY: it was not published, so it is still ours alone.
                    drop(unsafe { Box::from_raw(fresh) });
                    known = other;
                }
            }
        }
        // SAFETY: as above, and the loop ends with one that is there.
        Ok(unsafe { &*known })
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a watcher into its list. On an error it stands there nevertheless, and is to be unlinked.
    fn link(&self, watcher: &Watcher) -> Result<()> {
        let _changes = self.lock();
        let list = &self.lists[watcher.signal as usize];
        let first = list.load(Ordering::Relaxed);
        watcher.next.store(first, Ordering::Relaxed);
        list.store(ptr::from_ref(watcher).cast_mut(), Ordering::SeqCst);
        if first.is_null() { take_over(watcher.signal).map_err(|_| NOT_CATCHABLE) } else { Ok(()) }
    }

    /// Takes a watcher out of its list, and waits until no signal handler can be looking at it.
    fn unlink(&self, watcher: &Watcher) {
        let changes = self.lock();
        let list = &self.lists[watcher.signal as usize];
        let mut link = list;
        loop {
            let at = link.load(Ordering::Relaxed);
            if ptr::eq(at, watcher) {
                link.store(watcher.next.load(Ordering::Relaxed), Ordering::SeqCst);
                break;
            }
            // SAFETY: what is linked lives, and the lock is ours, so that nobody else unlinks.
            link = unsafe { &(*at).next };
        }
        if list.load(Ordering::Relaxed).is_null() {
            give_back(watcher.signal);
        }
        drop(changes);
        while self.running.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
    }

    /// Tells the loops that want to know of a signal; false when there are none. Async-signal-safe.
    fn tell(&self, signal: c_int) -> bool {
        let Some(list) = self.lists.get(signal as usize) else { return false };
        self.running.fetch_add(1, Ordering::SeqCst);
        let mut at = list.load(Ordering::SeqCst);
        let is_wanted = !at.is_null();
        // SAFETY: what is found in the list is not freed while `running` counts us.
        while let Some(watcher) = unsafe { at.as_ref() } {
            watcher.shared.signal(signal);
            at = watcher.next.load(Ordering::SeqCst);
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        is_wanted
    }
}

impl Former {
    const fn new() -> Former {
        Former { handler: AtomicUsize::new(libc::SIG_DFL), flags: AtomicI32::new(0), mask: AtomicU64::new(0) }
    }

    fn set(&self, action: &sigaction) {
        // SAFETY: the set is initialized, and the signal's number is in range.
        let is_masked = |signal: &usize| unsafe { libc::sigismember(&action.sa_mask, *signal as c_int) == 1 };
        let mask = (1..=LAST).filter(is_masked).fold(0, |mask, signal| mask | 1 << (signal - 1));
        self.mask.store(mask, Ordering::Relaxed);
        self.flags.store(action.sa_flags, Ordering::Relaxed);
        self.handler.store(action.sa_sigaction, Ordering::Release);
    }

    fn get(&self) -> sigaction {
        let mut action = default_action();
        action.sa_sigaction = self.handler.load(Ordering::Acquire);
        action.sa_flags = self.flags.load(Ordering::Relaxed);
        let mask = self.mask.load(Ordering::Relaxed);
        for signal in (1..=LAST).filter(|signal| mask >> (signal - 1) & 1 == 1) {
            // SAFETY: the set is initialized, and the signal's number is in range.
            unsafe { libc::sigaddset(&mut action.sa_mask, signal as c_int) };
        }
        action
    }
}

/// Whether a loop may handle a signal. The kernel refuses some itself; that of a fault would come again as soon as the handler
/// had returned, for ever.
fn check_catchable(signal: c_int) -> Result<()> {
    let is_fault = matches!(signal, libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL);
    if is_fault || !(1..=LAST as c_int).contains(&signal) { Err(NOT_CATCHABLE) } else { Ok(()) }
}

/// Makes `on_signal` a signal's handler, and remembers what was. SA_RESTART: what the program has blocked in goes on.
fn take_over(signal: c_int) -> nix::Result<()> {
    let former = current_action(signal)?;
    if former.sa_sigaction != on_signal as *const () as usize {
        FORMER[signal as usize].set(&former);
    }
    let mut action = default_action();
    action.sa_sigaction = on_signal as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    set_action(signal, &action)
}

/// Restores what was before loops asked for a signal, unless somebody else has taken it meanwhile.
fn give_back(signal: c_int) {
    let is_ours = current_action(signal).is_ok_and(|action| action.sa_sigaction == on_signal as *const () as usize);
    if is_ours {
        // It was taken, so it can be given back.
        let _ = set_action(signal, &FORMER[signal as usize].get());
    }
}

fn default_action() -> sigaction {
    let mut action = MaybeUninit::<sigaction>::zeroed();
    // SAFETY: all-zero is a valid sigaction, with an empty mask once sigemptyset has been there.
    unsafe {
        libc::sigemptyset(&raw mut (*action.as_mut_ptr()).sa_mask);
        action.assume_init()
    }
}

fn current_action(signal: c_int) -> nix::Result<sigaction> {
    let mut action = default_action();
    // SAFETY: nothing is set, and what is now is written to the action.
    Errno::result(unsafe { sigaction(signal, ptr::null(), &mut action) })?;
    Ok(action)
}

fn set_action(signal: c_int, action: &sigaction) -> nix::Result<()> {
    // SAFETY: the handler in the action is `on_signal`, which is async-signal-safe, or was the program's before.
    Errno::result(unsafe { sigaction(signal, action, ptr::null_mut()) }).map(drop)
}

/// The handler of all signals that loops want to know of. Async-signal-safe, and leaves errno alone.
extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let errno = Errno::last();
    // SAFETY: a registry that has been published is never freed.
    let registry = unsafe { REGISTRY.load(Ordering::Acquire).as_ref() };
    let is_told = registry.is_some_and(|registry| registry.process.is_current() && registry.tell(signal));
    if !is_told {
        act_as_former(signal, info, context);
    }
    errno.set();
}

/// Does what the signal would have done before loops asked for it: in a forked child, and when the last loop has just lost its
/// interest. Async-signal-safe as far as the program's own handler is.
fn act_as_former(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(former) = FORMER.get(signal as usize) else { return };
    let flags = former.flags.load(Ordering::Relaxed);
    match former.handler.load(Ordering::Acquire) {
        libc::SIG_IGN => {}
        libc::SIG_DFL => {
            if !matches!(signal, libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH) {
                let _ = set_action(signal, &default_action());
                // SAFETY: raise takes any number. The signal is blocked here, and comes when the handler has returned.
                unsafe { libc::raise(signal) };
            }
        }
        handler if flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the program installed this address as a handler of this type.
            unsafe {
                let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = std::mem::transmute(handler);
                handler(signal, info, context);
            }
        }
        handler => {
            // SAFETY: the program installed this address as a handler of this type.
            unsafe {
                let handler: extern "C" fn(c_int) = std::mem::transmute(handler);
                handler(signal);
            }
        }
    }
}
