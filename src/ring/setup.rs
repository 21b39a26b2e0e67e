//! Setting a ring up: the ladder of flags, the sizes, and what to say when the kernel refuses (S32).

use std::io;

use io_uring::{IoUring, Probe, opcode};
use nix::errno::Errno;

use crate::error::{Error, Result, Sentence};

/// Entries of the two queues; the kernel rounds up to powers of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    sq: u32,
    cq: u32,
}

impl Sizes {
    const DEFAULT_SQ: u32 = 128;
    const LARGEST_SQ: u32 = 32768;
    const LARGEST_CQ: u32 = 65536;

    /// Zero asks for the default: 128 submissions, and 8 completions for each of the submissions.
    pub(crate) fn new(sq: u32, cq: u32) -> Result<Sizes> {
        let sq = if sq == 0 { Sizes::DEFAULT_SQ.min(if cq == 0 { u32::MAX } else { cq }) } else { sq };
        let cq = if cq == 0 { sq.saturating_mul(8).min(Sizes::LARGEST_CQ) } else { cq };
        if sq > Sizes::LARGEST_SQ || cq > Sizes::LARGEST_CQ || cq < sq {
            return Err(Error::ENTRIES_OUT_OF_RANGE);
        }
        Ok(Sizes { sq, cq })
    }
}

/// The flags of one rung, from the best down. A kernel that does not know a flag says EINVAL.
const LADDER: [fn(&mut io_uring::Builder); 3] = [
    // 6.1: completions are posted only when the loop's own thread asks for them, with nothing to lock.
    |builder| {
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all().setup_r_disabled();
    },
    // 5.19: completions are posted at the next transition to the kernel; no interrupt to the thread.
    |builder| {
        builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all().setup_r_disabled();
    },
    // 5.10.
    |builder| {
        builder.setup_r_disabled();
    },
];

pub(super) fn set_up(sizes: Sizes) -> Result<IoUring> {
    let mut refusal = Errno::EINVAL;
    for rung in LADDER {
        let mut builder = IoUring::builder();
        // A forked child inherits the mapping, and is kept out of it by `Process`. Without it (MADV_DONTFORK) valgrind 3.19 crashes
        // in a child that maps memory.
        builder.setup_cqsize(sizes.cq);
        rung(&mut builder);
        match builder.build(sizes.sq) {
            Ok(uring) => return probe(uring),
            Err(error) => refusal = errno(&error),
        }
        if refusal != Errno::EINVAL {
            break;
        }
    }
    Err(Error::new(refusal, what_to_change(refusal)))
}

/// Asks the kernel what it can do, whatever its version says: distributions backport.
fn probe(uring: IoUring) -> Result<IoUring> {
    let mut probe = Probe::new();
    if let Err(error) = uring.submitter().register_probe(&mut probe) {
        // EINVAL: it is so old that it cannot be asked (before 5.6).
        let refusal = if errno(&error) == Errno::EINVAL { Errno::ENOSYS } else { errno(&error) };
        return Err(Error::new(refusal, what_to_change(refusal)));
    }
    let can_time = probe.is_supported(opcode::Timeout::CODE) && probe.is_supported(opcode::TimeoutRemove::CODE);
    if can_time && uring.params().is_feature_nodrop() {
        Ok(uring)
    } else {
        Err(Error::new(Errno::ENOSYS, what_to_change(Errno::ENOSYS)))
    }
}

fn what_to_change(errno: Errno) -> Sentence {
    match errno {
        Errno::ENOSYS | Errno::EINVAL => Sentence::NoIoUring,
        Errno::EPERM | Errno::EACCES => Sentence::SwitchedOff,
        Errno::ENOMEM => Sentence::NoRingMemory,
        Errno::EMFILE => Sentence::NoDescriptor,
        Errno::ENFILE => Sentence::NoSystemDescriptor,
        _ => Sentence::SetupFailed,
    }
}

pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

pub(super) fn error(error: &io::Error, sentence: Sentence) -> Error {
    Error::new(errno(error), sentence)
}
