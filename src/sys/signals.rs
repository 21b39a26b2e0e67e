//! Signals: the loops that handle them, and the one signal handler of the process.
//!
//! A disposition belongs to the process. The first loop that handles a signal replaces it, and the
//! last one restores it. No mask changes: a signalfd would need one in every thread and child
//! process. Like the kernel, a loop notes that a signal has arrived, not how often.
//!
//! The handler walks a list without a lock while the list may change. A change takes a lock, links
//! or unlinks with one store, and frees an unlinked element only when no handler is running: a
//! handler increments `running` before it reads the list, so a later one does not find the element.
//!
//! While the handler runs, all signals are blocked, so that a handler of the program (with a
//! longjmp, for example) cannot interrupt it.
//!
//! In a forked child, handlers of loops have no effect (S33): `pthread_atfork` restores the former
//! dispositions, and where it does not run (clone, vfork), the handler acts as the former
//! disposition. A child that makes its own loops gets its own registry.
//!
//! `unsafe` is here because a signal handler reads the list through pointers, and the C library
//! takes functions as addresses.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libc::{c_int, c_void, pid_t, sigaction, siginfo_t, sigset_t};
use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::{getpid, gettid};

use crate::error::{Error, Result, Sentence};
use crate::sys::fork::PerProcess;
use crate::sys::memory::{TryArc, try_box};

/// The greatest signal number; the least is 1.
const LAST: usize = 64;

/// The receiver of signals.
pub(crate) trait Target: Send + Sync + 'static {
    /// A signal has arrived. Async-signal-safe, and preserves errno.
    fn signal(&self, signal: c_int);
}

/// A handler of a loop for one signal; ends when this is dropped.
pub(crate) struct Registration(TryArc<Watcher>);

/// An element of the list that the signal handler walks. It lives as long as its registration.
struct Watcher {
    next: AtomicPtr<Watcher>,
    signal: c_int,
    target: Box<dyn Target>,
    registry: &'static Registry,
}

/// The watchers of signals in one process.
struct Registry {
    /// The PID, which differs in a child that shares this memory (vfork).
    number: pid_t,
    changes: Mutex<()>,
    /// The number of signal handlers that are reading the lists.
    running: AtomicUsize,
    lists: [AtomicPtr<Watcher>; LAST + 1],
}

static REGISTRY: PerProcess<Registry> = PerProcess::new();

/// The former disposition of each signal. A forked child inherits this with the handlers.
static FORMER: [Former; LAST + 1] = [const { Former::new() }; LAST + 1];

/// The signals that loops have ever handled; bit 0 is signal 1.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// A disposition, in words that a signal handler may read during a change.
struct Former {
    handler: AtomicUsize,
    flags: AtomicI32,
    mask: AtomicU64,
    /// The thread that calls the handler. If that thread calls it again from there, the chain of
    /// handlers is endless.
    caller: AtomicI32,
}

const NOT_CATCHABLE: Error = Error::new(Errno::EINVAL, Sentence::NotCatchable);

impl Registration {
    /// Notifies `target` of each `signal`, which is catchable, from now on.
    pub(crate) fn new(signal: c_int, target: impl Target) -> Result<Registration> {
        let registry = REGISTRY.get(Registry::new)?;
        let target = try_box(target)?;
        let watcher = TryArc::new(Watcher {
            next: AtomicPtr::new(ptr::null_mut()),
            signal,
            target,
            registry,
        })?;
        registry.link(&watcher)?;
        Ok(Registration(watcher))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // In a forked child, nothing walks its copy of the list (S33).
        if REGISTRY.made().is_some_and(|made| ptr::eq(made, self.0.registry)) {
            self.0.registry.unlink(&self.0);
        } else {
            std::mem::forget(self.0.clone());
        }
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("signal", &self.0.signal).finish_non_exhaustive()
    }
}

impl Registry {
    fn new() -> Registry {
        Registry {
            number: getpid().as_raw(),
            changes: Mutex::new(()),
            running: AtomicUsize::new(0),
            lists: [const { AtomicPtr::new(ptr::null_mut()) }; LAST + 1],
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self, watcher: &Watcher) -> Result<()> {
        let _changes = self.lock();
        let list = &self.lists[watcher.signal as usize];
        let first = list.load(Ordering::Relaxed);
        watcher.next.store(first, Ordering::Relaxed);
        list.store(ptr::from_ref(watcher).cast_mut(), Ordering::SeqCst);
        if first.is_null() && take_over(watcher.signal).is_err() {
            list.store(ptr::null_mut(), Ordering::SeqCst);
            self.wait_for_handlers();
            return Err(NOT_CATCHABLE);
        }
        Ok(())
    }

    /// Removes a watcher from its list, and waits until no signal handler can be reading it.
    fn unlink(&self, watcher: &Watcher) {
        let changes = self.lock();
        self.walk(watcher.signal, |link, other| {
            if ptr::eq(other, watcher) {
                link.store(watcher.next.load(Ordering::Relaxed), Ordering::SeqCst);
            }
        });
        if self.lists[watcher.signal as usize].load(Ordering::Relaxed).is_null() {
            give_back(watcher.signal);
        }
        drop(changes);
        self.wait_for_handlers();
    }

    /// Visits the watchers of a signal, each with the link to it. Async-signal-safe if `visit` is.
    fn walk(&self, signal: c_int, mut visit: impl FnMut(&AtomicPtr<Watcher>, &Watcher)) {
        let Some(mut link) = self.lists.get(signal as usize) else { return };
        self.running.fetch_add(1, Ordering::SeqCst);
        // SAFETY: `unlink` guarantees that an element of the list is not freed while `running`
        // counts us.
        while let Some(watcher) = unsafe { link.load(Ordering::SeqCst).as_ref() } {
            visit(link, watcher);
            link = &watcher.next;
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    /// Waits until no signal handler can be reading an unlinked element.
    fn wait_for_handlers(&self) {
        let mut turns = 0;
        while self.running.load(Ordering::SeqCst) != 0 {
            // A thread of lower priority may be in one, and would not run while this one yields.
            if turns < 100 {
                std::thread::yield_now()
            } else {
                std::thread::sleep(Duration::from_micros(50))
            }
            turns += 1;
        }
    }

    /// Notifies the loops that handle a signal; false if there are none. Async-signal-safe.
    fn tell(&self, signal: c_int) -> bool {
        let mut is_wanted = false;
        self.walk(signal, |_, watcher| {
            watcher.target.signal(signal);
            is_wanted = true;
        });
        is_wanted
    }
}

impl Former {
    const fn new() -> Former {
        Former {
            handler: AtomicUsize::new(libc::SIG_DFL),
            flags: AtomicI32::new(0),
            mask: AtomicU64::new(0),
            caller: AtomicI32::new(0),
        }
    }

    fn set(&self, action: &sigaction) {
        // SAFETY: sigaction has initialized the set, and the signal's number is in range.
        let is_masked =
            |signal: &usize| unsafe { libc::sigismember(&action.sa_mask, *signal as c_int) == 1 };
        let mask = (1..=LAST).filter(is_masked).fold(0, |mask, signal| mask | 1 << (signal - 1));
        self.mask.store(mask, Ordering::Relaxed);
        self.flags.store(action.sa_flags, Ordering::Relaxed);
        self.handler.store(action.sa_sigaction, Ordering::Release);
    }

    fn get(&self) -> sigaction {
        let mut action = default_action();
        action.sa_sigaction = self.handler.load(Ordering::Acquire);
        action.sa_flags = self.flags.load(Ordering::Relaxed);
        add_signals(&mut action.sa_mask, self.mask.load(Ordering::Relaxed));
        action
    }
}

/// Adds signals to a set; bit 0 is signal 1.
fn add_signals(set: &mut sigset_t, mask: u64) {
    for signal in (1..=LAST).filter(|signal| mask >> (signal - 1) & 1 == 1) {
        // SAFETY: the caller's set is initialized, and the signal's number is in range.
        unsafe { libc::sigaddset(set, signal as c_int) };
    }
}

/// Checks that a loop may handle a signal. A fault would recur as soon as the handler returned.
/// (The C library reserves two more signals, which sigaction refuses.)
pub(crate) fn check_catchable(signal: c_int) -> Result<()> {
    let is_fault = matches!(signal, libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL);
    let is_never_caught = matches!(signal, libc::SIGKILL | libc::SIGSTOP);
    if is_fault || is_never_caught || !(1..=LAST as c_int).contains(&signal) {
        Err(NOT_CATCHABLE)
    } else {
        Ok(())
    }
}

/// Installs `on_signal` as the handler of a signal, and stores the former disposition. SA_RESTART:
/// blocked system calls of the program continue.
fn take_over(signal: c_int) -> nix::Result<()> {
    let former = swap_action(signal, None)?;
    if former.sa_sigaction != on_signal as *const () as usize {
        FORMER[signal as usize].set(&former);
    }
    TAKEN.fetch_or(1 << (signal - 1), Ordering::Relaxed);
    let mut action = default_action();
    action.sa_sigaction = on_signal as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    action.sa_mask = *SigSet::all().as_ref();
    restore_in_children()?;
    swap_action(signal, Some(&action)).map(drop)
}

/// Makes every child of `fork` restore the dispositions from before its parent's loops.
fn restore_in_children() -> nix::Result<()> {
    static IS_DONE: AtomicBool = AtomicBool::new(false);
    extern "C" fn restore() {
        // Other signals cost no system call.
        let is_taken = |signal: &c_int| TAKEN.load(Ordering::Relaxed) >> (signal - 1) & 1 == 1;
        (1..=LAST as c_int).filter(is_taken).for_each(give_back);
    }
    if IS_DONE.load(Ordering::Acquire) {
        return Ok(());
    }
    // SAFETY: `restore` calls only sigaction, which is async-signal-safe, and may run twice.
    match unsafe { libc::pthread_atfork(None, None, Some(restore)) } {
        0 => {
            IS_DONE.store(true, Ordering::Release);
            Ok(())
        }
        errno => Err(Errno::from_raw(errno)),
    }
}

/// Restores the former disposition of a signal, unless someone else has changed it meanwhile.
fn give_back(signal: c_int) {
    let is_ours = swap_action(signal, None)
        .is_ok_and(|action| action.sa_sigaction == on_signal as *const () as usize);
    if is_ours {
        // Fails only for a signal that cannot be handled.
        let _ = swap_action(signal, Some(&FORMER[signal as usize].get()));
    }
}

fn default_action() -> sigaction {
    // SAFETY: all-zero is a valid sigaction, with the default handler and an empty mask.
    unsafe { std::mem::zeroed() }
}

/// Sets a signal's disposition, if one is given; returns the former one.
fn swap_action(signal: c_int, action: Option<&sigaction>) -> nix::Result<sigaction> {
    let mut former = default_action();
    let action = action.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the handler in the action is `on_signal`, which is async-signal-safe, or was
    // installed by the program; sigaction writes the former one to a live variable.
    Errno::result(unsafe { sigaction(signal, action, &mut former) })?;
    Ok(former)
}

/// The handler of all signals that loops handle. Async-signal-safe, and preserves errno.
extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let errno = Errno::last();
    let is_ours = |registry: &&Registry| registry.number == getpid().as_raw();
    let is_told = REGISTRY.made().filter(is_ours).is_some_and(|registry| registry.tell(signal));
    if !is_told {
        act_as_former(signal, info, context);
    }
    errno.set();
}

/// Acts as the former disposition: in a child that shares or has copied the memory, and when the
/// last loop has just stopped handling the signal. Async-signal-safe if the program's own handler
/// is.
fn act_as_former(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(former) = FORMER.get(signal as usize) else { return };
    match former.handler.load(Ordering::Acquire) {
        libc::SIG_IGN => {}
        libc::SIG_DFL => {
            if !matches!(signal, libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH) {
                let _ = swap_action(signal, Some(&default_action()));
                // SAFETY: raise takes any number; the signal is blocked here, and is delivered
                // after the handler returns.
                unsafe { libc::raise(signal) };
            }
        }
        handler => {
            let thread = gettid().as_raw();
            // A handler that was installed later and calls its predecessor, which is `on_signal`,
            // returns here.
            if former.caller.swap(thread, Ordering::Relaxed) != thread {
                call_former(former, handler, signal, info, context);
                former.caller.store(0, Ordering::Relaxed);
            }
        }
    }
}

/// Calls a handler of the program, with the signals blocked that it asked for and those that were
/// blocked when the signal arrived.
fn call_former(
    former: &Former,
    handler: usize,
    signal: c_int,
    info: *mut siginfo_t,
    context: *mut c_void,
) {
    // SAFETY: the kernel passes a valid context to a handler with SA_SIGINFO.
    let mut mask = unsafe { (*context.cast::<libc::ucontext_t>()).uc_sigmask };
    let flags = former.flags.load(Ordering::Relaxed);
    let own = if flags & libc::SA_NODEFER == 0 { 1 << (signal - 1) } else { 0 };
    add_signals(&mut mask, former.mask.load(Ordering::Relaxed) | own);
    // SAFETY: the set is initialized; the program installed this address as a handler of this type.
    unsafe {
        let mut all = mask;
        libc::pthread_sigmask(libc::SIG_SETMASK, &mask, &mut all);
        if flags & libc::SA_SIGINFO != 0 {
            std::mem::transmute::<usize, extern "C" fn(c_int, *mut siginfo_t, *mut c_void)>(
                handler,
            )(signal, info, context);
        } else {
            std::mem::transmute::<usize, extern "C" fn(c_int)>(handler)(signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    struct Nobody;

    impl Target for Nobody {
        fn signal(&self, _: c_int) {}
    }

    #[test]
    fn s11_a_watcher_is_freed_when_no_signal_handler_can_see_it() {
        let registration = Registration::new(libc::SIGUSR2, Nobody).unwrap();
        // As a signal handler that is walking the list.
        let registry = REGISTRY.get(Registry::new).unwrap();
        registry.running.fetch_add(1, Ordering::SeqCst);
        let has_returned = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(20));
                has_returned.store(true, Ordering::SeqCst);
                registry.running.fetch_sub(1, Ordering::SeqCst);
            });
            drop(registration);
            assert!(has_returned.load(Ordering::SeqCst));
        });
    }
}
