//! Socket pairs and pipes, and their data: the value of a byte follows from its position.

use std::cell::Cell;
use std::rc::Rc;

use super::language::{End, Length};
use super::machine::Machine;

/// One direction of a stream. It has at most one operation that sends, and one that receives.
pub(crate) struct Direction {
    pub(crate) from: i32,
    pub(crate) to: i32,
    /// Determines the bytes of the stream.
    seed: u64,
    /// The numbers of bytes that were sent, of further bytes that may have been sent, and of
    /// received bytes.
    pub(crate) sent: Cell<u64>,
    pub(crate) in_flight: Cell<u64>,
    pub(crate) received: Cell<u64>,
    pub(crate) has_sender: Cell<bool>,
    pub(crate) has_receiver: Cell<bool>,
    /// Results of operations were lost when a loop was closed: the data is unknown from then on.
    pub(crate) is_lost: Cell<bool>,
    /// An end has been closed.
    pub(crate) is_cut: Cell<bool>,
}

pub(crate) struct Pair {
    pub(crate) fds: [Cell<i32>; 2],
    /// The directions, by the end that is written to; a pipe has one direction.
    pub(crate) directions: Vec<Rc<Direction>>,
    pub(crate) is_pipe: bool,
}

const MOST_PAIRS: usize = 24;
const LONGEST: usize = 12_000;

impl Direction {
    fn new(from: i32, to: i32, seed: u64) -> Rc<Direction> {
        Rc::new(Direction {
            from,
            to,
            seed,
            sent: Cell::new(0),
            in_flight: Cell::new(0),
            received: Cell::new(0),
            has_sender: Cell::new(false),
            has_receiver: Cell::new(false),
            is_lost: Cell::new(false),
            is_cut: Cell::new(false),
        })
    }

    pub(crate) fn byte(&self, place: u64) -> u8 {
        ((place + (self.seed << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
    }

    /// The bytes to be sent next.
    pub(crate) fn next_bytes(&self, length: usize) -> impl Iterator<Item = u8> {
        let sent = self.sent.get();
        (sent..sent + length as u64).map(|place| self.byte(place))
    }

    /// Counts received bytes; returns whether they are the expected ones.
    pub(crate) fn receive(&self, mut bytes: impl ExactSizeIterator<Item = u8>) -> bool {
        let first = self.received.get();
        self.received.set(first + bytes.len() as u64);
        let were_sent = self.received.get() <= self.sent.get() + self.in_flight.get();
        self.is_lost.get()
            || were_sent
                && (first..self.received.get()).all(|at| bytes.next() == Some(self.byte(at)))
    }

    /// An operation has ended that sent `count` of the bytes in flight.
    pub(crate) fn send(&self, count: u64) -> bool {
        self.in_flight.set(0);
        self.sent.set(self.sent.get() + count);
        self.is_lost.get() || self.received.get() <= self.sent.get()
    }
}

impl Pair {
    fn new(is_pipe: bool, seed: u64) -> Option<Pair> {
        let mut fds = [0; 2];
        // SAFETY: the call writes two descriptors.
        let made = unsafe {
            if is_pipe {
                fds.reverse();
                libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC)
            } else {
                libc::socketpair(
                    libc::AF_UNIX,
                    libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
                    0,
                    fds.as_mut_ptr(),
                )
            }
        };
        if made != 0 {
            return None;
        }
        if is_pipe {
            fds.reverse();
            // SAFETY: the descriptor is a pipe's.
            unsafe { libc::fcntl(fds[0], libc::F_SETPIPE_SZ, 4096) };
        } else {
            let size = 4096;
            for fd in fds {
                // SAFETY: the option is an int.
                unsafe {
                    libc::setsockopt(
                        fd,
                        libc::SOL_SOCKET,
                        libc::SO_SNDBUF,
                        (&raw const size).cast(),
                        4,
                    );
                }
            }
        }
        let directions = (0..if is_pipe { 1 } else { 2 })
            .map(|n| Direction::new(fds[n], fds[1 - n], 2 * seed + n as u64))
            .collect();
        Some(Pair { fds: fds.map(Cell::new), directions, is_pipe })
    }

    fn is_usable(&self) -> bool {
        !self.directions.iter().any(|direction| direction.is_lost.get() || direction.is_cut.get())
    }
}

impl Machine {
    /// One of three streams, the last of which is a pipe, and the index of the end. A stream that
    /// has been closed, or whose results were lost, is replaced.
    pub(crate) fn pair(&self, end: End) -> Option<(Rc<Pair>, usize)> {
        let (slot, end) = (end as usize / 2, end as usize % 2);
        let mut pairs = self.pairs.borrow_mut();
        if let Some(pair) =
            &self.pairs_in_use[slot].borrow().as_ref().filter(|pair| pair.is_usable())
        {
            return Some((Rc::clone(pair), end));
        }
        if pairs.len() >= MOST_PAIRS {
            return None;
        }
        let pair = Rc::new(Pair::new(slot == 2, pairs.len() as u64)?);
        pairs.push(Rc::clone(&pair));
        *self.pairs_in_use[slot].borrow_mut() = Some(Rc::clone(&pair));
        Some((pair, end))
    }

    /// The descriptor of an end, or -1.
    pub(crate) fn fd_of(&self, end: End) -> i32 {
        self.pair(end).map_or(-1, |(pair, end)| pair.fds[end].get())
    }

    /// The direction that starts at an end; for a pipe, its only direction.
    pub(crate) fn direction(&self, end: End) -> Option<(Rc<Direction>, bool)> {
        let (pair, end) = self.pair(end)?;
        Some((Rc::clone(&pair.directions[end % pair.directions.len()]), pair.is_pipe))
    }

    /// The other side of a stream sends a few bytes, without a loop.
    pub(crate) fn feed(&self, end: End, length: Length) {
        let Some((direction, _)) = self.direction(end) else { return };
        if direction.has_sender.get() {
            return;
        }
        let bytes: Vec<u8> = direction.next_bytes(length.0 as usize).collect();
        let vector =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: `bytes` has this length. The call does not block.
        let sent =
            unsafe { libc::pwritev2(direction.from, &raw const vector, 1, -1, libc::RWF_NOWAIT) };
        direction.send(sent.max(0) as u64);
    }

    pub(crate) fn drain(&self, end: End, length: Length) {
        if let Some((direction, _)) =
            self.direction(end).filter(|(direction, _)| !direction.has_receiver.get())
        {
            self.receive_now(&direction, length.0 as usize);
        }
    }

    /// Receives without a loop; returns the number of bytes.
    fn receive_now(&self, direction: &Direction, length: usize) -> usize {
        let mut bytes = vec![0u8; length];
        let vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length };
        // SAFETY: `bytes` has room for this length. The call does not block.
        let received =
            unsafe { libc::preadv2(direction.to, &raw const vector, 1, -1, libc::RWF_NOWAIT) };
        bytes.truncate(received.max(0) as usize);
        let is_right = direction.receive(bytes.iter().copied());
        self.require(is_right, || {
            format!("{received} bytes were received that are not the next that were sent")
        });
        bytes.len()
    }

    /// Checks, after all loops are closed, that exactly the bytes sent but not received are left.
    pub(crate) fn end_streams(&self) {
        for pair in self.pairs.take() {
            for direction in &pair.directions {
                if direction.is_cut.get() || direction.is_lost.get() {
                    continue;
                }
                while self.receive_now(direction, LONGEST) > 0 {}
                let (sent, received) = (direction.sent.get(), direction.received.get());
                self.require(sent == received, || {
                    format!("{sent} bytes were sent, {received} received")
                });
            }
            for fd in &pair.fds {
                close(fd);
            }
        }
    }
}

/// Closes a descriptor, if it is open.
pub(crate) fn close(fd: &Cell<i32>) {
    let fd = fd.replace(-1);
    if fd >= 0 {
        // SAFETY: the machine has made the descriptor, and does not use it any more.
        unsafe { libc::close(fd) };
    }
}
