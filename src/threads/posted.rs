//! Values as posts: a box with the value, its time, and what the loop's thread makes of it.

use crate::pending::posts::{Due, Post, PostKind, ValueHead};
use crate::pending::slots::Held;
use crate::threads::post_box::PostBox;

/// A value that can be posted to a loop of the type `L`.
pub(crate) trait Posted<L: 'static>: Send + Sized + 'static {
    /// What is to run for it, on the loop's thread.
    fn unpack(value: PostedBox<L, Self>) -> Held<L>;
}

/// The value of a post, in the box in which it was sent.
pub(crate) struct PostedBox<L: 'static, T>(PostBox<Node<L, T>>);

/// A post with a value.
#[repr(C)]
struct Node<L: 'static, T> {
    head: ValueHead<L>,
    value: T,
}

impl<L: 'static, T: Posted<L>> Node<L, T> {
    fn new(value: T, due: Due<L>) -> Node<L, T> {
        let kind = const { &PostKind::Value(Node::<L, T>::unpack) };
        // SAFETY: the function takes what the head stands at the beginning of.
        Node { head: unsafe { ValueHead::new(kind, due) }, value }
    }

    fn unpack(post: Post<L>) -> Held<L> {
        // SAFETY: the head of a `Node` like this one, which `into_post` has made a post of, says that this is its function.
        T::unpack(unsafe { PostedBox::of_post(post) })
    }
}

impl<L: 'static, T: Posted<L>> PostedBox<L, T> {
    /// Packs a value; gives it back if no memory can be had.
    #[inline]
    pub(crate) fn new(value: T, due: Due<L>) -> Result<PostedBox<L, T>, T> {
        PostBox::new(Node::new(value, due)).map(PostedBox).map_err(|node| node.value)
    }

    /// The same for a post that is used again and again.
    pub(crate) fn lasting(value: T, due: Due<L>) -> Result<PostedBox<L, T>, T> {
        PostBox::alone(Node::new(value, due)).map(PostedBox).map_err(|node| node.value)
    }

    #[inline]
    pub(crate) fn into_post(self) -> Post<L> {
        // SAFETY: the box is whose the post is, and the head is at its beginning. The value may be sent.
        unsafe { Post::from_raw(self.0.into_raw().cast()) }
    }

    /// The reverse of `into_post`.
    ///
    /// # Safety
    /// The post was made of a box for a `T`.
    pub(super) unsafe fn of_post(post: Post<L>) -> PostedBox<L, T> {
        // SAFETY: the address is that of a box, whose owner has the post.
        PostedBox(unsafe { PostBox::from_raw(post.into_raw().cast()) })
    }
}

impl<L: 'static, T> PostedBox<L, T> {
    #[inline]
    pub(crate) fn open(self) -> T {
        self.0.open().value
    }
}
