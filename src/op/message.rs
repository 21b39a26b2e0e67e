//! Messages of one buffer, with an address: the data of recvmsg(2) and sendmsg(2).

use std::ptr;

use libc::{iovec, msghdr};

use super::address::Address;
use super::buffer::{Buffer, BufferMut, Filled, length, room};
use super::operation::{OpData, Outcome};
use crate::abi::sqe::Sqe;
use crate::error::Result;

/// What the kernel reads of a message, and writes to it, besides its data.
struct Header {
    header: msghdr,
    vector: iovec,
    address: Address,
}

impl Header {
    fn new(address: Address) -> Header {
        // SAFETY: zeros are null pointers and numbers.
        let header = unsafe { std::mem::zeroed() };
        Header { header, vector: iovec { iov_base: ptr::null_mut(), iov_len: 0 }, address }
    }

    /// Points at this, of a message whose data is there.
    fn point(&mut self, sqe: &mut Sqe, (data, length): (*mut u8, u32)) {
        self.vector = iovec { iov_base: data.cast(), iov_len: length as usize };
        (self.header.msg_name, self.header.msg_namelen) = self.address.as_raw();
        self.header.msg_iov = &raw mut self.vector;
        self.header.msg_iovlen = 1;
        (sqe.addr, sqe.len) = (&raw mut self.header as u64, 1);
    }

    /// The address, as the kernel has told it.
    fn address(mut self) -> Address {
        self.address.set_length(self.header.msg_namelen);
        self.address
    }
}

/// A message that is received into the room of a buffer.
pub(crate) struct MessageIn<B> {
    pub(crate) buffer: B,
    header: Header,
}

impl<B: BufferMut> MessageIn<B> {
    pub(crate) fn new(buffer: B) -> MessageIn<B> {
        MessageIn { buffer, header: Header::new(Address::EMPTY) }
    }
}

/// A message that has been received, and who has sent it.
pub(crate) struct ReceivedFrom<B>(pub(crate) Filled<B>, pub(crate) Address);

impl<B: BufferMut> From<ReceivedFrom<B>> for (Result<(usize, Address)>, B) {
    fn from(ReceivedFrom(filled, address): ReceivedFrom<B>) -> (Result<(usize, Address)>, B) {
        (filled.count().map(|count| (count, address)), filled.into_buffer())
    }
}

// SAFETY: the room stays where it is, and is nobody else's, as the buffer says; the rest is the data's own.
unsafe impl<B: BufferMut> OpData for MessageIn<B> {
    type Output = ReceivedFrom<B>;

    const IS_INLINE: bool = true;

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        self.header.point(sqe, room(&mut self.buffer)?);
        Ok(())
    }

    fn complete(self, outcome: Outcome) -> ReceivedFrom<B> {
        ReceivedFrom(outcome.filled(self.buffer), self.header.address())
    }
}

/// A message that is sent from a buffer.
pub(crate) struct MessageOut<B> {
    buffer: B,
    header: Header,
}

impl<B: Buffer> MessageOut<B> {
    pub(crate) fn new(buffer: B, to: Address) -> MessageOut<B> {
        MessageOut { buffer, header: Header::new(to) }
    }
}

// SAFETY: the bytes stay where and what they are, as the buffer says; the rest is the data's own.
unsafe impl<B: Buffer> OpData for MessageOut<B> {
    type Output = (Result<usize>, B);

    const IS_INLINE: bool = true;

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        let bytes = self.buffer.bytes();
        let data = (bytes.as_ptr().cast_mut(), length(bytes.len())?);
        self.header.point(sqe, data);
        Ok(())
    }

    fn complete(self, outcome: Outcome) -> (Result<usize>, B) {
        (outcome.count(), self.buffer)
    }
}
