//! Handles (S10): a program's references to entries that it has scheduled.
//!
//! A handle is a slot's index and the slot's generation when it was filled. Emptying the slot
//! increments the generation, so an old handle no longer matches and is refused. A slot whose
//! generations are used up is never filled again. Each loop starts its generations at a different
//! number, so the handle of another loop is refused too, except in the rare case that the same slot
//! has the same generation in both.

use std::num::NonZeroI64;

/// Identifies an entry that was scheduled on a loop. A handle may be kept forever: once its entry
/// has ended, every function fails with ENOENT.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Handle(NonZeroI64);

impl Handle {
    /// Identifies nothing on any loop, because generations are positive.
    #[cfg(feature = "capi")]
    pub(crate) const NOTHING: Handle = Handle(NonZeroI64::MIN);

    #[inline]
    pub(crate) fn new(index: u32, generation: u32) -> Handle {
        let bits = i64::from(generation) << 32 | i64::from(index);
        Handle(NonZeroI64::new(bits).expect("a generation is never zero"))
    }

    /// The number of this handle in C. It is positive.
    #[inline]
    pub fn as_raw(self) -> i64 {
        self.0.get()
    }

    /// The handle of a number in C. Any number is accepted; a number that is no handle fails when
    /// it is used.
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

/// The kind of a scheduled entry.
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
    /// A completion operation: a read, a send, or any other entry submitted to the kernel.
    Operation = 4,
    /// A signal handler.
    Signal = Kind::STAYS | 4,
    /// A watcher of a descriptor.
    Watch = Kind::STAYS | 8,
    /// Used by the loop: the poll of a watched descriptor.
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
    /// The bit of kinds with a deadline.
    pub(crate) const TIMER: u8 = 1;
    /// The bit of kinds that run any number of times.
    pub(crate) const STAYS: u8 = 2;

    /// Whether it counts for `run` initially, and can be referenced (S19).
    pub(crate) fn can_be_referenced(self) -> bool {
        !matches!(self, Kind::Hook | Kind::Signal | Kind::Poll)
    }

    /// Whether cancelling is a request, and the callback gets a result (S13).
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
