//! The driver of a write or a send that continues until its buffer is done, and takes turns with
//! others of its kind on the descriptor.
//!
//! Relies on the buffer of the first entry until the operation has ended. Data of other kinds of
//! writes may come between its parts.

use super::streams::CURRENT;
use crate::abi::completion::Completed;
use crate::abi::opcodes;
use crate::abi::sqe::Entry;
use crate::pending::driver::{Driver, Step};

/// Submits the rest of a buffer until it is done. The result is the length, or the number of bytes
/// until an error; the error only if that number is 0.
#[derive(Debug)]
pub(crate) struct WriteAll {
    rest: Entry,
    done: i32,
    /// Whether the data has an offset in a file, which advances with it.
    has_place: bool,
}

impl WriteAll {
    /// Continues the entry of a write or a send: at `off` of a file, unless that is `CURRENT`.
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

    /// Data without an offset goes to the current end of the stream.
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

    /// The columns are the results for 100 bytes, the offset of the last part, the result if
    /// cancelled before it, and the result.
    #[test]
    fn the_rest_follows_until_all_is_through_or_an_error_comes() {
        const { assert!(libc::EPIPE == 32 && libc::ECANCELED == 125) };
        for (opcode, off, results, last_off, cancelled, result) in [
            (opcodes::WRITE, 50, &[30, 70][..], 80, 30, 100),
            (opcodes::WRITE, CURRENT, &[30, 70], CURRENT, 30, 100),
            (opcodes::SEND, 0, &[1, -32], 0, 1, 1),
            (opcodes::SEND, 0, &[1, 0], 0, 1, 1),
            (opcodes::SEND, 0, &[-32], 0, -125, -32),
        ] {
            let sqe = Sqe { opcode, fd: 3, addr: 0x1000, len: 100, off, ..Sqe::default() };
            let mut whole = WriteAll::new(Entry::of_test(sqe));
            let (last, parts) = results.split_last().unwrap();
            let mut completed = |result| whole.completed(Completed { number: 1, result, flags: 0 });
            assert!(parts.iter().all(|&part| completed(part).again));
            let (rest, sent) = (whole.rest, parts.iter().sum::<i32>() as u32);
            assert_eq!((rest.addr, rest.len), (0x1000 + u64::from(sent), 100 - sent));
            assert_eq!((rest.off, whole.cancelled()), (last_off, cancelled));
            let step = whole.completed(Completed { number: 1, result: *last, flags: 0 });
            assert_eq!((step.again, step.given.unwrap().result), (false, result));
        }
    }
}
