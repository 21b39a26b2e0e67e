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
    if flags & !SENDING == 0 {
        Ok(flags)
    } else {
        Err(Error::new(Errno::EINVAL, Sentence::FlagOfSend))
    }
}

/// The flags of a receive, if all of them are known.
pub(crate) fn receiving(flags: c_int) -> Result<c_int> {
    check_data_comes(flags)?;
    if flags & !RECEIVING == 0 {
        Ok(flags)
    } else {
        Err(Error::new(Errno::EINVAL, Sentence::FlagOfReceive))
    }
}

/// The same for one whose result must tell what is in the buffer: with MSG_TRUNC it may be more
/// than was written, and a stream writes nothing at all.
pub(super) fn filling(flags: c_int) -> Result<c_int> {
    if flags & libc::MSG_TRUNC != 0 {
        return Err(Error::new(Errno::EINVAL, Sentence::FlagTruncate));
    }
    receiving(flags)
}

/// Of an entry that the user has made, only what is known to let no operation end with its final
/// completion is refused.
pub(super) fn check_buffer_stays(flags: c_int) -> Result<()> {
    let sentence = match flags {
        set if set & ZEROCOPY != 0 => Sentence::FlagZeroCopy,
        set if set & SPLICE_PAGES != 0 => Sentence::FlagSplicePages,
        _ => return Ok(()),
    };
    Err(Error::new(Errno::EINVAL, sentence))
}

/// The same, of a receive.
pub(super) fn check_data_comes(flags: c_int) -> Result<()> {
    if flags & SOCK_DEVMEM != 0 {
        Err(Error::new(Errno::EINVAL, Sentence::FlagDeviceMemory))
    } else {
        Ok(())
    }
}
