//! Posts: what other threads have sent to a loop, which makes of each a callback, a task that is
//! woken, or work that is done.
//!
//! Each post is unpacked once, in the order in which they came; what there is no memory for keeps
//! its place. Until its turn comes it waits as it is, and costs no slot. A post is passed on by its
//! address alone, and begins with a [`Head`], which knows what stands behind it: a value in a box,
//! or a task. Whoever has a post and drops it leaks it.
//!
//! `unsafe` lives here because the head alone says what type stands behind it: it is made together
//! with the functions for that type.

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

#[derive(Debug)]
#[repr(C)]
pub(crate) struct Head<L: 'static> {
    link: Link<Head<L>>,
    kind: NonNull<PostKind<L>>,
}

/// A value that can be posted to a loop of the type `L`.
pub(crate) trait Posted<L: 'static>: Send + Sized + 'static {
    /// What is to run for it, on the loop's thread.
    fn unpack(value: PostedBox<L, Self>) -> Held<L>;
}

/// The value of a post, in the box in which it was sent.
pub(crate) struct PostedBox<L: 'static, T>(PostBox<Node<L, T>>);

/// A post with a value. Whatever that is, what comes before it stands in the same place.
#[repr(C)]
struct Node<L: 'static, T> {
    head: Head<L>,
    due: Due,
    value: T,
}

/// What the loop makes of a post, by a function that is right for what stands behind the head.
pub(crate) enum PostKind<L: 'static> {
    /// A value, which stands in a `Node`: turns it into what is to run.
    Value(unsafe fn(Post<L>) -> Held<L>),
    /// A task that has been woken, and stands in the ready queue at once: tells which.
    Wake(unsafe fn(Post<L>) -> Handle),
}

/// When a value is due.
#[derive(Clone, Copy)]
pub(crate) enum Due {
    Soon,
    /// At a time; on a virtual clock, so long after the loop has taken it.
    At(u64),
    /// At once: the result of this piece of work then stands in the ready queue.
    Work(u32),
}

impl<L: 'static> Head<L> {
    /// # Safety
    /// The kind lives for ever, and is right for what the head stands at the beginning of.
    pub(crate) unsafe fn new(kind: NonNull<PostKind<L>>) -> Head<L> {
        Head { link: Link::new(), kind }
    }

    #[inline]
    pub(crate) fn kind(&self) -> NonNull<PostKind<L>> {
        self.kind
    }
}

// SAFETY: the link is in it.
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
        // SAFETY: the caller says what stands behind the post.
        T::unpack(PostedBox(unsafe { PostBox::from_raw(post.into_raw().cast()) }))
    }

    #[inline]
    fn into_post(node: PostBox<Node<L, T>>) -> Post<L> {
        // SAFETY: the box is whose the post is, and the head is at its beginning. The value may be
        // sent.
        unsafe { Post::from_raw(node.into_raw().cast()) }
    }
}

/// Has a value sent as a post: one that is refused, as a loop does that is shut down, comes back.
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
        // SAFETY: it is the one that has just been made of a box for this.
        let node = unsafe { PostBox::<Node<L, T>>::from_raw(post.into_raw().cast()) };
        (node.open().value, Error::SHUT_DOWN)
    })
}

/// A post in memory of its own, to be used again and again.
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
        // SAFETY: the kind lives for ever.
        unsafe { self.kind.as_ref() }
    }

    /// When its value is due; None: it wakes a task.
    pub(crate) fn due(&self) -> Option<Due> {
        match self.is() {
            PostKind::Wake(_) => None,
            // SAFETY: the kind says that it is a node's, which begins as one without a value does.
            PostKind::Value(_) => Some(unsafe { (*self.as_ptr().cast::<Node<L, ()>>()).due }),
        }
    }

    /// Makes of a post what is to run. A task that it wakes can be posted again.
    #[inline]
    pub(crate) fn unpack(self) -> Held<L> {
        match self.is() {
            // SAFETY: the function is that of the post's own kind.
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
            // SAFETY: the function is that of the post's own kind.
            PostKind::Wake(woken) => Some(unsafe { woken(self) }),
        }
    }
}

impl<L: 'static> Schedule<L> {
    /// Appends posts that have come to the ready queue and the timers, in order. What there is no
    /// memory for waits until this is called again. `time_of` knows the clock; `done` takes the
    /// posts of work.
    pub(crate) fn collect_posts(
        &mut self,
        came: Posts<L>,
        time_of: impl Fn(u64) -> u64,
        done: impl Fn(&mut Schedule<L>, u32, Post<L>),
    ) -> Result<()> {
        self.incoming.append(came);
        while let Some(due) = self.incoming.first().map(Post::due) {
            // A post leaves the others when there is room for what becomes of it.
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

    /// Takes all posts, which have ended.
    pub(crate) fn end_posts(&mut self) -> Posts<L> {
        self.referenced -= self.ready.remove_turns(List::Posts);
        let mut ended = std::mem::replace(&mut self.posts, Posts::NONE);
        ended.append(std::mem::replace(&mut self.incoming, Posts::NONE));
        ended
    }
}
