//! The armed timeout: the one IORING_OP_TIMEOUT in the kernel for the earliest deadline.
//!
//! The timeout is absolute, on CLOCK_MONOTONIC. In a time namespace it is relative, because
//! io_uring does not apply the namespace's offset to deadlines (measured on 6.18: they were late by
//! the offset, or immediate). An earlier deadline updates the timeout (5.11; before, it is removed
//! and another one armed). A later deadline does not, because one needless wakeup is cheaper than
//! an update each time. A completion only makes the loop check the timer queue; it does not prove
//! that a timer is due.

use std::fs::File;
use std::io::Read;

use super::queues::Queues;
use super::setup::Abilities;
use crate::abi::opcodes;
use crate::abi::sqe::{Sqe, Timespec, flags};
use crate::time::monotonic;

/// The user data of the timeout's entries: all ones in the upper bits, the kind in bit 32, the
/// round of arming in the lower half.
const TIMEOUT: u64 = 0xffff_fffe_0000_0000;
const CHANGE: u64 = 0xffff_ffff_0000_0000;

/// `IORING_TIMEOUT_*`: the time is absolute; the time is the new one of another timeout.
const ABSOLUTE: u32 = 1 << 0;
pub(super) const UPDATE: u32 = 1 << 1;

#[derive(Debug)]
pub(super) struct ArmedTimeout {
    /// The deadline in the kernel, or queued for it.
    armed: Option<u64>,
    /// The number of its entry among all that were queued, if there is one.
    queued: Option<u64>,
    /// Distinguishes completions of this timeout from those of earlier ones.
    round: u32,
    is_absolute: bool,
}

impl ArmedTimeout {
    pub(super) fn new() -> ArmedTimeout {
        ArmedTimeout { armed: None, queued: None, round: 0, is_absolute: !in_time_namespace() }
    }

    /// The entries to be queued so that a timeout expires at `deadline` or before, each with its
    /// number. They lack the address of the time.
    pub(super) fn arm(
        &mut self,
        deadline: u64,
        queues: &mut Queues,
        abilities: &Abilities,
    ) -> [Option<(Sqe, u64)>; 2] {
        let before = self.armed;
        if before.is_some_and(|armed| armed <= deadline) {
            return [None; 2];
        }
        // A relative timeout begins at its submission, which is later, so it is late rather than
        // early.
        let nanos =
            if self.is_absolute { deadline } else { deadline.saturating_sub(monotonic()).max(1) };
        queues.set_time(Timespec::from_nanos(nanos));
        self.armed = Some(deadline);
        let (queued, taken) = queues.counts();
        if self.queued.is_some_and(|number| number >= taken) {
            // The kernel has not read the entry that points to the time, which now has the new
            // deadline.
            return [None; 2];
        }
        self.queued = Some(queued);
        let op_flags = if self.is_absolute { ABSOLUTE } else { 0 };
        let (number, change) = (TIMEOUT | u64::from(self.round), CHANGE | u64::from(self.round));
        let remove =
            Sqe { opcode: opcodes::TIMEOUT_REMOVE, fd: -1, addr: number, ..Sqe::default() };
        if before.is_some() && abilities.updates_timeouts {
            // Without CQE_SKIP_SUCCESS (before 5.17), the completion of the update ends the wait.
            let flags = if abilities.skips_success { flags::CQE_SKIP_SUCCESS } else { 0 };
            let update = Sqe { flags, op_flags: op_flags | UPDATE, ..remove };
            return [Some((update, change)), None];
        }
        self.round = self.round.wrapping_add(1);
        let timeout = Sqe { opcode: opcodes::TIMEOUT, fd: -1, len: 1, op_flags, ..Sqe::default() };
        let first = Some((timeout, TIMEOUT | u64::from(self.round)));
        if before.is_none() {
            return [first, None];
        }
        // Of two entries, the second points to the time.
        self.queued = Some(queued + 1);
        [Some((remove, change)), first]
    }

    /// Discards what is known of the kernel's timeout.
    pub(super) fn forget(&mut self) {
        self.armed = None;
        self.queued = None;
    }

    /// Handles a completion of the timeout's entries.
    #[inline]
    pub(super) fn completed(&mut self, user_data: u64, result: i32) {
        // The timeout has expired or was removed, or a change came too late: the next wait arms it
        // again.
        let ended = user_data < CHANGE || result < 0;
        if ended && user_data as u32 == self.round {
            self.armed = None;
        }
    }
}

/// Whether CLOCK_MONOTONIC has an offset here: that of a time namespace (5.6).
fn in_time_namespace() -> bool {
    // The file has two lines of a name, seconds and nanoseconds. Without the file, the kernel has
    // no time namespaces.
    let mut offsets = [0; 256];
    let read = File::open("/proc/self/timens_offsets").and_then(|mut file| file.read(&mut offsets));
    let Ok(text) = std::str::from_utf8(&offsets[..read.unwrap_or(0)]) else { return false };
    let monotonic = text.lines().find_map(|line| line.trim_start().strip_prefix("monotonic"));
    monotonic.is_some_and(|offset| offset.split_whitespace().any(|number| number != "0"))
}
