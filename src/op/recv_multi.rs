//! The driver of a receive with many results: one entry with a buffer ring (6.0), or a poll and a
//! receive for each arrival.
//!
//! Relies on the pool to keep the buffers. A part belongs to the callback only during its call.

use std::ptr;

use libc::c_int;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SocketType, sockopt};

use super::data::NoData;
use super::operation::Number;
use super::sockets::{poll, recv};
use crate::abi::completion::{BUFFER_GOES_ON, Completed, HAS_BUFFER, MORE};
use crate::abi::handle::Handle;
use crate::abi::sqe::{Entry, Sqe, flags};
use crate::error::Result;
use crate::kernel::buffers::Pool;
use crate::pending::driver::{Driver, Step};
use crate::pending::event::OpResult;
use crate::sys::c_library::borrow;
use crate::sys::memory::TryArc;

/// `IORING_RECV_MULTISHOT`, in `ioprio`.
const MULTISHOT: u16 = 1 << 1;

#[derive(Debug)]
pub(crate) struct RecvMulti {
    fd: i32,
    pool: TryArc<Pool>,
    /// Whether it begins with a poll, which would wait forever on a descriptor that is not a
    /// socket.
    polls: bool,
}

impl RecvMulti {
    pub(crate) fn new(fd: i32, pool: &TryArc<Pool>) -> Result<RecvMulti> {
        pool.begin_use()?;
        let polls = pool.group().is_none() && socket_type(fd).is_some();
        Ok(RecvMulti { fd, pool: pool.clone(), polls })
    }

    fn sqe(&self) -> Sqe {
        if self.polls {
            return poll(Number(self.fd), libc::POLLIN | libc::POLLRDHUP).into_sqe();
        }
        let recv = recv(Number(self.fd), NoData::<usize>::NEW, 0).into_sqe();
        // Without a group, the receive returns the error of the descriptor.
        let Some(group) = self.pool.group() else { return recv };
        Sqe { flags: flags::BUFFER_SELECT, ioprio: MULTISHOT, buf_index: group, ..recv }
    }

    /// Handles a receive of the kernel.
    fn received(&self, Completed { number, result, flags }: Completed) -> Step {
        let again = flags & MORE == 0;
        let mut data = ptr::null();
        if flags & HAS_BUFFER != 0 {
            data = self.pool.take(
                (flags >> 16) as u16,
                result.max(0) as u32,
                flags & BUFFER_GOES_ON != 0,
            );
        }
        if result > 0 && data.is_null() {
            return Step::end(-libc::EIO);
        }
        if result > 0 {
            return give(result, data, again);
        }
        self.pool.part_done(data);
        if result == 0 && is_empty_message(self.fd) {
            return give(0, ptr::null(), again);
        }
        if result == -libc::ENOBUFS { self.want_buffer(number, again) } else { Step::end(result) }
    }

    /// Handles a poll that reports data.
    fn receive(&self, Completed { number, result, .. }: Completed) -> Step {
        if result < 0 {
            return Step::end(result);
        }
        let Some((received, data)) = self.pool.fill(|buffer| recv_now(self.fd, buffer)) else {
            return self.want_buffer(number, true);
        };
        match -received {
            ..0 => {
                Step { given: Some(OpResult { result: received, flags: MORE, data }), again: true }
            }
            // A datagram socket that was shut down: the poll would report this again and again.
            libc::EAGAIN if result & c_int::from(libc::POLLRDHUP) != 0 => Step::end(0),
            libc::EAGAIN | libc::EINTR => Step::AGAIN,
            0 if is_empty_message(self.fd) => give(0, data, true),
            _ => Step::end(received),
        }
    }

    /// There was no buffer: the kernel picks one before it checks for data (6.0 to 6.18). With
    /// IORING_RECVSEND_POLL_FIRST it would check first, but then a Unix stream never reports an end
    /// that was present when its data was read (6.18). A buffer that has been returned meanwhile is
    /// used.
    fn want_buffer(&self, number: u64, has_ended: bool) -> Step {
        if !has_ended || self.pool.has_available() {
            return Step { given: None, again: has_ended };
        }
        Handle::from_raw(number as i64).into_iter().for_each(|handle| self.pool.wait(handle));
        Step::WAIT
    }
}

impl Driver for RecvMulti {
    /// The entry points at nothing; the pool owns the buffers that the kernel picks.
    fn entry(&mut self) -> Option<Entry> {
        Some(Entry::without_pointers(self.sqe()))
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

/// A result, with more to come.
fn give(result: i32, data: *const u8, again: bool) -> Step {
    Step { given: Some(OpResult { result, flags: MORE, data }), again }
}

/// recv(2) that does not block; returns a negated errno on failure.
fn recv_now(fd: c_int, buffer: &mut [u8]) -> i32 {
    let received =
        borrow(fd).ok_or(Errno::BADF).and_then(|fd| net::recv(fd, buffer, RecvFlags::DONTWAIT));
    received.map_or_else(|errno| -errno.raw_os_error(), |(count, _)| count as i32)
}

/// None: not a socket.
fn socket_type(fd: c_int) -> Option<SocketType> {
    sockopt::socket_type(borrow(fd)?).ok()
}

/// Whether a result of 0 is an empty message, and not the end, as on a stream. After a shutdown it
/// is the end, unless a message with data follows.
fn is_empty_message(fd: c_int) -> bool {
    let is_message = socket_type(fd).is_some_and(|kind| kind != SocketType::STREAM);
    let Some(fd) = borrow(fd).filter(|_| is_message) else { return false };
    let mut asked = [PollFd::new(&fd, PollFlags::RDHUP)];
    let polled = rustix::event::poll(&mut asked, Some(&Timespec::default()));
    let has_ended =
        asked[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::NVAL);
    polled.is_ok() && !has_ended || rustix::io::ioctl_fionread(fd).is_ok_and(|left| left > 0)
}
