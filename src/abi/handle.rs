//! Handles (S10): what a program knows of the things that it has scheduled.
//!
//! A handle is a slot's index and the generation in which the slot was filled. Emptying the slot
//! moves the generation on, so an old handle meets another number and is refused; a slot whose
//! generations are used up is never filled again. Generations start at a number of the loop's own,
//! so that a handle of another loop is refused too, nearly always (the two would have to use the
//! same slot in the same generation).

use std::num::NonZeroI64;

/// Names something that was scheduled on a loop. Safe to keep for ever: once its thing has ended it
/// names nothing, and every function says ENOENT to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Handle(NonZeroI64);

impl Handle {
    /// Names nothing on any loop: generations are positive.
    #[cfg(feature = "capi")]
    pub(crate) const NOTHING: Handle = Handle(NonZeroI64::MIN);

    #[inline]
    pub(crate) fn new(index: u32, generation: u32) -> Handle {
        let bits = i64::from(generation) << 32 | i64::from(index);
        Handle(NonZeroI64::new(bits).expect("a generation is never zero"))
    }

    /// The number that C knows this handle by. It is positive.
    #[inline]
    pub fn as_raw(self) -> i64 {
        self.0.get()
    }

    /// The handle that C knows by this number. Any number may be given: one that is no handle is
    /// refused when it is used.
    #[inline]
    pub fn from_raw(raw: i64) -> Option<Handle> {
        NonZeroI64::new(raw).map(Handle)
    }

    #[inline]
    pub(crate) fn index(self) -> u32 {
        self.0.get() as u32
    }

    #[inline]
    pub(crate) fn generation(self) -> i64 {
        self.0.get() >> 32
    }
}

/// What kind of thing was scheduled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A `call_soon`.
    Call = 0,
    /// A `call_later` or `call_at`.
    Timer = Kind::TIMER,
    /// A `call_every`.
    Repeat = Kind::STAYS | Kind::TIMER,
    /// A hook before or after the wait.
    Hook = Kind::STAYS,
    /// A completion operation: a read, a send, anything that was submitted to the kernel.
    Operation = 4,
    /// A signal handler.
    Signal = Kind::STAYS | 4,
    /// A watcher of a descriptor.
    Watch = Kind::STAYS | 8,
    /// The loop's own: what watchers wait for.
    #[doc(hidden)]
    Poll = Kind::STAYS | 4 | 8,
    /// Work on another thread.
    Work = 8,
    /// A watcher of a child process.
    Child = 12,
    /// A task: a future that the loop polls.
    Task = Kind::STAYS | 16,
}

impl Kind {
    /// The bit of those that have a deadline.
    pub(crate) const TIMER: u8 = 1;
    /// The bit of those that run any number of times.
    pub(crate) const STAYS: u8 = 2;

    /// Whether it counts for `run` when it is new, and may be made to (S19).
    pub(crate) fn can_be_referenced(self) -> bool {
        !matches!(self, Kind::Hook | Kind::Signal | Kind::Poll)
    }

    /// Whether cancelling it is a request, and its result is given to its callback (S13).
    #[inline]
    pub(crate) fn is_operation(self) -> bool {
        matches!(self, Kind::Operation | Kind::Work)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Call => "call",
            Kind::Timer => "timer",
            Kind::Repeat => "repeating timer",
            Kind::Hook => "hook",
            Kind::Operation => "operation",
            Kind::Signal => "signal handler",
            Kind::Watch | Kind::Poll => "watcher",
            Kind::Work => "work",
            Kind::Child => "child watcher",
            Kind::Task => "task",
        }
    }
}
