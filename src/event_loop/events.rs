//! What a descriptor is watched for, and what it is ready for.

use std::ops::{BitOr, BitOrAssign};

use crate::error::{Error, Result};

/// What a descriptor is watched for, and what it is ready for: `POLL*` of poll(2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Events(u32);

impl Events {
    /// Nothing: a watcher that is paused.
    pub const NONE: Events = Events(0);
    /// There is data to read, a connection to accept, an end of file.
    pub const IN: Events = Events(libc::POLLIN as u32);
    /// There is urgent data.
    pub const PRI: Events = Events(libc::POLLPRI as u32);
    /// There is room to write; a connection has been made, or refused.
    pub const OUT: Events = Events(libc::POLLOUT as u32);
    /// The peer has shut down its side of a stream.
    pub const RDHUP: Events = Events(libc::POLLRDHUP as u32);
    /// An error; reported always.
    pub const ERR: Events = Events(libc::POLLERR as u32);
    /// The other end has hung up; reported always.
    pub const HUP: Events = Events(libc::POLLHUP as u32);
    /// The descriptor was closed; reported always, and the watcher ends with it.
    pub const NVAL: Events = Events(libc::POLLNVAL as u32);

    /// Those with these bits. Errors: EINVAL for one that is no `POLL*`.
    pub fn from_bits(bits: u32) -> Result<Events> {
        if bits & !KNOWN == 0 { Ok(Events(bits)) } else { Err(Error::UNKNOWN_EVENTS) }
    }

    /// What the kernel says of a descriptor.
    pub(super) fn from_kernel(bits: u32) -> Events {
        Events(bits)
    }

    /// The bits, as poll(2) has them.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` are among them.
    pub fn contains(self, other: Events) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is among them.
    pub fn intersects(self, other: Events) -> bool {
        self.0 & other.0 != 0
    }
}

/// All of poll(2), POLLREMOVE and POLL_BUSY_LOOP of the kernel's not counted.
const KNOWN: u32 = 0x27ff;

impl BitOr for Events {
    type Output = Events;
    fn bitor(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }
}

impl BitOrAssign for Events {
    fn bitor_assign(&mut self, other: Events) {
        self.0 |= other.0;
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Events({:#x})", self.0)
    }
}
