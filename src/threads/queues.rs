//! Pieces of work by ticket, in the queues of a pool of threads.
//!
//! Admission reserves everything that a piece of work needs: only `reserve` allocates, and each
//! function is O(1). The caller holds the executor's lock.

use std::mem::replace;

use crate::abi::handle::Handle;
use crate::error::Result;
use crate::pending::callback::Job;
use crate::pending::posts::{self, Open, Post, Posted};
use crate::pending::slots::Held;

/// All pieces of work. Each is in one queue, or in none while a thread or the inbox has it.
pub(crate) struct Queues<L: 'static> {
    /// By ticket.
    tasks: Vec<Task<L>>,
    queues: [List; 4],
}

#[derive(Clone, Copy)]
pub(crate) enum Queue {
    /// No work: the ticket is free.
    Free,
    /// For a thread.
    Waiting,
    /// Completed, and found in the inbox when it was closed.
    Told,
    /// Completed after the inbox was closed; the loop has not seen it.
    Done,
}

/// A piece of work, or space for one. (The room `task` has tasks of coroutines.)
struct Task<L: 'static> {
    job: Option<Job>,
    handle: Option<Handle>,
    /// Reports the completion. It is elsewhere from the beginning of the work until the loop has
    /// seen its completion.
    post: Option<Post<L>>,
    next: u32,
    previous: u32,
}

/// A doubly linked list of tasks, by ticket.
struct List {
    first: u32,
    last: u32,
    count: usize,
}

/// The value of the post for completed work; the post's `Due` contains the ticket.
struct WorkDone;

const NONE: u32 = u32::MAX;

impl<L: 'static> Queues<L> {
    pub(crate) fn new() -> Queues<L> {
        Queues {
            tasks: Vec::new(),
            queues: [const { List { first: NONE, last: NONE, count: 0 } }; 4],
        }
    }

    /// Ensures that there is a free ticket.
    pub(crate) fn reserve(&mut self) -> Result<()> {
        if self.count(Queue::Free) > 0 {
            return Ok(());
        }
        self.tasks.try_reserve(1)?;
        let ticket = self.tasks.len() as u32;
        let post = posts::lasting(WorkDone, ticket)?;
        self.tasks.push(Task {
            job: None,
            handle: None,
            post: Some(post),
            next: NONE,
            previous: NONE,
        });
        self.put(Queue::Free, ticket);
        Ok(())
    }

    pub(crate) fn count(&self, queue: Queue) -> usize {
        self.queues[queue as usize].count
    }

    /// Queues the work of a ticket that has been taken.
    pub(crate) fn begin(&mut self, ticket: u32, job: Job, handle: Handle) {
        let task = &mut self.tasks[ticket as usize];
        (task.job, task.handle) = (Some(job), Some(handle));
        self.put(Queue::Waiting, ticket);
    }

    /// Takes the next waiting piece of work, and its post.
    pub(crate) fn take_job(&mut self) -> Option<(u32, Job, Post<L>)> {
        let ticket = self.take(Queue::Waiting)?;
        let Task { job, post, .. } = &mut self.tasks[ticket as usize];
        Some((ticket, job.take()?, post.take()?))
    }

    /// Takes waiting work back. None: it is no longer waiting.
    pub(crate) fn withdraw(&mut self, ticket: u32) -> Option<Job> {
        let job = self.tasks[ticket as usize].job.take()?;
        self.unlink(Queue::Waiting, ticket);
        self.put(Queue::Free, ticket);
        Some(job)
    }

    /// Frees the ticket of completed work; returns its handle.
    pub(crate) fn end(&mut self, ticket: u32) -> Option<Handle> {
        self.put(Queue::Free, ticket);
        self.tasks[ticket as usize].handle.take()
    }

    pub(crate) fn give_back(&mut self, ticket: u32, post: Post<L>) {
        self.tasks[ticket as usize].post = Some(post);
    }

    pub(crate) fn put(&mut self, queue: Queue, ticket: u32) {
        let list = &mut self.queues[queue as usize];
        list.count += 1;
        let last = replace(&mut list.last, ticket);
        match last {
            NONE => list.first = ticket,
            _ => self.tasks[last as usize].next = ticket,
        }
        let task = &mut self.tasks[ticket as usize];
        (task.next, task.previous) = (NONE, last);
    }

    pub(crate) fn take(&mut self, queue: Queue) -> Option<u32> {
        let first = self.queues[queue as usize].first;
        if first == NONE {
            return None;
        }
        self.unlink(queue, first);
        Some(first)
    }

    fn unlink(&mut self, queue: Queue, ticket: u32) {
        let list = &mut self.queues[queue as usize];
        let Task { next, previous, .. } = self.tasks[ticket as usize];
        list.count -= 1;
        match previous {
            NONE => list.first = next,
            _ => self.tasks[previous as usize].next = next,
        }
        match next {
            NONE => list.last = previous,
            _ => self.tasks[next as usize].previous = previous,
        }
    }
}

impl<L: 'static> Drop for Queues<L> {
    fn drop(&mut self) {
        // The loop has closed the inbox, and all work has ended.
        self.tasks
            .iter_mut()
            .filter_map(|task| task.post.take())
            .for_each(|post| drop(post.unpack()));
    }
}

impl<L: 'static> Posted<L> for WorkDone {
    /// Frees the value. The executor handles the completion.
    fn unpack(_: impl Open<WorkDone>) -> Held<L> {
        Held::EMPTY
    }
}
