//! Completion operations, each defined once (`operation`); and entries that the user makes.
//!
//! `Loop::submit` takes any entry, checked so that the loop keeps control of it. The caller
//! guarantees its memory, which is the reason for `unsafe` here. `abi::opcodes` has all properties
//! of an opcode. Every entry goes to the ring through `Loop::submit_operation`.

mod accept_multi;
pub(crate) mod address;
pub(crate) mod buffer;
pub(crate) mod children;
pub(crate) mod data;
pub(crate) mod files;
pub(crate) mod flags;
mod multi;
pub(crate) mod operation;
mod recv_multi;
pub(crate) mod resolve;
pub(crate) mod sockets;
pub(crate) mod streams;
mod write_all;

use libc::c_int;
use nix::errno::Errno;

pub use self::files::{FileStatus, OpenOptions};
pub use self::multi::Buffers;
pub use self::operation::CWD;
use crate::abi::completion::{MORE, TIMED_OUT};
use crate::abi::handle::Handle;
use crate::abi::opcodes::{self, Check};
use crate::abi::sqe::{self, Entry, Sqe};
use crate::error::{Error, Result, Sentence};
use crate::event_loop::Callback;
use crate::event_loop::Loop;
use crate::pending::event::{Event, OpResult};

/// A result of an operation, as the kernel returned it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    result: i32,
    flags: u32,
}

impl Completion {
    /// The result of the operation, often a number of bytes.
    ///
    /// Errors: the kernel's error; ECANCELED; ETIMEDOUT when a deadline came before anything was
    /// done.
    pub fn result(self) -> Result<u32> {
        u32::try_from(self.result).map_err(|_| Error::of_operation(self.result))
    }

    /// Whether another completion of the same operation follows.
    pub fn more(self) -> bool {
        self.flags & MORE != 0
    }

    /// Whether a deadline ended the operation; see [`Loop::set_deadline`].
    pub fn timed_out(self) -> bool {
        self.flags & TIMED_OUT != 0
    }

    /// `IORING_CQE_F_*` of the kernel, and the number of a provided buffer in the upper half.
    pub fn flags(self) -> u32 {
        self.flags & !TIMED_OUT
    }
}

/// Refuses entries that the loop could not control. `links` are link flags to be allowed.
pub(crate) fn check(sqe: &Sqe, links: u8) -> Result<()> {
    let refusal = |sentence| Err(Error::new(Errno::EINVAL, sentence));
    match sqe.operation().check {
        Check::None => {}
        Check::SendFlags => flags::check_buffer_stays(sqe.op_flags as c_int)?,
        Check::RecvFlags => flags::check_data_comes(sqe.op_flags as c_int)?,
        Check::Cancels => return refusal(Sentence::OpcodeCancel),
        Check::ChangesTimeout => return refusal(Sentence::OpcodeTimeout),
        Check::Messages => return refusal(Sentence::OpcodeMessage),
        Check::Has128Bytes => return refusal(Sentence::Opcode128),
    }
    match sqe.flags & !links {
        set if set & sqe::flags::IO_DRAIN != 0 => refusal(Sentence::FlagIoDrain),
        set if set & (sqe::flags::IO_LINK | sqe::flags::IO_HARDLINK) != 0 => {
            refusal(Sentence::FlagLink)
        }
        set if set & sqe::flags::CQE_SKIP_SUCCESS != 0 => refusal(Sentence::FlagSkipSuccess),
        set if set & !sqe::flags::KNOWN != 0 => refusal(Sentence::FlagUnknown),
        _ => Ok(()),
    }
}

impl Loop {
    /// Submits any operation of the kernel: `entry` is copied, and the loop sets its `user_data`.
    /// `f` gets each completion; the last one is the one whose [`Completion::more`] is false.
    ///
    /// `IORING_OP_SEND_ZC` and `IORING_OP_SENDMSG_ZC` send without a copy: `f` gets the result,
    /// with more to come; at the final completion the kernel has released the buffer.
    ///
    /// The entry is submitted with the next iteration's system call, or at once if the queue is
    /// full. Errors: EINVAL, with the name in the sentence, for entries that the loop could not
    /// control: IOSQE_IO_DRAIN, IOSQE_CQE_SKIP_SUCCESS, IOSQE_IO_LINK and IOSQE_IO_HARDLINK,
    /// unknown flags, the operations ASYNC_CANCEL, POLL_REMOVE, TIMEOUT_REMOVE, LINK_TIMEOUT,
    /// MSG_RING and those of 128 bytes, and flags that let the kernel use a buffer after the final
    /// completion (MSG_ZEROCOPY and MSG_SPLICE_PAGES of SEND and SENDMSG, MSG_SOCK_DEVMEM of RECV
    /// and RECVMSG); ENOSYS for an operation that this kernel does not have; EAGAIN when the kernel
    /// takes no submissions at the moment; ENOMEM, ESHUTDOWN. O(1).
    ///
    /// # Safety
    /// All memory that the entry points to must be valid for the operation until `f` has been
    /// called for the last time or has been dropped, which never happens before the kernel has
    /// released it. Buffers that the kernel keeps (`IORING_OP_PROVIDE_BUFFERS`) must be valid as
    /// long as it has them. The caller must have the right to use the descriptors of the entry.
    pub unsafe fn submit(
        &self,
        entry: &Sqe,
        mut f: impl FnMut(&Loop, Completion) + 'static,
    ) -> Result<Handle> {
        self.check_open()?;
        check(entry, 0)?;
        let callback = Callback::many_event(move |lp: &Loop, event: &Event| {
            let OpResult { result, flags, .. } = event.completed();
            f(lp, Completion { result, flags });
        })?;
        // SAFETY: the caller guarantees the memory of the entry.
        self.submit_operation(&unsafe { Entry::new(*entry) }, None, callback)
    }

    /// Submits the operations of a chain, all or none: `callback` makes the callback of each,
    /// `added` gets its handle.
    ///
    /// # Safety
    /// The memory that the entries point to lives until their final completions.
    #[cfg_attr(not(feature = "capi"), allow(dead_code, reason = "so far for C alone"))]
    pub(crate) unsafe fn submit_chain(
        &self,
        sqes: &[Sqe],
        callback: impl Fn(usize) -> Callback,
        added: impl FnMut(usize, Handle),
    ) -> Result<()> {
        let Some(last) = sqes.len().checked_sub(1) else { return Ok(()) };
        if sqes.len() > self.queue_capacity() {
            return Err(Error::CHAIN_TOO_LONG);
        }
        for (at, sqe) in sqes.iter().enumerate() {
            check(sqe, if at == last { 0 } else { sqe::flags::IO_LINK | sqe::flags::IO_HARDLINK })?;
            if !self.supports(sqe.opcode) {
                return Err(Error::UNSUPPORTED);
            }
        }
        // SAFETY: the caller guarantees the memory of the entries.
        self.submit_linked(sqes.iter().map(|sqe| unsafe { Entry::new(*sqe) }), callback, added)
    }

    /// Whether MSG_WAITALL makes the kernel finish a send. The flag works since 5.19, but a
    /// cancelled send returns its partial count only since 6.1, the first version with SENDMSG_ZC,
    /// which can be probed.
    pub(crate) fn sends_whole(&self) -> bool {
        self.supports(opcodes::SENDMSG_ZC)
    }
}
