//! A queue between the tasks and callbacks of one thread, as asyncio's (S47).
//!
//! No value is lost, and no value wakes two tasks. The queue has no bound and is not for other
//! threads.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::header::Notify;
use crate::event_loop::drop_quietly;

/// A FIFO queue between tasks of one thread: each value is popped once. Clones share the queue.
///
/// The queue has no bound, takes no lock, and wakes one task for each value. Between threads, use a
/// channel of any crate: the wakers of tasks are for any thread.
///
/// ```
/// use ringloop::{Loop, task::{self, Queue}};
///
/// let lp = Loop::new()?;
/// let queue = Queue::new();
/// let pushing = queue.clone();
/// lp.call_soon(move |_| {
///     pushing.push("a value of a callback").expect("it is open");
///     pushing.close();
/// })?;
/// lp.run_until_complete(async {
///     while let Some(value) = queue.pop().await {
///         println!("{value}");
///     }
/// })?;
/// # Ok::<(), ringloop::Error>(())
/// ```
pub struct Queue<T> {
    shared: Rc<Content<T>>,
}

/// Waits for a value; made by [`Queue::pop`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Pop<'a, T> {
    queue: &'a Queue<T>,
    /// Its place in the line of waiters, from the first poll that found nothing.
    ticket: Option<u64>,
}

struct Content<T> {
    values: RefCell<VecDeque<T>>,
    /// The waiters in order, by ticket. A woken waiter is removed.
    waiting: RefCell<VecDeque<(u64, Notify)>>,
    next_ticket: Cell<u64>,
    is_closed: Cell<bool>,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub fn new() -> Queue<T> {
        let shared = Content {
            values: RefCell::default(),
            waiting: RefCell::default(),
            next_ticket: Cell::new(0),
            is_closed: Cell::new(false),
        };
        Queue { shared: Rc::new(shared) }
    }

    /// Appends a value, and wakes the task that has waited longest. Returns the value if the queue
    /// is closed, or memory is refused. O(1).
    pub fn push(&self, value: T) -> Result<(), T> {
        let mut values = self.shared.values.borrow_mut();
        if self.shared.is_closed.get() || values.try_reserve(1).is_err() {
            return Err(value);
        }
        values.push_back(value);
        drop(values);
        self.wake_next();
        Ok(())
    }

    /// Waits for the first value; None when the queue is closed and empty. Waiters are served in
    /// order, but a new one takes a value that is there. Dropping the future at any time takes no
    /// value.
    pub fn pop(&self) -> Pop<'_, T> {
        Pop { queue: self, ticket: None }
    }

    /// Pops the first value, if there is one.
    pub fn try_pop(&self) -> Option<T> {
        self.shared.values.borrow_mut().pop_front()
    }

    /// Closes the queue for new values. Existing values can still be popped; waiters for more get
    /// None.
    pub fn close(&self) {
        self.shared.is_closed.set(true);
        let mut first_panic = None;
        loop {
            // A waker that panics does not prevent waking the others.
            match catch_unwind(AssertUnwindSafe(|| self.wake_next())) {
                Ok(true) => {}
                Ok(false) => break,
                Err(payload) if first_panic.is_none() => first_panic = Some(payload),
                Err(payload) => drop_quietly(payload),
            }
        }
        if let Some(payload) = first_panic {
            resume_unwind(payload);
        }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.shared.values.borrow().len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Wakes the first waiter; false if there is none.
    fn wake_next(&self) -> bool {
        let next = self.shared.waiting.borrow_mut().pop_front();
        next.map(|(_, notify)| notify.wake()).is_some()
    }
}

/// The position of a ticket, or where it was if it has been woken. Tickets are in order of issue.
fn place_of(waiting: &VecDeque<(u64, Notify)>, ticket: u64) -> Result<usize, usize> {
    waiting.binary_search_by_key(&ticket, |(other, _)| *other)
}

impl<T> Pop<'_, T> {
    /// Leaves the line; false if it has been woken already, or never waited.
    fn leave(&mut self) -> bool {
        let Some(ticket) = self.ticket.take() else { return false };
        let mut waiting = self.queue.shared.waiting.borrow_mut();
        let left = place_of(&waiting, ticket).ok().and_then(|place| waiting.remove(place));
        drop(waiting);
        left.is_some()
    }
}

impl<T> Future for Pop<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let shared = &self.queue.shared;
        let is_over = || !shared.values.borrow().is_empty() || shared.is_closed.get();
        // Wakers are user code, which may push and close while they are cloned or dropped.
        let notify = if is_over() { None } else { Some(Notify::of(context.waker())) };
        let Some(notify) = notify.filter(|_| !is_over()) else {
            let value = shared.values.borrow_mut().pop_front();
            if value.is_none() && !shared.is_closed.get() {
                // User code that the drop of the waker ran has taken the value.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.leave();
            return Poll::Ready(value);
        };
        let mut waiting = shared.waiting.borrow_mut();
        if waiting.try_reserve(1).is_err() {
            drop(waiting);
            // It polls again in the next iteration, when there may be memory.
            notify.wake();
            return Poll::Pending;
        }
        let Some(ticket) = self.ticket else {
            let ticket = shared.next_ticket.replace(shared.next_ticket.get() + 1);
            waiting.push_back((ticket, notify));
            drop(waiting);
            self.ticket = Some(ticket);
            return Poll::Pending;
        };
        // Without a wake, or woken for a value that another has taken, it keeps its place.
        let former = match place_of(&waiting, ticket) {
            Ok(place) => Some(std::mem::replace(&mut waiting[place].1, notify)),
            Err(place) => {
                waiting.insert(place, (ticket, notify));
                None
            }
        };
        drop(waiting);
        drop(former);
        Poll::Pending
    }
}

impl<T> Drop for Pop<'_, T> {
    fn drop(&mut self) {
        let was_woken = self.ticket.is_some() && !self.leave();
        if was_woken && !self.queue.is_empty() {
            // The value that it was woken for goes to another waiter.
            self.queue.wake_next();
        }
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Queue<T> {
        Queue { shared: Rc::clone(&self.shared) }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue::new()
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .field("is_closed", &self.shared.is_closed.get())
            .finish()
    }
}

impl<T> fmt::Debug for Pop<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pop").finish_non_exhaustive()
    }
}
