//! Signals: which loops want to know of them, and the one signal handler that tells them.
//!
//! A signal's disposition belongs to the process. It is taken when the first loop asks for that
//! signal, and given back when the last one no longer does. No mask is changed: a signalfd needs
//! one, which every thread and every child process would have to share. Signals come as often as
//! they can be told apart: like the kernel, a loop notes that one has come, not how often.
//!
//! The handler walks a list that changes while it does, and takes no lock. Changes take one, link
//! and unlink with one store, and free what they have unlinked when no handler runs any more: a
//! handler that began before the unlinking has counted itself in `running` before it looked at the
//! list, and one that begins later does not find it.
//!
//! While the handler runs, all signals wait: what the program does in a handler of its own (a
//! longjmp, say) must not happen between the steps of this one.
//!
//! In a forked child the loops' handlers are void (S33): the former dispositions are restored there
//! by `pthread_atfork`, and where that does not come (clone, vfork), a signal does what the former
//! disposition says. A child that makes loops of its own gets a registry of its own.
//!
//! `unsafe` lives here because a signal handler reaches the list through pointers, and the C
//! library takes functions as addresses.

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

/// Signals are numbered from 1 to this.
const LAST: usize = 64;

/// Who is told of signals.
pub(crate) trait Target: Send + Sync + 'static {
    /// A signal has come. Async-signal-safe, and leaves errno alone.
    fn signal(&self, signal: c_int);
}

/// One handler of a loop's for one signal; it ends when this is dropped.
pub(crate) struct Registration(TryArc<Watcher>);

/// An element of the list that the signal handler walks. It is there as long as its registration.
struct Watcher {
    next: AtomicPtr<Watcher>,
    signal: c_int,
    target: Box<dyn Target>,
    registry: &'static Registry,
}

/// Who wants to know of what, in one process.
struct Registry {
    /// The process's number, which a child that shares its memory (vfork) does not have.
    number: pid_t,
    changes: Mutex<()>,
    /// How many signal handlers are looking at the lists.
    running: AtomicUsize,
    lists: [AtomicPtr<Watcher>; LAST + 1],
}

static REGISTRY: PerProcess<Registry> = PerProcess::new();

/// What became of each signal before loops asked for it. A forked child inherits this with the
/// handlers.
static FORMER: [Former; LAST + 1] = [const { Former::new() }; LAST + 1];

/// The signals that loops have asked for; bit 0 is signal 1.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// A disposition, in words that a signal handler may read while they change.
struct Former {
    handler: AtomicUsize,
    flags: AtomicI32,
    mask: AtomicU64,
    /// The thread that calls the handler: one that comes back here from there is in a chain that
    /// has no end.
    caller: AtomicI32,
}

const NOT_CATCHABLE: Error = Error::new(Errno::EINVAL, Sentence::NotCatchable);

impl Registration {
    /// Has `target` told of every `signal` from now on, which is catchable.
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
        // In a forked child the list is a copy that nobody walks (S33).
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

    /// Puts a watcher into its list.
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

    /// Takes a watcher out of its list, and waits until no signal handler can be looking at it.
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

    /// Visits the watchers of a signal, each with the link that leads to it. Async-signal-safe as
    /// far as `visit` is.
    fn walk(&self, signal: c_int, mut visit: impl FnMut(&AtomicPtr<Watcher>, &Watcher)) {
        let Some(mut link) = self.lists.get(signal as usize) else { return };
        self.running.fetch_add(1, Ordering::SeqCst);
        // SAFETY: what is found in the list is not freed while `running` counts us.
        while let Some(watcher) = unsafe { link.load(Ordering::SeqCst).as_ref() } {
            visit(link, watcher);
            link = &watcher.next;
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    /// Waits until no signal handler can be looking at what is linked no more.
    fn wait_for_handlers(&self) {
        let mut turns = 0;
        while self.running.load(Ordering::SeqCst) != 0 {
            // A thread of lower priority may be in one, and get no turn by yielding.
            if turns < 100 {
                std::thread::yield_now()
            } else {
                std::thread::sleep(Duration::from_micros(50))
            }
            turns += 1;
        }
    }

    /// Tells the loops that want to know of a signal; false when there are none. Async-signal-safe.
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
        // SAFETY: the set is initialized, and the signal's number is in range.
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
        // SAFETY: the set is initialized, and the signal's number is in range.
        unsafe { libc::sigaddset(set, signal as c_int) };
    }
}

/// Whether a loop may handle a signal. That of a fault would come again as soon as the handler had
/// returned, for ever. (The C library keeps two more for itself, which sigaction refuses.)
pub(crate) fn check_catchable(signal: c_int) -> Result<()> {
    let is_fault = matches!(signal, libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL);
    let is_never_caught = matches!(signal, libc::SIGKILL | libc::SIGSTOP);
    if is_fault || is_never_caught || !(1..=LAST as c_int).contains(&signal) {
        Err(NOT_CATCHABLE)
    } else {
        Ok(())
    }
}

/// Makes `on_signal` a signal's handler, and remembers what was. SA_RESTART: what the program has
/// blocked in goes on.
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

/// Has every child that `fork` makes restore what was before its parent's loops asked for signals.
fn restore_in_children() -> nix::Result<()> {
    static IS_DONE: AtomicBool = AtomicBool::new(false);
    extern "C" fn restore() {
        // The others cost no system call.
        let is_taken = |signal: &c_int| TAKEN.load(Ordering::Relaxed) >> (signal - 1) & 1 == 1;
        (1..=LAST as c_int).filter(is_taken).for_each(give_back);
    }
    if IS_DONE.load(Ordering::Acquire) {
        return Ok(());
    }
    // A child that is forked before it is noted does it once more, which does no harm.
    // SAFETY: what is called in the child calls nothing but sigaction, which is async-signal-safe.
    match unsafe { libc::pthread_atfork(None, None, Some(restore)) } {
        0 => {
            IS_DONE.store(true, Ordering::Release);
            Ok(())
        }
        errno => Err(Errno::from_raw(errno)),
    }
}

/// Restores what was before loops asked for a signal, unless somebody else has taken it meanwhile.
fn give_back(signal: c_int) {
    let is_ours = swap_action(signal, None)
        .is_ok_and(|action| action.sa_sigaction == on_signal as *const () as usize);
    if is_ours {
        // It was taken, so it can be given back.
        let _ = swap_action(signal, Some(&FORMER[signal as usize].get()));
    }
}

fn default_action() -> sigaction {
    // SAFETY: all-zero is a valid sigaction, with the default handler and an empty mask.
    unsafe { std::mem::zeroed() }
}

/// Sets a signal's disposition, if there is one to be set; what it was.
fn swap_action(signal: c_int, action: Option<&sigaction>) -> nix::Result<sigaction> {
    let mut former = default_action();
    let action = action.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the handler in the action is `on_signal`, which is async-signal-safe, or was the
    // program's before; what was is written to a live variable.
    Errno::result(unsafe { sigaction(signal, action, &mut former) })?;
    Ok(former)
}

/// The handler of all signals that loops want to know of. Async-signal-safe, and leaves errno
/// alone.
extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let errno = Errno::last();
    let is_ours = |registry: &&Registry| registry.number == getpid().as_raw();
    let is_told = REGISTRY.made().filter(is_ours).is_some_and(|registry| registry.tell(signal));
    if !is_told {
        act_as_former(signal, info, context);
    }
    errno.set();
}

/// Does what the signal would have done before loops asked for it: in a child that shares or has
/// copied the memory, and when the last loop has just lost its interest. Async-signal-safe as far
/// as the program's own handler is.
fn act_as_former(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(former) = FORMER.get(signal as usize) else { return };
    match former.handler.load(Ordering::Acquire) {
        libc::SIG_IGN => {}
        libc::SIG_DFL => {
            if !matches!(signal, libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH) {
                let _ = swap_action(signal, Some(&default_action()));
                // SAFETY: raise takes any number. The signal is blocked here, and comes when the
                // handler has returned.
                unsafe { libc::raise(signal) };
            }
        }
        handler => {
            let thread = gettid().as_raw();
            // A handler that was installed after the loops' and calls it, as it calls what was
            // there before, comes back here.
            if former.caller.swap(thread, Ordering::Relaxed) != thread {
                call_former(former, handler, signal, info, context);
                former.caller.store(0, Ordering::Relaxed);
            }
        }
    }
}

/// Calls a handler of the program's, with the signals blocked that it asked for, and those that
/// were when the signal came.
fn call_former(
    former: &Former,
    handler: usize,
    signal: c_int,
    info: *mut siginfo_t,
    context: *mut c_void,
) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a context.
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
        // As a signal handler has it that walks the list.
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
