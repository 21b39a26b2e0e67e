//! The flags of sends and receives that are accepted: with these, the kernel has filled and
//! released the buffer when the result arrives (S13).
//!
//! The lists contain only known flags, because a later kernel may add one that breaks this.

use libc::c_int;
use nix::errno::Errno;

use crate::error::{Error, Result, Sentence};

const SENDING: c_int = libc::MSG_CONFIRM
    | libc::MSG_DONTROUTE
    | libc::MSG_DONTWAIT
    | libc::MSG_EOR
    | libc::MSG_FASTOPEN
    | libc::MSG_MORE
    | libc::MSG_NOSIGNAL
    | libc::MSG_OOB
    | libc::MSG_WAITALL;

const RECEIVING: c_int = libc::MSG_CMSG_CLOEXEC
    | libc::MSG_DONTWAIT
    | libc::MSG_ERRQUEUE
    | libc::MSG_NOSIGNAL
    | libc::MSG_OOB
    | libc::MSG_PEEK
    | libc::MSG_TRUNC
    | libc::MSG_WAITALL;

/// The kernel sends from the buffer itself, until a message on the socket's error queue reports the
/// end.
const ZEROCOPY: c_int = 0x400_0000;
/// The kernel makes the buffer's pages part of the packet. Linux 6.5, for internal use.
const SPLICE_PAGES: c_int = 0x800_0000;
/// The data stays in the memory of a device, and the result counts it. Linux 6.12.
const SOCK_DEVMEM: c_int = 0x200_0000;

/// Returns the flags of a send, if all of them are known.
pub(crate) fn sending(flags: c_int) -> Result<c_int> {
    check_buffer_stays(flags)?;
    refuse(!SENDING, flags, Sentence::FlagOfSend).map(|()| flags)
}

/// Returns the flags of a receive, if all of them are known.
pub(crate) fn receiving(flags: c_int) -> Result<c_int> {
    check_data_comes(flags)?;
    refuse(!RECEIVING, flags, Sentence::FlagOfReceive).map(|()| flags)
}

/// As `receiving`, for a buffer whose length is set from the result: MSG_TRUNC may give more than
/// was written, and writes nothing on a stream.
pub(super) fn filling(flags: c_int) -> Result<c_int> {
    refuse(libc::MSG_TRUNC, flags, Sentence::FlagTruncate)?;
    receiving(flags)
}

fn refuse(refused: c_int, flags: c_int, sentence: Sentence) -> Result<()> {
    if flags & refused == 0 { Ok(()) } else { Err(Error::new(Errno::EINVAL, sentence)) }
}

/// Checks an entry that the user has made. Refuses only flags that are known to use the buffer
/// after the final completion.
pub(super) fn check_buffer_stays(flags: c_int) -> Result<()> {
    refuse(ZEROCOPY, flags, Sentence::FlagZeroCopy)?;
    refuse(SPLICE_PAGES, flags, Sentence::FlagSplicePages)
}

/// The same for a receive.
pub(super) fn check_data_comes(flags: c_int) -> Result<()> {
    refuse(SOCK_DEVMEM, flags, Sentence::FlagDeviceMemory)
}
