//! What other threads may do with a loop: post to it, wake it, stop it. A remote may outlive its loop (S23).

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use libc::c_int;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::abi::handle::Handle;
use crate::error::{Error, Result, Sentence};
use crate::event_loop::Callback;
use crate::event_loop::Held;
use crate::event_loop::Loop;
use crate::event_loop::Schedule;
use crate::observe::trace::Trace;
use crate::pending::event::Event;
use crate::sys::fork::Process;
use crate::sys::try_arc::TryArc;
use crate::threads::inbox::{Inbox, Link, Post, Posts};
use crate::threads::post_box::PostBox;
use crate::time::{self, monotonic};

/// A loop as other threads know it: they post callbacks to it, wake it, stop it.
///
/// It is cheap to clone, and may outlive the loop: then everything says ESHUTDOWN. Everything here is for any thread, the
/// loop's own and those of other loops included, and takes no lock (but that of the file where there is a trace). In a forked child everything says EOWNERDEAD (S33).
///
/// ```
/// use ringloop::Loop;
///
/// let lp = Loop::new()?;
/// let remote = lp.remote();
/// let worker = std::thread::spawn(move || {
///     let sum: u64 = (1..=1000).sum();
///     remote.call_soon(move |lp| {
///         println!("the sum is {sum}");
///         lp.stop().unwrap();
///     })
/// });
/// lp.run_forever()?;
/// worker.join().unwrap()?;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Clone)]
pub struct Remote {
    shared: TryArc<Shared>,
}

/// A callback that a loop did not take, and why.
pub struct Refused<F> {
    /// The callback, as it was.
    pub callback: F,
    /// Why it was refused.
    pub error: Error,
}

/// What a loop and its remotes share.
pub(crate) struct Shared {
    pub(crate) inbox: Inbox,
    process: Process,
    /// Written to wake the loop; a poll for it stands in the ring. Not closed in a forked child, where the number may be
    /// another file's (S33).
    eventfd: ManuallyDrop<EventFd>,
    /// What a host loop waits for, if there is one: the descriptor of `Loop::fd`.
    host: OnceLock<ManuallyDrop<EventFd>>,
    is_virtual: bool,
    /// The signals that have come and that the loop has handlers for; bit 0 is signal 1.
    signals: AtomicU64,
    wakes: AtomicU64,
    trace: Option<Trace>,
}

/// A post with a value.
#[repr(C)]
pub(crate) struct Node<T> {
    head: Head,
    /// When it is due: a time, or a delay on a virtual clock. None: as soon as the loop has taken it.
    when: Option<u64>,
    pub(crate) value: T,
}

/// A value that can be posted: the loop's thread makes of it what is to run.
pub(crate) trait Posted: Send + Sized {
    fn unpack(node: PostBox<Node<Self>>) -> Held;
}

/// What is known of every post.
#[repr(C)]
pub(crate) struct Head {
    link: Link,
    /// It lives for ever.
    what: NonNull<What>,
}

/// What the loop makes of a post. The functions take a post of the type that they were chosen for.
#[derive(Clone, Copy)]
pub(crate) enum What {
    /// A node: turns it into what is to run.
    Call(unsafe fn(NonNull<Link>) -> Held),
    /// A task that has been woken: tells which.
    Wake(unsafe fn(NonNull<Link>) -> Handle),
    /// Work that is done, which the executor knows by this post.
    Work,
}

impl Head {
    pub(crate) fn new(what: &'static What) -> Head {
        Head { link: Link::new(), what: NonNull::from(what) }
    }

    /// The head of a task, which is a post while it is woken.
    ///
    /// # Safety
    /// What the pointer is to lives for ever.
    pub(crate) unsafe fn of_task(what: NonNull<What>) -> Head {
        Head { link: Link::new(), what }
    }

    /// What was given to `of_task`.
    ///
    /// # Safety
    /// The head lives. Its link may be in use by others.
    #[inline]
    pub(crate) unsafe fn what(head: *const Head) -> NonNull<What> {
        // SAFETY: nobody writes to it.
        unsafe { (*head).what }
    }
}

impl Shared {
    pub(crate) fn new(process: Process, is_virtual: bool, trace: Option<Trace>) -> Result<TryArc<Shared>> {
        TryArc::new(Shared {
            inbox: Inbox::new(),
            process,
            eventfd: ManuallyDrop::new(new_eventfd(Sentence::WakeFdFailed)?),
            host: OnceLock::new(),
            is_virtual,
            signals: AtomicU64::new(0),
            wakes: AtomicU64::new(0),
            trace,
        })
    }

    /// What is written to wake the loop.
    pub(crate) fn eventfd(&self) -> &EventFd {
        &self.eventfd
    }

    /// What a host loop waits for, if `make_host_fd` has been called.
    #[inline]
    pub(crate) fn host_fd(&self) -> Option<&EventFd> {
        self.host.get().map(|fd| &**fd)
    }

    /// Makes what a host loop waits for, and has `prepare` do with it what is to come before others know of it. The loop's
    /// thread.
    pub(crate) fn make_host_fd(&self, prepare: impl FnOnce(&EventFd) -> Result<()>) -> Result<()> {
        let fd = new_eventfd(Sentence::EventFdFailed)?;
        prepare(&fd)?;
        // It is made once, by one thread: there is none yet.
        let _ = self.host.set(ManuallyDrop::new(fd));
        Ok(())
    }

    /// How many wakes have been sent.
    pub(crate) fn wakes(&self) -> u64 {
        self.wakes.load(Relaxed)
    }

    /// Posts a value, `delay` from now where there is one. A value that is refused comes back.
    pub(crate) fn post<T: Posted>(&self, value: T, delay: Option<u64>) -> std::result::Result<(), (T, Error)> {
        if !self.process.is_current() {
            return Err((value, Error::FORKED));
        }
        let when = delay.map(|delay| if self.is_virtual { delay } else { monotonic().saturating_add(delay) });
        let node = Node { head: Head::new(const { &What::Call(unpack_value::<T>) }), when, value };
        let node = match PostBox::new(node) {
            Ok(node) => node.into_raw(),
            Err(node) => return Err((node.value, Error::NO_MEMORY)),
        };
        if let Some(trace) = self.trace {
            trace.post();
        }
        // SAFETY: the node is fresh, begins with its link, and stays where it is until it is unpacked.
        if let Some(is_asleep) = unsafe { self.inbox.push(node.cast()) } {
            self.wake(is_asleep);
            return Ok(());
        }
        // SAFETY: it was refused, so it is still ours.
        let node = unsafe { PostBox::from_raw(node) };
        Err((node.open().value, Error::SHUT_DOWN))
    }

    /// Posts that a task has been woken, or that work is done; false when the inbox is closed. Any thread, and allocates nothing.
    ///
    /// # Safety
    /// The head is at the beginning of what its `What` takes; it stands in no inbox, and stays where it is until it is taken.
    pub(crate) unsafe fn post_head(&self, head: NonNull<Head>) -> bool {
        // SAFETY: the head begins with its link, and the rest is as the caller says.
        let posted = unsafe { self.inbox.push(head.cast()) };
        self.wake(posted == Some(true));
        posted.is_some()
    }

    /// The process that the loop lives in.
    pub(crate) fn process(&self) -> Process {
        self.process
    }

    /// Makes the loop's current sleep, or its next one, return at once (S27). Async-signal-safe, and leaves errno alone.
    pub(crate) fn wakeup(&self) -> Result<()> {
        if !self.process.is_current() {
            return Err(Error::FORKED);
        }
        let is_asleep = self.inbox.latch().ok_or(Error::SHUT_DOWN)?;
        self.wake(is_asleep);
        Ok(())
    }

    /// Has the loop call `stop`, in order with what else is posted.
    pub(crate) fn stop(&self) -> Result<()> {
        let stop = |lp: &Loop| {
            // It fails on a loop that is being closed, which has stopped.
            let _ = lp.stop();
        };
        self.post_closure(stop, None).map_err(|(_, error)| error)
    }

    fn post_closure<F>(&self, f: F, delay: Option<u64>) -> std::result::Result<(), (F, Error)>
    where
        F: FnOnce(&Loop) + Send + 'static,
    {
        self.post(Closure(f), delay).map_err(|(Closure(f), error)| (f, error))
    }

    /// Tells the loop that a signal has come. Async-signal-safe, and leaves errno alone.
    pub(crate) fn signal(&self, signal: c_int) {
        self.signals.fetch_or(1 << (signal - 1), Relaxed);
        self.wake(self.inbox.signal());
    }

    /// Tells the loop, whose inbox takes no more, that work has been done for it on another thread.
    pub(crate) fn work_done(&self) {
        self.wake(self.inbox.signal());
    }

    /// Ends the loop's sleep, if that is what it does.
    fn wake(&self, is_asleep: bool) {
        if is_asleep {
            self.wakes.fetch_add(1, Relaxed);
            let errno = Errno::last();
            // EAGAIN says that it has been written 2^64 - 2 times, and never read: nobody will live to see that.
            let _ = self.eventfd.write(1);
            if let Some(host) = self.host_fd() {
                // Of a poll that an eventfd completes, the kernel tells the ring's eventfd late, and but once, on a ring with
                // DEFER_TASKRUN (measured on 6.18).
                let _ = host.write(1);
            }
            errno.set();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The loop has closed the inbox and taken out what was there.
        if self.process.is_current() {
            // SAFETY: dropped once, here, and not used again.
            unsafe { ManuallyDrop::drop(&mut self.eventfd) };
            if let Some(host) = self.host.take() {
                drop(ManuallyDrop::into_inner(host));
            }
        }
    }
}

fn new_eventfd(otherwise: Sentence) -> Result<EventFd> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(|errno| match errno {
        Errno::EMFILE => Error::new(errno, Sentence::NoDescriptor),
        Errno::ENFILE => Error::new(errno, Sentence::NoSystemDescriptor),
        _ => Error::new(errno, otherwise),
    })
}

impl Remote {
    pub(crate) fn new(shared: TryArc<Shared>) -> Remote {
        Remote { shared }
    }

    /// Runs `f` on the loop's thread, as soon as the loop comes to it: after what this thread has posted before, and in
    /// order with the loop's own `call_soon` by the time of the call (S26). It counts for [`Loop::run`] from then on.
    ///
    /// Costs a compare-and-swap, now and then an allocation, and a system call (some 5 µs) only if the loop sleeps and nobody
    /// else has woken it. Errors, which give `f` back: ESHUTDOWN when the loop is shut down, closing or gone; EOWNERDEAD
    /// in a forked child; ENOMEM. An `f` that was accepted runs, or is dropped when the loop is closed (S23).
    pub fn call_soon<F: FnOnce(&Loop) + Send + 'static>(&self, f: F) -> std::result::Result<(), Refused<F>> {
        self.shared.post_closure(f, None).map_err(Refused::from)
    }

    /// As [`call_soon`](Remote::call_soon), `delay` from now.
    pub fn call_later<F: FnOnce(&Loop) + Send + 'static>(
        &self,
        delay: Duration,
        f: F,
    ) -> std::result::Result<(), Refused<F>> {
        self.shared.post_closure(f, Some(time::nanos(delay))).map_err(Refused::from)
    }

    /// Makes the loop's sleep return at once, or its next one if it is awake (S27). Async-signal-safe; leaves errno alone.
    ///
    /// Errors: ESHUTDOWN when the loop is shut down, closing or gone; EOWNERDEAD.
    pub fn wakeup(&self) -> Result<()> {
        self.shared.wakeup()
    }

    /// Has the loop call [`Loop::stop`], in order with what else is posted. Errors: those of
    /// [`call_soon`](Remote::call_soon).
    pub fn stop(&self) -> Result<()> {
        self.shared.stop()
    }
}

impl Loop {
    /// The loop as other threads know it. O(1), allocates nothing.
    pub fn remote(&self) -> Remote {
        Remote::new(self.shared.clone())
    }

    /// S5 (b): appends to the ready queue all that other threads have posted, the handlers of the signals that have
    /// come, and the work that is done. What there is no memory for goes back to the inbox, in order. A load when there is nothing.
    #[inline(always)]
    pub(crate) fn collect_posts(&self, schedule: &mut Schedule) -> Result<()> {
        if self.shared.inbox.has_posts() { self.take_posts(schedule) } else { Ok(()) }
    }

    #[cold]
    fn take_posts(&self, schedule: &mut Schedule) -> Result<()> {
        let mut posts = self.shared.inbox.take();
        let collected = self.append_posts(schedule, &mut posts);
        if collected.is_err() {
            self.shared.inbox.put_back(posts);
            self.shared.inbox.signal();
        }
        collected
    }

    fn append_posts(&self, schedule: &mut Schedule, posts: &mut Posts) -> Result<()> {
        while let Some(first) = posts.first() {
            let due = due(first, self);
            match due {
                Due::Soon => schedule.reserve_post()?,
                Due::At(when) => schedule.reserve_delayed_post(when)?,
                Due::Wake(_) => schedule.reserve_wake()?,
                Due::Work => schedule.reserve_completions(1)?,
            }
            match (posts.pop(), due) {
                (Some(post), Due::Soon) => schedule.add_post(post),
                (Some(post), Due::At(when)) => schedule.add_delayed_post(when, unpack(post)),
                // SAFETY: the post is ours, and its head knows its type.
                (Some(post), Due::Wake(woken)) => schedule.wake_task(unsafe { woken(post.into_raw()) }),
                (Some(post), Due::Work) => self.executor.take(schedule, post),
                (None, _) => {}
            }
        }
        let came = self.shared.signals.load(Relaxed);
        schedule.signals_came(came)?;
        self.shared.signals.fetch_and(!came, Relaxed);
        self.executor.collect(schedule)
    }
}

/// When a post is due.
enum Due {
    Soon,
    At(u64),
    /// At once: its task then stands in the ready queue.
    Wake(unsafe fn(NonNull<Link>) -> Handle),
    /// At once: the result of work then stands there.
    Work,
}

fn due(post: NonNull<Link>, lp: &Loop) -> Due {
    match what(post) {
        What::Wake(woken) => Due::Wake(woken),
        What::Work => Due::Work,
        // SAFETY: it is a node, whose time stands where it does whatever the value.
        What::Call(_) => match unsafe { post.cast::<Node<()>>().as_ref() }.when {
            None => Due::Soon,
            Some(delay) if lp.shared.is_virtual => Due::At(lp.clock.now().saturating_add(delay)),
            Some(when) => Due::At(when),
        },
    }
}

#[inline]
pub(crate) fn what(post: NonNull<Link>) -> What {
    // SAFETY: every post begins with its head, which does not depend on what it carries, and what that points to lives for ever.
    *unsafe { Head::what(post.cast().as_ptr()).as_ref() }
}

/// Makes of a post what is to run.
#[inline]
pub(crate) fn unpack(post: Post) -> Held {
    let post = post.into_raw();
    match what(post) {
        // SAFETY: the post is ours, and its head knows its type.
        What::Call(unpack) => unsafe { unpack(post) },
        What::Wake(woken) => {
            // SAFETY: as above.
            unsafe { woken(post) };
            Held { callback: Callback::EMPTY, release: None }
        }
        // The executor takes that.
        What::Work => Held { callback: Callback::EMPTY, release: None },
    }
}

/// # Safety
/// The post is a `Node<T>` that nobody else has.
unsafe fn unpack_value<T: Posted>(post: NonNull<Link>) -> Held {
    // SAFETY: the post was made of a box for a `Node<T>`, and is nobody else's.
    T::unpack(unsafe { PostBox::from_raw(post.cast()) })
}

/// A closure that is posted.
struct Closure<F>(F);

impl<F: FnOnce(&Loop) + Send + 'static> Posted for Closure<F> {
    fn unpack(node: PostBox<Node<Closure<F>>>) -> Held {
        let callback = if Callback::is_inline::<F>() {
            Callback::once(node.open().value.0)
        } else {
            Callback::once_for::<F, _>(move |lp: &Loop, _: &Event| (node.open().value.0)(lp))
        };
        // Both are inline, which is never refused.
        Held { callback: callback.unwrap_or(Callback::EMPTY), release: None }
    }
}

impl<F> From<(F, Error)> for Refused<F> {
    fn from((callback, error): (F, Error)) -> Refused<F> {
        Refused { callback, error }
    }
}

impl<F> From<Refused<F>> for Error {
    fn from(refused: Refused<F>) -> Error {
        refused.error
    }
}

impl<F> fmt::Debug for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<F> fmt::Display for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<F> std::error::Error for Refused<F> {}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}
