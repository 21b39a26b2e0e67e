//! The flags that sends and receives take: those with which the kernel has let go of the buffer,
//! and filled it, when the result comes (S13). A list of what is known, since the next kernel may
//! have one more that is not so.

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

/// The kernel sends from the buffer itself, until a message on the socket's error queue says that
/// it has ended.
const ZEROCOPY: c_int = 0x400_0000;
/// The kernel makes the buffer's pages part of the packet. Linux 6.5, for itself.
const SPLICE_PAGES: c_int = 0x800_0000;
/// The data stays in the memory of a device, and the result counts it. Linux 6.12.
const SOCK_DEVMEM: c_int = 0x200_0000;

/// The flags of a send, if all of them are known.
pub(crate) fn sending(flags: c_int) -> Result<c_int> {
    check_buffer_stays(flags)?;
    refuse(!SENDING, flags, Sentence::FlagOfSend).map(|()| flags)
}

/// The flags of a receive, if all of them are known.
pub(crate) fn receiving(flags: c_int) -> Result<c_int> {
    check_data_comes(flags)?;
    refuse(!RECEIVING, flags, Sentence::FlagOfReceive).map(|()| flags)
}

/// The same for one whose result must tell what is in the buffer: with MSG_TRUNC it may be more
/// than was written, and a stream writes nothing at all.
pub(super) fn filling(flags: c_int) -> Result<c_int> {
    refuse(libc::MSG_TRUNC, flags, Sentence::FlagTruncate)?;
    receiving(flags)
}

fn refuse(refused: c_int, flags: c_int, sentence: Sentence) -> Result<()> {
    if flags & refused == 0 { Ok(()) } else { Err(Error::new(Errno::EINVAL, sentence)) }
}

/// Of an entry that the user has made, only what is known to let no operation end with its final
/// completion is refused.
pub(super) fn check_buffer_stays(flags: c_int) -> Result<()> {
    refuse(ZEROCOPY, flags, Sentence::FlagZeroCopy)?;
    refuse(SPLICE_PAGES, flags, Sentence::FlagSplicePages)
}

/// The same, of a receive.
pub(super) fn check_data_comes(flags: c_int) -> Result<()> {
    refuse(SOCK_DEVMEM, flags, Sentence::FlagDeviceMemory)
}
