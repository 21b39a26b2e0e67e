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
    fn unpack(value: PostedBox<L, Self>) -> Held<L>;
}

/// The value of a post, in the box in which it was sent.
pub(crate) struct PostedBox<L: 'static, T>(PostBox<Node<L, T>>);

/// A post with a value. The fields before the value have the same offsets for all types.
#[repr(C)]
struct Node<L: 'static, T> {
    head: Head<L>,
    due: Due,
    value: T,
}

/// The type of a post: a function that matches the value behind the head.
pub(crate) enum PostKind<L: 'static> {
    /// A value, in a `Node`: turns it into a callback.
    Value(unsafe fn(Post<L>) -> Held<L>),
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

impl<L: 'static, T: Posted<L>> Node<L, T> {
    fn new(value: T, due: Due) -> Node<L, T> {
        let kind = const { &PostKind::Value(Node::<L, T>::unpack) };
        Node { head: Head { link: Link::new(), kind: NonNull::from(kind) }, due, value }
    }

    /// # Safety
    /// The post has come from `into_post` of a node of this type.
    unsafe fn unpack(post: Post<L>) -> Held<L> {
        // SAFETY: the caller guarantees that the post is a node of this type.
        T::unpack(PostedBox(unsafe { PostBox::from_raw(post.into_raw().cast()) }))
    }

    #[inline]
    fn into_post(node: PostBox<Node<L, T>>) -> Post<L> {
        // SAFETY: the box gives its ownership to the post, the head is the node's first field, and
        // `Posted` requires `Send`.
        unsafe { Post::from_raw(node.into_raw().cast()) }
    }
}

/// Sends a value as a post. A loop that is shut down refuses it, and the value is returned.
#[inline]
pub(crate) fn send_value<L: 'static, T: Posted<L>>(
    value: T,
    due: Due,
    send: impl FnOnce(Post<L>) -> std::result::Result<(), Post<L>>,
) -> std::result::Result<(), (T, Error)> {
    let node = match PostBox::new(Node::new(value, due)) {
        Ok(node) => node,
        Err(node) => return Err((node.value, Error::NO_MEMORY)),
    };
    let post = Node::into_post(node);
    let at = post.as_ptr();
    send(post).map_err(|post| {
        assert_eq!(post.as_ptr(), at, "another post has come back");
        // SAFETY: the assertion shows that this is the post made above, from a box of this type.
        let node = unsafe { PostBox::<Node<L, T>>::from_raw(post.into_raw().cast()) };
        (node.open().value, Error::SHUT_DOWN)
    })
}

/// A post with separate memory, which can be sent again and again.
pub(crate) fn lasting<L: 'static, T: Posted<L>>(value: T, due: Due) -> Result<Post<L>> {
    PostBox::alone(Node::new(value, due)).map(Node::into_post).map_err(|_| Error::NO_MEMORY)
}

impl<L: 'static, T> PostedBox<L, T> {
    #[inline]
    pub(crate) fn open(self) -> T {
        self.0.open().value
    }
}

impl<L: 'static> Post<L> {
    #[inline]
    fn is(&self) -> &'static PostKind<L> {
        // SAFETY: the caller of `Head::new` guarantees that the kind lives forever.
        unsafe { self.kind.as_ref() }
    }

    /// When the post's value is due; None: it wakes a task.
    pub(crate) fn due(&self) -> Option<Due> {
        match self.is() {
            PostKind::Wake(_) => None,
            // SAFETY: the kind guarantees a `Node`, whose `due` has the same offset for all types.
            PostKind::Value(_) => Some(unsafe { (*self.as_ptr().cast::<Node<L, ()>>()).due }),
        }
    }

    /// Turns a post into a callback. A task that it wakes can be posted again.
    #[inline]
    pub(crate) fn unpack(self) -> Held<L> {
        match self.is() {
            // SAFETY: the function is from the post's own kind.
            PostKind::Value(unpack) => unsafe { unpack(self) },
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
            PostKind::Value(_) => None,
            // SAFETY: the function is from the post's own kind.
            PostKind::Wake(woken) => Some(unsafe { woken(self) }),
        }
    }
}

impl<L: 'static> Schedule<L> {
    /// Appends arrived posts to the ready queue and the timers, in order. Posts for which memory is
    /// refused wait for the next call. `time_of` converts delays; `done` takes the posts of work.
    pub(crate) fn collect_posts(
        &mut self,
        came: Posts<L>,
        time_of: impl Fn(u64) -> u64,
        done: impl Fn(&mut Schedule<L>, u32, Post<L>),
    ) -> Result<()> {
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
        self.ready.push_turn(List::Posts);
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
