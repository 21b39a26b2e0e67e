//! An operation that goes on until all of its buffer is through, and takes turns with others of its
//! kind on the descriptor.
//!
//! It relies on the buffer of the first entry staying until the operation has ended. What others
//! write meanwhile may stand amid its data.

use super::streams::CURRENT;
use crate::abi::completion::Completed;
use crate::abi::opcodes;
use crate::abi::sqe::Entry;
use crate::pending::driver::{Driver, Step};

/// Submits what is left of a buffer again and again. The result is the length, or how far it came:
/// an error only when that was nowhere.
#[derive(Debug)]
pub(crate) struct WriteAll {
    rest: Entry,
    done: i32,
    /// Whether the data has a place in a file, which moves on with it.
    has_place: bool,
}

impl WriteAll {
    /// To finish what the entry of a write or a send begins: at `off` of a file, unless that is
    /// `CURRENT`.
    pub(super) fn new(entry: Entry) -> WriteAll {
        WriteAll {
            rest: entry,
            done: 0,
            has_place: entry.opcode == opcodes::WRITE && entry.off != CURRENT,
        }
    }
}

impl Driver for WriteAll {
    fn entry(&mut self) -> Option<Entry> {
        Some(self.rest)
    }

    fn completed(&mut self, mut completed: Completed) -> Step {
        let count = u32::try_from(completed.result).unwrap_or(0).min(self.rest.len);
        self.rest = self.rest.rest(count, self.has_place);
        self.done += count as i32;
        if count > 0 && self.rest.len > 0 {
            return Step::AGAIN;
        }
        if self.done > 0 {
            completed.result = self.done;
        }
        Step::give(completed)
    }

    /// Data without an offset goes where another's data ends.
    fn takes_turns(&self) -> bool {
        !self.has_place
    }

    fn cancelled(&self) -> i32 {
        if self.done > 0 { self.done } else { -libc::ECANCELED }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::sqe::Sqe;

    /// Of 100 bytes.
    fn write_all(opcode: u8, off: u64) -> WriteAll {
        WriteAll::new(Entry::of_test(Sqe {
            opcode,
            fd: 3,
            addr: 0x1000,
            len: 100,
            off,
            ..Sqe::default()
        }))
    }

    fn completed(result: i32) -> Completed {
        Completed { number: 1, result, flags: 0 }
    }

    #[test]
    fn the_rest_follows_until_all_is_through() {
        let mut whole = write_all(opcodes::WRITE, 50);
        assert_eq!(whole.cancelled(), -libc::ECANCELED);
        assert!(whole.completed(completed(30)).again);
        let rest = whole.entry().unwrap();
        assert_eq!((rest.addr, rest.len, rest.off, whole.cancelled()), (0x101e, 70, 80, 30));
        let step = whole.completed(completed(70));
        assert_eq!((step.again, step.given.unwrap().result), (false, 100));
    }

    #[test]
    fn an_error_after_the_beginning_is_a_short_result() {
        for ending in [-libc::ECONNRESET, 0] {
            let mut whole = write_all(opcodes::SEND, 0);
            assert!(whole.completed(completed(1)).again);
            assert_eq!(whole.entry().unwrap().off, 0);
            assert_eq!(whole.completed(completed(ending)).given.unwrap().result, 1);
        }
        let mut whole = write_all(opcodes::SEND, 0);
        assert_eq!(whole.completed(completed(-libc::EPIPE)).given.unwrap().result, -libc::EPIPE);
    }
}
