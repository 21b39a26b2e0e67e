//! One receive for any number of results, from a ring of buffers (6.0); before that, a poll and a receive for each.

use libc::c_int;

use super::buffers::Pool;
use super::operation::{NoData, Number};
use super::sockets::{poll, recv};
use crate::abi::completion::{BUFFER_GOES_ON, Completed, HAS_BUFFER, MORE};
use crate::abi::handle::Handle;
use crate::abi::sqe::{Sqe, flags};
use crate::pending::driver::{Driver, Step};
use crate::pending::event::OpResult;
use crate::sys::try_arc::TryArc;

/// `IORING_RECV_MULTISHOT`, in `ioprio`.
const MULTISHOT: u16 = 1 << 1;

#[derive(Debug)]
pub(crate) struct RecvMulti {
    fd: i32,
    pool: TryArc<Pool>,
    /// Whether it begins with a poll, which would wait for ever for what is no socket.
    polls: bool,
}

impl RecvMulti {
    /// `pool.begin_use` has been called for it.
    pub(crate) fn new(fd: i32, pool: TryArc<Pool>) -> RecvMulti {
        let polls = pool.group().is_none() && socket_type(fd).is_some();
        RecvMulti { fd, pool, polls }
    }

    pub(crate) fn sqe(&self) -> Sqe {
        if self.polls {
            return poll(Number(self.fd), libc::POLLIN | libc::POLLRDHUP).into_sqe();
        }
        let recv = recv(Number(self.fd), NoData::<usize>::NEW, 0).into_sqe();
        // Without a group, this says what is wrong with the descriptor.
        let Some(group) = self.pool.group() else { return recv };
        Sqe { flags: flags::BUFFER_SELECT, ioprio: MULTISHOT, buf_index: group, ..recv }
    }

    /// The kernel has received.
    fn received(&self, Completed { number, result, flags }: Completed) -> Step {
        let again = flags & MORE == 0;
        let mut data = std::ptr::null();
        if flags & HAS_BUFFER != 0 {
            data = self.pool.take((flags >> 16) as u16, result.max(0) as u32, flags & BUFFER_GOES_ON != 0);
        }
        if result > 0 && data.is_null() {
            return Step::end(-libc::EIO);
        }
        if result > 0 {
            return Step { given: Some(OpResult { result, flags: MORE, data }), again };
        }
        self.pool.part_done(data);
        if result == 0 && is_empty_message(self.fd) {
            return Step { given: Some(OpResult::new(0, MORE)), again };
        }
        if result == -libc::ENOBUFS { self.want_buffer(number, again) } else { Step::end(result) }
    }

    /// A poll says that there is something to receive.
    fn receive(&self, Completed { number, result, .. }: Completed) -> Step {
        if result < 0 {
            return Step::end(result);
        }
        let Some((bid, buffer, size)) = self.pool.take_free() else { return self.want_buffer(number, true) };
        match recv_now(self.fd, buffer, size) {
            received if received > 0 => {
                let data = self.pool.take(bid, received as u32, false);
                Step { given: Some(OpResult { result: received, flags: MORE, data }), again: true }
            }
            ended => {
                self.pool.put_free(bid);
                match -ended {
                    // Datagrams that have been shut down: the poll would say the same again and again.
                    libc::EAGAIN if result & c_int::from(libc::POLLRDHUP) != 0 => Step::end(0),
                    libc::EAGAIN | libc::EINTR => Step::AGAIN,
                    0 if is_empty_message(self.fd) => Step { given: Some(OpResult::new(0, MORE)), again: true },
                    _ => Step::end(ended),
                }
            }
        }
    }

    /// There was no buffer, for data or to begin with: the kernel picks one before it looks for data (6.0 to 6.18). With
    /// IORING_RECVSEND_POLL_FIRST it would look first, but then a Unix stream whose end was there already when its data was
    /// read never tells of it (6.18). A buffer that has come back meanwhile will do.
    fn want_buffer(&self, number: u64, has_ended: bool) -> Step {
        if !has_ended || self.pool.has_available() {
            return Step { given: None, again: has_ended };
        }
        Handle::from_raw(number as i64).into_iter().for_each(|handle| self.pool.wait(handle));
        Step::WAIT
    }
}

// SAFETY: the entries point at nothing; the buffers that the kernel picks are the pool's, which lives as long as the driver.
unsafe impl Driver for RecvMulti {
    fn entry(&mut self) -> Option<Sqe> {
        Some(self.sqe())
    }

    fn completed(&mut self, completed: Completed) -> Step {
        if self.pool.group().is_some() { self.received(completed) } else { self.receive(completed) }
    }

    fn seen(&mut self, given: OpResult) {
        self.pool.part_done(given.data);
    }

    fn may_resume_others(&self) -> bool {
        self.pool.may_resume()
    }
}

impl Drop for RecvMulti {
    fn drop(&mut self) {
        self.pool.end_use();
    }
}

/// recv(2) that does not block; a negated errno when it fails.
fn recv_now(fd: c_int, buffer: *mut u8, size: usize) -> i32 {
    // SAFETY: the buffer is a free one of the pool's, of this size; a number that is no descriptor is answered with EBADF.
    let received = unsafe { libc::recv(fd, buffer.cast(), size, libc::MSG_DONTWAIT) };
    if received >= 0 { received as i32 } else { -nix::errno::Errno::last_raw() }
}

/// `SOCK_*`. None: it is no socket.
fn socket_type(fd: c_int) -> Option<c_int> {
    let (mut kind, mut length) = (0, size_of::<c_int>() as libc::socklen_t);
    // SAFETY: the kernel writes at most so many bytes, to live variables.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut length) };
    (result == 0).then_some(kind)
}

/// Whether 0 received is an empty message, and not the end, as it is of a stream. Of what has been shut down it is the end, unless a
/// message with data stands behind it.
fn is_empty_message(fd: c_int) -> bool {
    const END: libc::c_short = libc::POLLRDHUP | libc::POLLHUP | libc::POLLNVAL;
    if socket_type(fd).is_none_or(|kind| kind == libc::SOCK_STREAM) {
        return false;
    }
    let (mut poll, mut left) = (libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 }, 0 as c_int);
    // SAFETY: both write to live variables.
    let asked = unsafe { (libc::poll(&raw mut poll, 1, 0), libc::ioctl(fd, libc::FIONREAD, &raw mut left)) };
    asked.0 >= 0 && poll.revents & END == 0 || asked.1 == 0 && left > 0
}
