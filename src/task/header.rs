//! The header of a task, whatever its future: reference counts, and how the task is woken.
//!
//! A task's memory lives as long as references exist. Wakers of other threads and the inbox's
//! reference are counted atomically in one word; they use only the state, the head and the shared
//! part of the loop. The loop's thread counts its own references (the slot's, the join handle's,
//! those of timers and cells that will wake the task) separately; together they are one atomic
//! reference. Before the last of them ends, future and output, behind the header (`body`), have
//! been dropped there.
//!
//! Inside a run of its loop, a woken task enters the ready queue at once. From elsewhere, or if
//! that queue cannot grow, the task goes to the loop's inbox. If several threads wake a task, one
//! posts it, and the other wakes are merged with that post.
//!
//! `unsafe` is here because references are counted by hand, in two ways, and a waker has one word
//! for a task. The rest of this room uses `SlotRef` and `TaskRef`.

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

/// The header of any task, at the beginning of its body.
#[repr(C)]
pub(crate) struct Header {
    head: Head<Loop>,
    state: State,
    /// References of the loop's thread, the only user of the following fields, except for `shared`.
    owners: Cell<u32>,
    /// Owns the shared part from the first waker on that is not borrowed from a poll; see `shared`.
    shared: ManuallyDrop<TryArc<Shared>>,
    /// The slot's handle, set before there is a waker or a join handle.
    handle: Cell<Option<Handle>>,
    /// The number of sleeps in the task's slot; see `Sleep`.
    pub(super) sleeps: Cell<u32>,
    status: Cell<Status>,
    /// The task was aborted outside a run of its loop: it ends at its next turn.
    pub(super) to_abort: Cell<bool>,
    /// Whether there is a join handle.
    pub(super) is_joined: Cell<bool>,
    /// The waiter for the task's end.
    pub(super) joiner: Waiter,
}

/// The progress of a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    /// Its future exists, and its slot is filled.
    Running,
    /// Its future is being dropped.
    Ending,
    /// Its output exists.
    Ended,
    /// Future and output are gone.
    Empty,
}

/// The functions for one type of future. Each takes a task whose body was made with this table.
#[repr(C)]
pub(super) struct Table {
    kind: PostKind<Loop>,
    /// Moves the output of a task, whose status is `Ended`, to an `Option` of it at the address.
    /// For the loop's thread.
    pub(super) take: unsafe fn(NonNull<Header>, *mut ()),
    /// Frees a task without references.
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
    /// A task for a slot of the loop with this shared part; with one reference.
    pub(super) fn new(table: &'static Table, shared: &TryArc<Shared>) -> Header {
        Header {
            // SAFETY: the table is static, and `repr(C)` guarantees that it begins with the kind,
            // that of a task.
            head: unsafe { Head::new(NonNull::from(table).cast()) },
            state: State::new(),
            owners: Cell::new(1),
            // SAFETY: `clone` for the first waker makes this an owner, it is not dropped before,
            // and until then the callers of `shared` guarantee another owner.
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
        // SAFETY: `new` gave the head a table, which begins with the kind.
        unsafe { self.head.kind().cast::<Table>().as_ref() }
    }

    /// The shared part of the task's loop.
    ///
    /// # Safety
    /// The slot's reference exists, or a waker, or the inbox's reference.
    #[inline]
    unsafe fn shared(&self) -> &TryArc<Shared> {
        &self.shared
    }

    /// The same while the task is running.
    pub(super) fn shared_if_running(&self) -> Option<&TryArc<Shared>> {
        // SAFETY: the slot's reference exists until the task has ended.
        (self.status() == Status::Running).then(|| unsafe { self.shared() })
    }

    #[inline]
    pub(super) fn status(&self) -> Status {
        self.status.get()
    }

    /// # Safety
    /// `status` matches the stage of the body, and the task was `Running` until the first call.
    #[inline]
    pub(super) unsafe fn set_status(&self, status: Status) {
        self.status.set(status);
    }

    /// Whether it is a task of this loop. Only while `shared` may be called; otherwise the loop may
    /// be another one at the same address.
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

    /// Adds a reference of the loop's thread; false if that has none left.
    #[inline]
    fn own(&self) -> bool {
        let owners = self.owners.get();
        if owners > 0 {
            self.owners
                .set(owners.checked_add(1).expect("fewer references than memory has room for"));
        }
        owners > 0
    }

    /// Appends the task to the ready queue of its loop; false if it belongs to another loop, or if
    /// memory is refused. Inside a run of the loop.
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
            // SAFETY: the first waker made this an owner, and the field is not used again.
            unsafe { ManuallyDrop::drop(&mut self.shared) };
        }
    }
}

/// An atomically counted reference to a task: that of a waker, of the inbox, or of the loop's
/// thread for all of its references. It points to a whole body.
struct SharedRef(NonNull<Header>);

impl SharedRef {
    /// # Safety
    /// The reference is the waker's or the inbox's, which does not use it again if it is dropped
    /// here.
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
            // SAFETY: the caller guarantees that the shared part exists.
            self.post(unsafe { self.shared() });
        }
    }

    /// Posts the task to its loop, unless it is in the inbox already.
    #[cold]
    fn post(&self, shared: &TryArc<Shared>) {
        if shared.process().is_current() && self.state.begin_post() {
            let of_inbox = ManuallyDrop::new(SharedRef(self.0));
            // SAFETY: the head is at the beginning of the task, `begin_post` proved that it is in
            // no inbox, and the inbox's reference keeps it until `woken`.
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
        // SAFETY: the task is not freed while this reference is counted.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedRef {
    #[inline]
    fn drop(&mut self) {
        let free = self.table().free;
        if self.state.release() {
            // SAFETY: `release` proved that no reference is left, and the loop's thread has dropped
            // future and output before its last reference.
            unsafe { free(self.0) };
        }
    }
}

/// A reference of the loop's thread to a task.
pub(crate) struct TaskRef(ManuallyDrop<SharedRef>);

/// The slot's reference to a task. The task has ended before this is dropped, and the shared part
/// of the loop lives as long as this.
pub(super) struct SlotRef(TaskRef);

impl SlotRef {
    /// The first two references to a new task, one of them for its slot.
    ///
    /// # Safety
    /// The pointer is to a whole body, which the table's `free` can free, and whose header is new.
    /// The slot's reference is used as its comment says.
    pub(super) unsafe fn of_new(task: NonNull<Header>) -> (SlotRef, TaskRef) {
        let task = TaskRef(ManuallyDrop::new(SharedRef(task)));
        (SlotRef(task.clone()), task)
    }

    #[inline]
    pub(super) fn shared(&self) -> &TryArc<Shared> {
        // SAFETY: this is the slot's reference.
        unsafe { self.0.shared() }
    }

    /// A waker that is not counted, because this reference outlives it.
    #[inline]
    pub(super) fn waker(&self) -> impl Deref<Target = Waker> {
        // SAFETY: the functions of `VTABLE` are those for a task and keep the contract of RawWaker,
        // and the waker is borrowed from this reference and not dropped.
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
    /// The task of a waker, if it belongs to the loop that is running on this thread.
    #[inline]
    pub(super) fn of(waker: &Waker, lp: &Loop) -> Option<TaskRef> {
        if !is_of_task(waker) {
            return None;
        }
        // SAFETY: the waker keeps the reference meanwhile, and the `TaskRef` is only dropped after
        // `own` has counted it.
        let task = unsafe { SharedRef::from_raw(waker.data()) };
        (task.is_of(lp) && task.own()).then(|| TaskRef(task))
    }

    /// Whether a waker wakes this task.
    #[inline]
    pub(super) fn is_for(&self, waker: &Waker) -> bool {
        std::ptr::eq(self.as_ptr().as_ptr().cast(), waker.data()) && is_of_task(waker)
    }

    /// The address of the whole body.
    #[inline]
    pub(super) fn as_ptr(&self) -> NonNull<Header> {
        self.0.0
    }

    #[inline]
    pub(super) fn wake(&self) {
        if self.status() == Status::Running {
            // SAFETY: the slot's reference exists until the task has ended.
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
            // The loop's thread has no reference left. A `TaskRef` is not `Send`, so this is that
            // thread.
            drop(SharedRef(self.as_ptr()));
        }
    }
}

/// The functions of wakers. The data of a waker is a task, to which the waker or the current poll
/// has a reference.
static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

fn is_of_task(waker: &Waker) -> bool {
    std::ptr::eq(waker.vtable(), &VTABLE)
}

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: the caller of `clone` guarantees that the waker is alive meanwhile.
    let (task, shared) = unsafe { (SharedRef::from_raw(data), (*data.cast::<Header>()).shared()) };
    if task.state.share() {
        std::mem::forget(TryArc::clone(shared));
    }
    RawWaker::new(data, &VTABLE)
}

unsafe fn wake(data: *const ()) {
    // SAFETY: the caller of `wake` gives up the waker's reference, which is dropped after its use.
    unsafe { ManuallyDrop::into_inner(SharedRef::from_raw(data)).wake() };
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: the caller of `wake_by_ref` guarantees that the waker is alive meanwhile.
    unsafe { SharedRef::from_raw(data).wake() };
}

unsafe fn drop_waker(data: *const ()) {
    // SAFETY: the caller of `drop_waker` gives up the waker's reference.
    drop(ManuallyDrop::into_inner(unsafe { SharedRef::from_raw(data) }));
}

/// Takes a task out of its loop's inbox, and returns its handle. On the loop's thread, or for a
/// closed inbox.
///
/// # Safety
/// The post is that of a task.
unsafe fn woken(post: Post<Loop>) -> Handle {
    // SAFETY: the caller guarantees that the post is a task's, and the inbox gives up its
    // reference.
    let task =
        ManuallyDrop::into_inner(unsafe { SharedRef::from_raw(post.into_raw().as_ptr().cast()) });
    task.state.taken();
    task.handle()
}

/// Wakes the last poller on this thread; without an atomic instruction if that is a task of the
/// running loop.
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

/// The waiter for an event that occurs once, if there is one.
#[derive(Default)]
pub(crate) struct Waiter(Cell<Option<Notify>>);

impl Waiter {
    /// Makes the next `wake` wake the poller of `context`, and no other; false if there is nothing
    /// to wait for.
    #[inline]
    pub(crate) fn wait(&self, context: &Context<'_>, is_pending: impl Fn() -> bool) -> bool {
        if !is_pending() {
            return false;
        }
        let notify = self.take().filter(|former| former.is_for(context.waker()));
        let notify = notify.unwrap_or_else(|| Notify::of(context.waker()));
        // Other wakers are user code, which may have caused the event.
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

    /// Removes the waiter. Dropping it may run user code.
    #[inline]
    pub(crate) fn take(&self) -> Option<Notify> {
        self.0.take()
    }
}
