//! Task groups: the first failure ends the other tasks, and no task outlives its group (S46).
//!
//! A group uses only public functions: it owns the join handles of its tasks. It limits neither
//! their number nor their order.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;

use super::body::JoinHandle;
use super::error::JoinError;
use super::header::Waiter;
use super::run::spawn;
use super::sleep::timeout;
use crate::error::{Error, Result};
use crate::event_loop::{EndTogether, Loop, Payload};

/// A group of tasks that end together, as asyncio's `TaskGroup`.
///
/// Each task returns a `T` or fails with an `E`. When the first one fails, panics or is aborted
/// from outside, all others are aborted at once: their futures are dropped, newest first, before
/// anything else runs. Dropping the group aborts the remaining tasks in the same way. So an aborted
/// task also ends the tasks of its groups, before it drops locals declared before the group.
/// Outside a run of the loop, its next iteration drops them, as with [`JoinHandle::abort`]. A panic
/// that the group has not returned by then goes to the exception handler, as that of a task without
/// join handle (S41); so does a panic after the first failure.
///
/// ```
/// use std::time::Duration;
/// use ringloop::{Loop, Result, task::{self, TaskGroup}};
///
/// async fn fetch(number: u64) -> Result<u64> {
///     task::sleep(Duration::from_millis(number)).await?;
///     Ok(number * number)
/// }
///
/// let lp = Loop::new()?;
/// let squares = lp.run_until_complete(async {
///     let group = TaskGroup::new();
///     for number in 1..=3 {
///         group.spawn(fetch(number))?;
///     }
///     Result::Ok(group.join().await.expect("none of them fails"))
/// })??;
/// assert_eq!(squares, [1, 4, 9]);
/// # Ok::<(), ringloop::Error>(())
/// ```
pub struct TaskGroup<T, E> {
    members: Rc<Members<T, E>>,
}

/// Adds tasks to a group, for example from its own tasks. Does not keep the group alive.
pub struct Spawner<T, E> {
    members: Weak<Members<T, E>>,
}

/// Why a group has no outputs.
#[derive(Debug)]
pub enum GroupError<E> {
    /// A task has failed.
    Failed(E),
    /// A task has panicked, or was aborted.
    Ended(JoinError),
}

struct Members<T, E> {
    /// The tasks by number, in the order of their start. A task that has ended or is being aborted
    /// has no join handle here; such items are removed when there are many.
    tasks: RefCell<Vec<(u64, Option<JoinHandle<()>>)>>,
    ended: Cell<usize>,
    next_number: Cell<u64>,
    outputs: RefCell<Vec<T>>,
    /// The tasks of the outputs, by number; empty if `T` has size 0.
    givers: RefCell<Vec<u64>>,
    left: Cell<usize>,
    failure: Cell<Option<GroupError<E>>>,
    /// Whether the group accepts no more tasks.
    is_ending: Cell<bool>,
    waiting: Waiter,
}

/// Notifies the group of a task's end, whatever its cause. (`pending::ending::End` is another
/// type.)
struct End<T, E> {
    members: Weak<Members<T, E>>,
    number: u64,
    /// None if the task is aborted.
    result: Option<std::result::Result<T, GroupError<E>>>,
}

impl<T: 'static, E: 'static> TaskGroup<T, E> {
    /// A group without tasks.
    pub fn new() -> TaskGroup<T, E> {
        let members = Members {
            tasks: RefCell::default(),
            ended: Cell::new(0),
            next_number: Cell::new(0),
            outputs: RefCell::default(),
            givers: RefCell::default(),
            left: Cell::new(0),
            failure: Cell::new(None),
            is_ending: Cell::new(false),
            waiting: Waiter::default(),
        };
        TaskGroup { members: Rc::new(members) }
    }

    /// Starts a task in the group. Errors: those of [`spawn`](super::spawn), and ECANCELED when a
    /// task has failed already; the future is dropped then.
    pub fn spawn<F>(&self, future: F) -> Result<()>
    where
        F: Future<Output = std::result::Result<T, E>> + 'static,
    {
        Members::spawn(&self.members, future)
    }

    /// A [`Spawner`] that adds tasks to the group.
    pub fn spawner(&self) -> Spawner<T, E> {
        Spawner { members: Rc::downgrade(&self.members) }
    }

    /// The number of tasks that have not ended.
    pub fn len(&self) -> usize {
        self.members.left.get()
    }

    /// Whether all tasks have ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until all tasks have ended, and returns their outputs in the order of their start, or
    /// the first failure.
    ///
    /// Until then the group keeps the outputs. With outputs of type `()`, a group may live as long
    /// as the program: it keeps nothing of ended tasks.
    pub async fn join(self) -> std::result::Result<Vec<T>, GroupError<E>> {
        self.members.ended().await;
        match self.members.failure.take() {
            Some(GroupError::Ended(error)) => Err(GroupError::Ended(error.seen())),
            Some(failure) => Err(failure),
            None => Ok(self.members.take_outputs()),
        }
    }

    /// Waits until all tasks have ended, for at most `limit`; then aborts the rest, and returns
    /// their number.
    pub async fn shutdown(self, limit: Duration) -> usize {
        // Without memory or a loop for the wait, it ends at once.
        let _ = timeout(limit, self.members.ended()).await;
        self.len()
    }
}

impl<T: 'static, E: 'static> Spawner<T, E> {
    /// As [`TaskGroup::spawn`]; ECANCELED also when the group is gone.
    pub fn spawn<F>(&self, future: F) -> Result<()>
    where
        F: Future<Output = std::result::Result<T, E>> + 'static,
    {
        Members::spawn(&self.members.upgrade().ok_or(Error::GROUP_ENDED)?, future)
    }
}

impl<T: 'static, E: 'static> Members<T, E> {
    fn spawn<F>(members: &Rc<Members<T, E>>, future: F) -> Result<()>
    where
        F: Future<Output = std::result::Result<T, E>> + 'static,
    {
        if members.is_ending.get() {
            return Err(Error::GROUP_ENDED);
        }
        members.tasks.borrow_mut().try_reserve(1)?;
        // Tasks that have not ended need space for their outputs as well.
        members.outputs.borrow_mut().try_reserve(members.left.get() + 1)?;
        if size_of::<T>() > 0 {
            members.givers.borrow_mut().try_reserve(members.left.get() + 1)?;
        }
        let number = members.next_number.replace(members.next_number.get() + 1);
        members.left.set(members.left.get() + 1);
        let mut end = End { members: Rc::downgrade(members), number, result: None };
        let task = spawn(async move {
            let end = &mut end;
            let mut future = pin!(Some(future));
            let polled = poll_fn(|context| {
                let future =
                    future.as_mut().as_pin_mut().expect("it is there until it is complete");
                match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
                    Ok(polled) => polled.map(Ok),
                    Err(payload) => Poll::Ready(Err(payload)),
                }
            });
            end.result = Some(match polled.await {
                Ok(result) => result.map_err(GroupError::Failed),
                Err(payload) => Err(Self::panicked(payload)),
            });
            // A panic in its Drop also belongs to the group.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| future.set(None))) {
                end.result = Some(Err(Self::panicked(payload)));
            }
        })?;
        members.tasks.borrow_mut().push((number, Some(task)));
        Ok(())
    }

    fn panicked(payload: Payload) -> GroupError<E> {
        let error = Loop::with_running(|lp| {
            JoinError::panicked(payload, lp.expect("a task is polled by its loop").shared())
        });
        GroupError::Ended(error)
    }
}

impl<T, E> Members<T, E> {
    fn ended_one(&self, number: u64, result: Option<std::result::Result<T, GroupError<E>>>) {
        self.left.set(self.left.get() - 1);
        // None if the group is aborting the task, or the task was not started.
        let task = self.take_task(number);
        match result {
            Some(Ok(output)) => {
                self.outputs.borrow_mut().push(output);
                if size_of::<T>() > 0 {
                    self.givers.borrow_mut().push(number);
                }
            }
            Some(Err(failure)) => self.fail(failure),
            None if task.is_some() => self.fail(GroupError::Ended(JoinError::cancelled())),
            None => {}
        }
        if self.left.get() == 0 {
            self.waiting.wake();
        }
    }

    /// Takes the join handle of a task. O(log n) amortized.
    fn take_task(&self, number: u64) -> Option<JoinHandle<()>> {
        let mut tasks = self.tasks.borrow_mut();
        let at = tasks.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let task = tasks[at].1.take();
        self.ended.set(self.ended.get() + 1);
        if self.ended.get() > 32 && 2 * self.ended.get() > tasks.len() {
            tasks.retain(|(_, task)| task.is_some());
            self.ended.set(0);
        }
        task
    }

    /// The outputs in the order in which the tasks were started.
    fn take_outputs(&self) -> Vec<T> {
        let (outputs, givers) = (self.outputs.take(), self.givers.take());
        if givers.is_sorted() {
            return outputs;
        }
        let mut given: Vec<_> = givers.into_iter().zip(outputs).collect();
        given.sort_unstable_by_key(|(number, _)| *number);
        given.into_iter().map(|(_, output)| output).collect()
    }

    fn fail(&self, failure: GroupError<E>) {
        self.note(failure);
        self.abort_all();
    }

    /// Keeps the first failure. A panic after it goes to the exception handler.
    fn note(&self, failure: GroupError<E>) {
        let (first, unseen) = match self.failure.take() {
            Some(first) => (first, Some(failure)),
            None => (failure, None),
        };
        self.failure.set(Some(first));
        unseen.into_iter().for_each(GroupError::unseen);
    }

    /// Aborts the remaining tasks, newest first.
    fn abort_all(&self) {
        Loop::with_running(|lp| {
            let _together = lp.map(EndTogether::begin);
            self.is_ending.set(true);
            let next = || self.tasks.borrow_mut().pop();
            while let Some((_, task)) = next() {
                let Some(task) = task else { continue };
                task.abort();
                // A panic in the drop of a future is not lost.
                if let Some(Err(error)) = task.take_output()
                    && error.is_panic()
                {
                    self.note(GroupError::Ended(error));
                }
            }
        });
    }

    async fn ended(&self) {
        poll_fn(|context| {
            let is_waiting = self.waiting.wait(context, || self.left.get() > 0);
            if is_waiting { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

impl<T, E> Drop for End<T, E> {
    fn drop(&mut self) {
        if let Some(members) = self.members.upgrade() {
            members.ended_one(self.number, self.result.take());
        }
    }
}

impl<E> GroupError<E> {
    /// The error will not be delivered.
    fn unseen(self) {
        if let GroupError::Ended(error) = self {
            error.unseen();
        }
    }
}

impl<T: 'static, E: 'static> Default for TaskGroup<T, E> {
    fn default() -> TaskGroup<T, E> {
        TaskGroup::new()
    }
}

impl<T, E> Drop for TaskGroup<T, E> {
    fn drop(&mut self) {
        self.members.abort_all();
        self.members.failure.take().into_iter().for_each(GroupError::unseen);
    }
}

impl<T, E> Clone for Spawner<T, E> {
    fn clone(&self) -> Spawner<T, E> {
        Spawner { members: Weak::clone(&self.members) }
    }
}

impl<T, E> fmt::Debug for TaskGroup<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskGroup").field("left", &self.members.left.get()).finish_non_exhaustive()
    }
}

debug!(Spawner<T, E>);

impl<E: fmt::Display> fmt::Display for GroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupError::Failed(error) => error.fmt(f),
            GroupError::Ended(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error> std::error::Error for GroupError<E> {}
