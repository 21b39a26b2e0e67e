//! Messages of one buffer, with an address: the data of recvmsg(2) and sendmsg(2).

use std::ptr;

use libc::iovec;

use super::address::Address;
use super::buffer::{BufferMut, Filled};
use super::operation::{OpData, Outcome};
use crate::abi::sqe::Sqe;
use crate::error::Result;

/// `struct user_msghdr` of the kernel.
#[repr(C)]
struct Header {
    name: *mut u8,
    name_length: u32,
    vectors: *mut iovec,
    count: usize,
    control: *mut u8,
    control_length: usize,
    flags: u32,
}

/// A message whose bytes are other data's, which point at them with an address and a length.
pub(crate) struct Message<M> {
    pub(crate) data: M,
    address: Address,
    vector: iovec,
    header: Header,
}

impl<M> Message<M> {
    /// To an address, or from one that the kernel is to tell.
    pub(crate) fn new(data: M, address: Address) -> Message<M> {
        let header = Header {
            name: ptr::null_mut(),
            name_length: 0,
            vectors: ptr::null_mut(),
            count: 1,
            control: ptr::null_mut(),
            control_length: 0,
            flags: 0,
        };
        Message { data, address, vector: iovec { iov_base: ptr::null_mut(), iov_len: 0 }, header }
    }
}

/// What has come of a message, and the address.
pub(crate) struct Addressed<T>(pub(crate) T, pub(crate) Address);

// SAFETY: the bytes are where the data in it says; the rest is the message itself.
unsafe impl<M: OpData> OpData for Message<M> {
    type Output = Addressed<M::Output>;

    const IS_INLINE: bool = true;

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        self.data.point(sqe)?;
        self.vector = iovec { iov_base: sqe.addr as *mut _, iov_len: sqe.len as usize };
        (self.header.name, self.header.name_length) = self.address.as_raw();
        self.header.vectors = &raw mut self.vector;
        (sqe.addr, sqe.len) = (&raw mut self.header as u64, 1);
        Ok(())
    }

    fn complete(mut self, outcome: Outcome) -> Addressed<M::Output> {
        self.address.set_length(self.header.name_length);
        Addressed(self.data.complete(outcome), self.address)
    }
}

impl<B: BufferMut> From<Addressed<Filled<B>>> for (Result<(usize, Address)>, B) {
    fn from(Addressed(filled, address): Addressed<Filled<B>>) -> (Result<(usize, Address)>, B) {
        (filled.count().map(|count| (count, address)), filled.into_buffer())
    }
}

impl<B> From<Addressed<(Result<usize>, B)>> for (Result<usize>, B) {
    fn from(Addressed(sent, _): Addressed<(Result<usize>, B)>) -> (Result<usize>, B) {
        sent
    }
}
