//! What is known of any task, whatever its future is: who refers to it, and how it is woken.
//!
//! A task's memory lives as long as it is referred to. Other threads have wakers, which are counted
//! in one word with the inbox's reference; they touch the state, the head and the shared part of
//! the loop. The loop's thread counts its own (the slot's, the join handle's, those of timers and
//! cells that will wake the task), which together are one of those; by the time that it has none
//! left, future and output, which stand behind the header (`body`), have been dropped there.
//!
//! Inside of a run of its loop a woken task goes to the end of the ready queue at once. From
//! elsewhere, or if that cannot grow, it goes to the loop's inbox. Of several threads that wake a
//! task one brings it there, and the wakes of the others wait for that thread.
//!
//! `unsafe` lives here because references are counted by hand, in two ways, and a waker has one
//! word for a task: the rest of the room has `SlotRef` and `TaskRef`.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

use super::state::State;
use crate::abi::handle::Handle;
use crate::event_loop::{Loop, Shared};
use crate::pending::posts::{Head, Post, PostKind};
use crate::sys::memory::TryArc;

/// What is known of any task. It stands at the beginning of the task's body.
#[repr(C)]
pub(crate) struct Header {
    head: Head<Loop>,
    state: State,
    /// References of the loop's thread, which alone uses what follows, but for `shared`.
    owners: Cell<u32>,
    /// One of the owners from the first waker on that is not borrowed from a poll; see `shared`.
    shared: ManuallyDrop<TryArc<Shared>>,
    /// The slot's. It has one before there is a waker or a join handle.
    handle: Cell<Option<Handle>>,
    /// Counts how often the task has had its slot wait for a time; see `Sleep`.
    pub(super) sleeps: Cell<u32>,
    status: Cell<Status>,
    /// It was aborted where the loop could not be reached: it ends at its next turn.
    pub(super) to_abort: Cell<bool>,
    /// Whether there is a join handle.
    pub(super) is_joined: Cell<bool>,
    /// Who waits for the end.
    pub(super) joiner: Waiter,
}

/// How far a task has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    /// Its future is there, and its slot is filled.
    Running,
    /// Its future is being dropped.
    Ending,
    /// Its output is there.
    Ended,
    /// Nothing is there.
    Empty,
}

/// The functions for one type of future. Each takes a task whose body was made with this table.
#[repr(C)]
pub(super) struct Table {
    kind: PostKind<Loop>,
    /// Moves the output of a task, whose status is `Ended`, to where there is room for an `Option`
    /// of it. The loop's thread.
    pub(super) take: unsafe fn(NonNull<Header>, *mut ()),
    /// Frees a task that nobody refers to any more.
    free: unsafe fn(NonNull<Header>),
}

impl Table {
    pub(super) const fn new(
        take: unsafe fn(NonNull<Header>, *mut ()),
        free: unsafe fn(NonNull<Header>),
    ) -> Table {
        Table { kind: PostKind::Wake(woken), take, free }
    }
}

impl Header {
    /// Of a task that the loop with this shared part will have in a slot; with one reference.
    pub(super) fn new(table: &'static Table, shared: &TryArc<Shared>) -> Header {
        Header {
            // SAFETY: the table lives for ever, and begins with the kind, right for a task.
            head: unsafe { Head::new(NonNull::from(table).cast()) },
            state: State::new(),
            owners: Cell::new(1),
            // SAFETY: `clone` makes this an owner, and it is not dropped before; `shared` says when
            // there is another one.
            shared: ManuallyDrop::new(unsafe { TryArc::from_raw(TryArc::as_raw(shared)) }),
            handle: Cell::new(None),
            sleeps: Cell::new(0),
            status: Cell::new(Status::Running),
            to_abort: Cell::new(false),
            is_joined: Cell::new(true),
            joiner: Waiter::default(),
        }
    }

    #[inline]
    pub(super) fn table(&self) -> &'static Table {
        // SAFETY: `new` has given the head a table, which begins with what the head says.
        unsafe { self.head.kind().cast::<Table>().as_ref() }
    }

    /// The shared part of the task's loop.
    ///
    /// # Safety
    /// The slot's reference is there, or a waker, the inbox's reference among them.
    #[inline]
    unsafe fn shared(&self) -> &TryArc<Shared> {
        &self.shared
    }

    /// The same while the task is running.
    pub(super) fn shared_if_running(&self) -> Option<&TryArc<Shared>> {
        // SAFETY: the slot's reference is there until the task has ended.
        (self.status() == Status::Running).then(|| unsafe { self.shared() })
    }

    #[inline]
    pub(super) fn status(&self) -> Status {
        self.status.get()
    }

    /// # Safety
    /// It is as the status says, and the task was `Running` until the first call.
    #[inline]
    pub(super) unsafe fn set_status(&self, status: Status) {
        self.status.set(status);
    }

    /// Whether it is a task of this loop. Only while `shared` may be called, else the loop may be
    /// another one at the same place.
    #[inline]
    fn is_of(&self, lp: &Loop) -> bool {
        TryArc::is_same(&self.shared, lp.shared())
    }

    #[inline]
    pub(super) fn handle(&self) -> Handle {
        self.handle
            .get()
            .expect("a task has a handle before it is polled, and before it has a join handle")
    }

    #[inline]
    pub(super) fn set_slot(&self, handle: Handle) {
        self.handle.set(Some(handle));
    }

    /// One more reference of the loop's thread; false if it has none any more.
    #[inline]
    fn own(&self) -> bool {
        let owners = self.owners.get();
        if owners > 0 {
            self.owners
                .set(owners.checked_add(1).expect("fewer references than memory has room for"));
        }
        owners > 0
    }

    /// Puts the task into the ready queue of its loop; false if it is another one's, or if there is
    /// no memory. Inside of a run of the loop.
    #[inline]
    fn wake_on(&self, lp: &Loop) -> bool {
        if !self.is_of(lp) {
            return false;
        }
        let Some(handle) = self.handle.get().filter(|_| lp.check_not_forked().is_ok()) else {
            return true;
        };
        lp.wake_task(handle)
    }
}

impl Drop for Header {
    #[inline]
    fn drop(&mut self) {
        if self.state.is_shared() {
            // SAFETY: it has been an owner from the first waker on, and is not used again.
            unsafe { ManuallyDrop::drop(&mut self.shared) };
        }
    }
}

/// One of those that refer to a task and that all threads count: a waker, the inbox, or the loop's
/// thread with all that it has. What it points to is a whole body.
struct SharedRef(NonNull<Header>);

impl SharedRef {
    /// # Safety
    /// The reference is the waker's or the inbox's: if it is dropped here, it is not used there
    /// again.
    #[inline]
    unsafe fn from_raw(data: *const ()) -> ManuallyDrop<SharedRef> {
        ManuallyDrop::new(SharedRef(
            NonNull::new(data.cast_mut().cast()).expect("a reference is not null"),
        ))
    }

    /// # Safety
    /// As for `shared`.
    #[inline]
    unsafe fn wake(&self) {
        if !Loop::with_running(|lp| lp.is_some_and(|lp| self.wake_on(lp))) {
            // SAFETY: the shared part is there, as the caller promises.
            self.post(unsafe { self.shared() });
        }
    }

    /// Posts the task to its loop, unless it is on its way already.
    #[cold]
    fn post(&self, shared: &TryArc<Shared>) {
        if shared.process().is_current() && self.state.begin_post() {
            let of_inbox = ManuallyDrop::new(SharedRef(self.0));
            // SAFETY: the head stands at the beginning of the task, in no inbox, and is there until
            // `woken` takes the inbox's reference.
            if shared.send(unsafe { Post::from_raw(self.0.cast()) }).is_err() {
                drop(ManuallyDrop::into_inner(of_inbox));
            }
        }
    }
}

impl Deref for SharedRef {
    type Target = Header;

    #[inline]
    fn deref(&self) -> &Header {
        // SAFETY: the task is not freed while this is counted.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedRef {
    #[inline]
    fn drop(&mut self) {
        let free = self.table().free;
        if self.state.release() {
            // SAFETY: nobody refers to the task any more; future and output are gone, since the
            // loop's thread has no reference.
            unsafe { free(self.0) };
        }
    }
}

/// A reference of the loop's thread to a task.
pub(crate) struct TaskRef(ManuallyDrop<SharedRef>);

/// The slot's reference to a task, which is not running any more when this is dropped. While this
/// is there, so is the shared part of the loop.
pub(super) struct SlotRef(TaskRef);

impl SlotRef {
    /// The first two references to a task that has been made, one of them for its slot.
    ///
    /// # Safety
    /// The pointer is to the whole of a body, which the table's `free` can free, and whose header
    /// is new. The slot's reference is used as its comment says.
    pub(super) unsafe fn of_new(task: NonNull<Header>) -> (SlotRef, TaskRef) {
        let task = TaskRef(ManuallyDrop::new(SharedRef(task)));
        (SlotRef(task.clone()), task)
    }

    #[inline]
    pub(super) fn shared(&self) -> &TryArc<Shared> {
        // SAFETY: this is the slot's reference.
        unsafe { self.0.shared() }
    }

    /// A waker that need not be counted, as this reference is there meanwhile.
    #[inline]
    pub(super) fn waker(&self) -> impl Deref<Target = Waker> {
        // SAFETY: the functions are those for a task, and keep the contract of RawWaker; the waker
        // is not dropped, and is borrowed from this.
        ManuallyDrop::new(unsafe { Waker::new(self.as_ptr().as_ptr().cast(), &VTABLE) })
    }
}

impl Deref for SlotRef {
    type Target = TaskRef;

    #[inline]
    fn deref(&self) -> &TaskRef {
        &self.0
    }
}

impl TaskRef {
    /// The task that a waker wakes, if it is one of the loop that is running on this thread.
    #[inline]
    pub(super) fn of(waker: &Waker, lp: &Loop) -> Option<TaskRef> {
        if !is_of_task(waker) {
            return None;
        }
        // SAFETY: it is the waker's, which is there meanwhile; what is made of it is not dropped
        // before it is counted.
        let task = unsafe { SharedRef::from_raw(waker.data()) };
        (task.is_of(lp) && task.own()).then(|| TaskRef(task))
    }

    /// Whether this is the task that a waker wakes.
    #[inline]
    pub(super) fn is_for(&self, waker: &Waker) -> bool {
        std::ptr::eq(self.as_ptr().as_ptr().cast(), waker.data()) && is_of_task(waker)
    }

    /// Where the whole body is.
    #[inline]
    pub(super) fn as_ptr(&self) -> NonNull<Header> {
        self.0.0
    }

    #[inline]
    pub(super) fn wake(&self) {
        if self.status() == Status::Running {
            // SAFETY: the slot's reference is there until the task has ended.
            unsafe { self.0.wake() };
        }
    }
}

impl Clone for TaskRef {
    #[inline]
    fn clone(&self) -> TaskRef {
        self.own();
        TaskRef(ManuallyDrop::new(SharedRef(self.as_ptr())))
    }
}

impl Deref for TaskRef {
    type Target = Header;

    #[inline]
    fn deref(&self) -> &Header {
        &self.0
    }
}

impl Drop for TaskRef {
    #[inline]
    fn drop(&mut self) {
        let left = self.owners.get() - 1;
        self.owners.set(left);
        if left == 0 {
            // The loop's thread has none left. It is not `Send`, so this is that thread.
            drop(SharedRef(self.as_ptr()));
        }
    }
}

/// The functions of wakers. The data of a waker is a task, which it refers to, or which a poll
/// refers to meanwhile.
static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

fn is_of_task(waker: &Waker) -> bool {
    std::ptr::eq(waker.vtable(), &VTABLE)
}

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: the waker is there meanwhile.
    let (task, shared) = unsafe { (SharedRef::from_raw(data), (*data.cast::<Header>()).shared()) };
    if task.state.share() {
        std::mem::forget(TryArc::clone(shared));
    }
    RawWaker::new(data, &VTABLE)
}

unsafe fn wake(data: *const ()) {
    // SAFETY: the waker's reference is given up, after it was used.
    unsafe { ManuallyDrop::into_inner(SharedRef::from_raw(data)).wake() };
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: the waker is there meanwhile.
    unsafe { SharedRef::from_raw(data).wake() };
}

unsafe fn drop_waker(data: *const ()) {
    // SAFETY: the waker's reference is given up.
    drop(ManuallyDrop::into_inner(unsafe { SharedRef::from_raw(data) }));
}

/// Takes a task out of its loop's inbox, and tells which it is. On the loop's thread, or for an
/// inbox that is closed.
///
/// # Safety
/// The post is a task's.
unsafe fn woken(post: Post<Loop>) -> Handle {
    // SAFETY: the caller says whose post it is, and the inbox's reference is given up.
    let task =
        ManuallyDrop::into_inner(unsafe { SharedRef::from_raw(post.into_raw().as_ptr().cast()) });
    task.state.taken();
    task.handle()
}

/// Wakes whoever polled something on this thread: without an atomic instruction if that was a task
/// of the loop that runs here.
pub(crate) enum Notify {
    Task(TaskRef),
    Other(Waker),
}

impl Notify {
    #[inline]
    pub(crate) fn of(waker: &Waker) -> Notify {
        Loop::with_running(|lp| lp.and_then(|lp| TaskRef::of(waker, lp)))
            .map_or_else(|| Notify::Other(waker.clone()), Notify::Task)
    }

    /// Whether it wakes the same as this waker does.
    pub(crate) fn is_for(&self, waker: &Waker) -> bool {
        match self {
            Notify::Task(task) => task.is_for(waker),
            Notify::Other(other) => other.will_wake(waker),
        }
    }

    #[inline]
    pub(crate) fn wake(self) {
        match self {
            Notify::Task(task) => task.wake(),
            Notify::Other(waker) => waker.wake(),
        }
    }
}

/// Who waits for something that comes once, if anybody does.
#[derive(Default)]
pub(crate) struct Waiter(Cell<Option<Notify>>);

impl Waiter {
    /// Has whoever polls be woken by the next `wake`, and nobody else; false if there is nothing to
    /// wait for.
    #[inline]
    pub(crate) fn wait(&self, context: &Context<'_>, is_pending: impl Fn() -> bool) -> bool {
        if !is_pending() {
            return false;
        }
        let notify = self.take().filter(|former| former.is_for(context.waker()));
        let notify = notify.unwrap_or_else(|| Notify::of(context.waker()));
        // The wakers of others are user code, which may have brought it about.
        let is_pending = is_pending();
        if is_pending {
            self.0.set(Some(notify));
        }
        is_pending
    }

    #[inline]
    pub(crate) fn wake(&self) {
        self.take().into_iter().for_each(Notify::wake);
    }

    /// Nobody waits any more. Dropping who did may be user code.
    #[inline]
    pub(crate) fn take(&self) -> Option<Notify> {
        self.0.take()
    }
}
