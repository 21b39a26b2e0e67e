//! Posts of other threads to a loop: each becomes a callback, a wake of a task, or completed work.
//!
//! Each post is unpacked once, in the order of arrival; a post for which memory is refused keeps
//! its place. Until its turn a post costs no slot. It is passed on by address, and begins with a
//! [`Head`] that identifies the value or the task behind it. A dropped post leaks.
//!
//! `unsafe` is here because only the head knows the type behind it: the head is made together with
//! the functions for that type.

use std::ptr::NonNull;

use super::chain::{Chain, Element, Link, Linked};
use super::post_box::PostBox;
use super::{Extra, Schedule};
use crate::abi::handle::Handle;
use crate::error::{Error, Result};
use crate::pending::ready::List;
use crate::pending::slots::Held;

pub(crate) type Post<L> = Element<Head<L>>;
pub(crate) type Posts<L> = Chain<Head<L>>;

/// The beginning of every post, which identifies its type.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Head<L: 'static> {
    link: Link<Head<L>>,
    kind: NonNull<PostKind<L>>,
}

/// A value that can be posted to a loop of the type `L`.
pub(crate) trait Posted<L: 'static>: Send + Sized + 'static {
    /// Turns the value into a callback, on the loop's thread.
    fn unpack(posted: impl Open<Self>) -> Held<L>;
}

/// The value of a post, in the box in which it was sent.
pub(crate) trait Open<T>: 'static {
    fn open(self) -> T;
}

/// A post with a value. The fields before the value have the same offsets for all types of values.
#[repr(C)]
struct Node<L: 'static, T, D> {
    head: Head<L>,
    due: D,
    value: T,
}

/// The `due` of a node whose value is due at once. Most posts are: they take less memory.
struct AtOnce;

/// The type of a post: a function that matches the value behind the head.
pub(crate) enum PostKind<L: 'static> {
    /// A value, in a `Node` with `AtOnce`: turns it into a callback.
    Soon(unsafe fn(Post<L>) -> Held<L>),
    /// The same with a u64: the time at which the value is due.
    Later(unsafe fn(Post<L>) -> Held<L>),
    /// The same with a u64: a ticket of work.
    Work(unsafe fn(Post<L>) -> Held<L>),
    /// A woken task, which enters the ready queue at once: returns its handle.
    Wake(unsafe fn(Post<L>) -> Handle),
}

/// The time at which a posted value is due.
#[derive(Clone, Copy)]
pub(crate) enum Due {
    Soon,
    /// At a time; on a virtual clock, so many nanoseconds after the loop has taken it.
    At(u64),
    /// At once, as the result of this piece of work in the ready queue.
    Work(u32),
}

impl<L: 'static> Head<L> {
    /// # Safety
    /// The kind lives forever, and matches the type that the head is the beginning of.
    pub(crate) unsafe fn new(kind: NonNull<PostKind<L>>) -> Head<L> {
        Head { link: Link::new(), kind }
    }

    #[inline]
    pub(crate) fn kind(&self) -> NonNull<PostKind<L>> {
        self.kind
    }
}

// SAFETY: the link is a field of the head.
unsafe impl<L: 'static> Linked for Head<L> {
    #[inline]
    fn link(&self) -> &Link<Head<L>> {
        &self.link
    }
}

impl<L: 'static, T: Posted<L>, D: 'static> Node<L, T, D> {
    /// The kind must match `D`.
    fn new(value: T, due: D, kind: &'static PostKind<L>) -> Node<L, T, D> {
        Node { head: Head { link: Link::new(), kind: NonNull::from(kind) }, due, value }
    }

    /// # Safety
    /// The post has come from `into_post` of a node of this type.
    unsafe fn unpack(post: Post<L>) -> Held<L> {
        // SAFETY: the caller guarantees that the post is a node of this type.
        T::unpack(unsafe { PostBox::<Node<L, T, D>>::from_raw(post.into_raw().cast()) })
    }

    #[inline]
    fn into_post(node: PostBox<Node<L, T, D>>) -> Post<L> {
        // SAFETY: the box gives its ownership to the post, the head is the node's first field, and
        // `Posted` requires `Send`.
        unsafe { Post::from_raw(node.into_raw().cast()) }
    }

    #[inline]
    fn send(
        self,
        send: impl FnOnce(Post<L>) -> std::result::Result<(), Post<L>>,
    ) -> std::result::Result<(), (T, Error)> {
        let node = match PostBox::new(self) {
            Ok(node) => node,
            Err(node) => return Err((node.value, Error::NO_MEMORY)),
        };
        let post = Node::into_post(node);
        let at = post.as_ptr();
        send(post).map_err(|post| {
            assert_eq!(post.as_ptr(), at, "another post has come back");
            // SAFETY: the assertion shows that this is the post made above, from a box of this
            // type.
            let node = unsafe { PostBox::<Node<L, T, D>>::from_raw(post.into_raw().cast()) };
            (node.open().value, Error::SHUT_DOWN)
        })
    }
}

impl<L: 'static, T: 'static, D: 'static> Open<T> for PostBox<Node<L, T, D>> {
    #[inline]
    fn open(self) -> T {
        PostBox::open(self).value
    }
}

/// Sends a value as a post that is due now, or at a time. A loop that is shut down refuses it, and
/// the value is returned.
#[inline]
pub(crate) fn send_value<L: 'static, T: Posted<L>>(
    value: T,
    when: Option<u64>,
    send: impl FnOnce(Post<L>) -> std::result::Result<(), Post<L>>,
) -> std::result::Result<(), (T, Error)> {
    match when {
        None => {
            let kind = const { &PostKind::Soon(Node::<L, T, AtOnce>::unpack) };
            Node::new(value, AtOnce, kind).send(send)
        }
        Some(when) => {
            let kind = const { &PostKind::Later(Node::<L, T, u64>::unpack) };
            Node::new(value, when, kind).send(send)
        }
    }
}

/// A post for a piece of work, with separate memory, which can be sent again and again.
pub(crate) fn lasting<L: 'static, T: Posted<L>>(value: T, ticket: u32) -> Result<Post<L>> {
    let kind = const { &PostKind::Work(Node::<L, T, u64>::unpack) };
    let node = PostBox::alone(Node::new(value, u64::from(ticket), kind));
    node.map(Node::into_post).map_err(|_| Error::NO_MEMORY)
}

/// The number of posts, and whether all of them are due soon.
#[derive(Clone, Copy, Default)]
pub(crate) struct Census {
    count: u32,
    has_others: bool,
}

impl Census {
    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    #[inline]
    pub(crate) fn count<L: 'static>(&mut self, post: &Head<L>) {
        self.count = self.count.wrapping_add(1);
        self.has_others |= !matches!(post.is(), PostKind::Soon(_)) || self.count == u32::MAX;
    }
}

impl<L: 'static> Head<L> {
    #[inline]
    fn is(&self) -> &'static PostKind<L> {
        // SAFETY: the caller of `Head::new` guarantees that the kind lives forever.
        unsafe { self.kind.as_ref() }
    }
}

impl<L: 'static> Post<L> {
    /// When the post's value is due; None: it wakes a task.
    pub(crate) fn due(&self) -> Option<Due> {
        // SAFETY: the kinds below guarantee a `Node` with a u64, whose offset is the same for all
        // values.
        let number = || unsafe { (*self.as_ptr().cast::<Node<L, (), u64>>()).due };
        match self.is() {
            PostKind::Wake(_) => None,
            PostKind::Soon(_) => Some(Due::Soon),
            PostKind::Later(_) => Some(Due::At(number())),
            PostKind::Work(_) => Some(Due::Work(number() as u32)),
        }
    }

    /// Turns a post into a callback. A task that it wakes can be posted again.
    #[inline]
    pub(crate) fn unpack(self) -> Held<L> {
        match self.is() {
            // SAFETY: the function is from the post's own kind.
            PostKind::Soon(unpack) | PostKind::Later(unpack) | PostKind::Work(unpack) => unsafe {
                unpack(self)
            },
            PostKind::Wake(_) => {
                self.woken();
                Held::EMPTY
            }
        }
    }

    /// The task that a post wakes, which can be posted again.
    #[inline]
    fn woken(self) -> Option<Handle> {
        match self.is() {
            // SAFETY: the function is from the post's own kind.
            PostKind::Wake(woken) => Some(unsafe { woken(self) }),
            _ => None,
        }
    }
}

impl<L: 'static> Schedule<L> {
    /// Appends arrived posts, `census` of them, to the ready queue and the timers, in order. Posts
    /// for which memory is refused wait for the next call. `time_of` converts delays; `done` takes
    /// the posts of work.
    pub(crate) fn collect_posts(
        &mut self,
        came: Posts<L>,
        census: Census,
        time_of: impl Fn(u64) -> u64,
        done: impl Fn(&mut Schedule<L>, u32, Post<L>),
    ) -> Result<()> {
        if self.incoming.first().is_none() && !census.has_others && self.reserve_ready().is_ok() {
            // Reading each post once more would cost a flood of posts most of its time.
            self.posts.append(came);
            self.ready.push_turns(List::Posts, census.count);
            self.referenced += census.count as usize;
            self.metrics.posts += u64::from(census.count);
            return Ok(());
        }
        self.incoming.append(came);
        while let Some(due) = self.incoming.first().map(Post::due) {
            // A post leaves the list once the space for its callback is reserved.
            match due {
                Some(Due::Soon) => {
                    self.reserve_ready()?;
                    self.incoming.pop().into_iter().for_each(|post| self.add_post(post));
                }
                Some(Due::At(when)) => {
                    let when = time_of(when);
                    self.extras.try_reserve(1)?;
                    self.reserve_timer(when)?;
                    let held = self.incoming.pop().map(Post::unpack);
                    held.into_iter().for_each(|held| self.add_delayed_post(when, held));
                }
                Some(Due::Work(ticket)) => {
                    self.reserve_completions(1)?;
                    self.incoming.pop().into_iter().for_each(|post| done(self, ticket, post));
                }
                None => {
                    self.reserve_ready()?;
                    let task = self.incoming.pop().and_then(Post::woken);
                    task.into_iter().for_each(|task| self.wake_task(task));
                }
            }
        }
        Ok(())
    }

    fn add_post(&mut self, post: Post<L>) {
        self.posts.push(post);
        self.ready.push_turns(List::Posts, 1);
        self.referenced += 1;
        self.metrics.posts += 1;
    }

    fn add_delayed_post(&mut self, when: u64, held: Held<L>) {
        let Held { callback, release } = held;
        let handle = self.call_at(when, callback);
        if release.is_some() {
            self.add_extra(handle.index(), Extra { release, ..Extra::default() });
        }
        self.metrics.posts += 1;
    }

    #[inline]
    pub(crate) fn take_post(&mut self) -> Option<Post<L>> {
        self.metrics.callbacks += 1;
        self.referenced -= 1;
        self.posts.pop()
    }

    /// Takes all posts, which end.
    pub(crate) fn end_posts(&mut self) -> Posts<L> {
        self.referenced -= self.ready.remove_turns(List::Posts);
        let mut ended = std::mem::replace(&mut self.posts, Posts::NONE);
        ended.append(std::mem::replace(&mut self.incoming, Posts::NONE));
        ended
    }
}
