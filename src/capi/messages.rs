//! Messages from C: the data of recvmsg(2) and sendmsg(2). The library copies headers and arrays.
//!
//! C promises that the buffers, the address and the control messages of a message last until the
//! operation has ended. If no callback sees a received message, the library closes the descriptors
//! that came with it (S22).

use std::cell::RefCell;
use std::ffi::c_int;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::slice;

use libc::{cmsghdr, msghdr};

use super::{Array, Made, NULL_POINTER, Vectors};
use crate::abi::completion::Completed;
use crate::abi::sqe::{Entry, Sqe};
use crate::error::Result;
use crate::op::flags::receiving;
use crate::op::operation::{Number, Op, OpData, Outcome};
use crate::op::sockets::recvmsg;
use crate::pending::driver::{Driver, Step};
use crate::sys::descriptors::close_unseen;
use crate::sys::memory::{TryRc, try_box};

/// `const struct msghdr *`: NULL, or a message that is valid during the call, as is its array of
/// buffers. The buffers, address and control messages are valid until the operation has ended.
#[repr(transparent)]
#[derive(Debug)]
pub struct ConstMessagePtr<'a>(*const msghdr, PhantomData<&'a msghdr>);

/// `struct msghdr *`: the same, but the message too is valid until the operation has ended, and no
/// other code uses it.
#[repr(transparent)]
#[derive(Debug)]
pub struct MessagePtr<'a>(ConstMessagePtr<'a>);

/// A copy of a message and its array of buffers.
pub(super) struct Message {
    header: msghdr,
    vectors: Vectors,
}

impl Message {
    pub(super) fn new(message: ConstMessagePtr<'_>) -> Result<Message> {
        // SAFETY: C promises that a message which is not NULL can be read during the call, with its
        // array.
        let (header, (first, count)) = unsafe {
            let header = *message.0.as_ref().ok_or(NULL_POINTER)?;
            (header, Array::of(header.msg_iov, header.msg_iovlen))
        };
        Ok(Message { header, vectors: Vectors::new(first, count)? })
    }
}

// SAFETY: the data owns header and array, and C promises that the buffers last.
unsafe impl OpData for Message {
    type Output = ();

    const IS_INLINE: bool = true;

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        self.header.msg_iov = self.vectors.as_mut_ptr();
        (sqe.addr, sqe.len) = (&raw mut self.header as u64, 1);
        Ok(())
    }

    fn complete(self, _: Outcome) {}
}

/// Makes an operation that receives a message.
pub(super) fn receive(fd: Number, message: MessagePtr<'_>, flags: c_int) -> Result<Made> {
    let caller = message.0.0.cast_mut();
    let data = Message::new(message.0)?;
    let op = TryRc::new(RefCell::new(recvmsg(fd, data, receiving(flags)?)))?;
    let sqe = op.borrow_mut().entry()?;
    let driver = try_box(Received { op, caller })?;
    // SAFETY: the driver does not move the operation.
    Ok(Made(unsafe { Entry::new(sqe) }, Some(driver)))
}

/// Receives a message, and copies the fields that the kernel writes to the message of the caller.
#[derive(Debug)]
struct Received {
    op: TryRc<RefCell<Op<Number, Message>>>,
    caller: *mut msghdr,
}

impl Received {
    /// The header, as the kernel has filled it in.
    fn header(&self) -> msghdr {
        self.op.borrow_mut().data().header
    }
}

impl Driver for Received {
    fn completed(&mut self, completed: Completed) -> Step {
        if completed.result >= 0 {
            let msghdr { msg_namelen, msg_controllen, msg_flags, .. } = self.header();
            // SAFETY: C promises that its message lasts (`MessagePtr`).
            unsafe {
                (*self.caller).msg_namelen = msg_namelen;
                (*self.caller).msg_controllen = msg_controllen;
                (*self.caller).msg_flags = msg_flags;
            }
        }
        Step::give(completed)
    }

    fn discarded(&mut self, result: i32) {
        let msghdr { msg_control, msg_controllen, .. } = self.header();
        if result >= 0 && !msg_control.is_null() {
            // SAFETY: without an error, the kernel has written `msg_controllen` bytes of control
            // messages, and C promises that these last.
            close_received(unsafe { slice::from_raw_parts(msg_control.cast(), msg_controllen) });
        }
    }
}

/// `SCM_PIDFD` of Linux 6.5, which libc does not have.
const SCM_PIDFD: c_int = 4;

/// Where the data of a control message begins.
const BEGIN: usize = size_of::<cmsghdr>();

/// Closes the descriptors in control messages that no callback has seen; with MSG_CTRUNC, as many
/// descriptors as fitted. The messages may be unaligned.
fn close_received(mut messages: &[u8]) {
    let int = |bytes, at| field(bytes, at).map(c_int::from_ne_bytes);
    while let (Some(length), Some(level), Some(kind)) = (
        field(messages, offset_of!(cmsghdr, cmsg_len)).map(usize::from_ne_bytes),
        int(messages, offset_of!(cmsghdr, cmsg_level)),
        int(messages, offset_of!(cmsghdr, cmsg_type)),
    ) {
        let Some(data) = messages.get(BEGIN..length) else { return };
        if level == libc::SOL_SOCKET && matches!(kind, libc::SCM_RIGHTS | SCM_PIDFD) {
            let fds = data.chunks_exact(size_of::<c_int>()).filter_map(|fd| int(fd, 0));
            // An SCM_PIDFD may be an error.
            fds.filter(|&fd| fd >= 0).for_each(close_unseen);
        }
        messages =
            messages.get(length.next_multiple_of(align_of::<cmsghdr>())..).unwrap_or_default();
    }
}

/// The value at an offset in a message; None beyond its end.
fn field<const N: usize>(message: &[u8], at: usize) -> Option<[u8; N]> {
    message.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn s22_descriptors_in_unaligned_room_are_closed() {
        let pairs = [(); 3].map(|()| UnixStream::pair().unwrap());
        let (fds, mut peers): (Vec<_>, Vec<_>) =
            pairs.into_iter().map(|(fd, peer)| (fd.into_raw_fd(), peer)).unzip();
        let mut room = Vec::from([0u8]);
        for part in [&fds[..2], &fds[2..]] {
            room.extend((BEGIN + size_of_val(part)).to_ne_bytes());
            let words = [libc::SOL_SOCKET, libc::SCM_RIGHTS].iter().chain(part);
            room.extend(words.copied().flat_map(c_int::to_ne_bytes));
            room.resize(1 + (room.len() - 1).next_multiple_of(align_of::<cmsghdr>()), 0);
        }
        close_received(&room[1..]);
        for peer in &mut peers {
            // A child that another test has forked may have copies of the descriptors for a moment.
            peer.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        }
    }
}
