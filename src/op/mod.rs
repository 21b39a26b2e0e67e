//! Completion operations: what is submitted to the kernel on the user's behalf, each defined once
//! (`operation`).
//!
//! This file has what a user makes himself: `Loop::submit` takes any entry, checked so that it
//! stays in the loop's hands, and the user vouches for what it points to. All that follows from an
//! opcode alone stands in `abi::opcodes`; the one way into the ring is `Loop::submit_operation`.
//!
//! `unsafe` lives here because of that promise of the user's.

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

/// A result of an operation, as the kernel gave it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    result: i32,
    flags: u32,
}

impl Completion {
    /// What the operation came to: a number whose meaning is the operation's, often one of bytes.
    ///
    /// Errors: what the kernel says; ECANCELED; ETIMEDOUT when a deadline came before anything was
    /// done.
    pub fn result(self) -> Result<u32> {
        u32::try_from(self.result).map_err(|_| Error::of_operation(self.result))
    }

    /// Whether another completion of the same operation will come.
    pub fn more(self) -> bool {
        self.flags & MORE != 0
    }

    /// Whether a deadline cut the operation short; see [`Loop::set_deadline`].
    pub fn timed_out(self) -> bool {
        self.flags & TIMED_OUT != 0
    }

    /// `IORING_CQE_F_*` of the kernel, and the number of a provided buffer in the upper half.
    pub fn flags(self) -> u32 {
        self.flags & !TIMED_OUT
    }
}

/// Refuses what would take an operation out of the loop's hands; `links` are the flags that are
/// allowed for once.
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
    /// Submits any operation that the kernel knows: `entry` is copied, its `user_data` is the
    /// loop's. `f` gets each completion; the last is the one for which [`Completion::more`] says
    /// no.
    ///
    /// `IORING_OP_SEND_ZC` and `IORING_OP_SENDMSG_ZC` send without a copy: `f` gets the result, and
    /// more is to come; the final completion says that the kernel has let go of the buffer.
    ///
    /// It is submitted with the next iteration's system call, or at once where the queue is full.
    /// Errors: EINVAL, with its name in the sentence, for what would escape the loop:
    /// IOSQE_IO_DRAIN, IOSQE_CQE_SKIP_SUCCESS, IOSQE_IO_LINK and IOSQE_IO_HARDLINK, unknown flags,
    /// the operations ASYNC_CANCEL, POLL_REMOVE, TIMEOUT_REMOVE, LINK_TIMEOUT, MSG_RING and those
    /// of 128 bytes, and what lets the kernel use a buffer after the final completion (MSG_ZEROCOPY
    /// and MSG_SPLICE_PAGES of SEND and SENDMSG, MSG_SOCK_DEVMEM of RECV and RECVMSG); ENOSYS for
    /// an operation that this kernel does not have; EAGAIN when the kernel takes no submissions at
    /// the moment; ENOMEM, ESHUTDOWN. O(1).
    ///
    /// # Safety
    /// All that the entry points to must be valid for what the operation does with it, until `f`
    /// has been called for the last time or has been dropped, which never happens earlier than the
    /// kernel has let go; buffers that the kernel is given to keep (`IORING_OP_PROVIDE_BUFFERS`),
    /// for as long as it has them. Descriptors that it names must be the caller's to use.
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
        // SAFETY: the caller vouches for the entry.
        self.submit_operation(&unsafe { Entry::new(*entry) }, None, callback)
    }

    /// Submits the operations of a chain, none or all: `callback` makes the callback of each,
    /// `added` gets its handle.
    ///
    /// # Safety
    /// What the entries point to lives until the final completions.
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
        // SAFETY: the caller vouches for the entries.
        self.submit_linked(sqes.iter().map(|sqe| unsafe { Entry::new(*sqe) }), callback, added)
    }

    /// The flag with which a kernel finishes what it has begun to send. It came in 5.19, but one
    /// that is cancelled tells how far it came only since 6.1, when messages could be sent without
    /// a copy.
    pub(crate) fn sends_whole(&self) -> bool {
        self.supports(opcodes::SENDMSG_ZC)
    }
}
