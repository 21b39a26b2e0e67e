//! Setup of a ring: the flags, from the best to the oldest, the sizes, and the errors (S32).
//!
//! Features are probed, never derived from the kernel's version. The ring is not bound to a thread
//! yet.

use std::io;

use io_uring::{IoUring, Probe};
use nix::errno::Errno;

use super::super::{Features, Sizes};
use crate::abi::opcodes::{self, Version};
use crate::error::{Error, Result, Sentence};
use crate::sys::c_library::variable;

type Rung = fn(&mut io_uring::Builder);

/// The steps from the best down, each with the first version that has its flags. A kernel that does
/// not know a flag fails with EINVAL. A ring that belongs to a thread starts disabled: enabling
/// binds it to the calling thread.
const LADDER: [(Version, Rung); 3] = [
    // 6.1: completions are posted only when the loop's own thread asks for them, which needs no
    // lock.
    (Version(6, 1), |builder| {
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_r_disabled();
    }),
    // 5.19: completions are posted at the next transition to the kernel, without an interrupt of
    // the thread.
    (Version(5, 19), |builder| {
        builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all().setup_r_disabled();
    }),
    // 5.10. The ring belongs to no thread.
    (Version(0, 0), |_| {}),
];

const NO_IO_URING: Error = Error::new(Errno::ENOSYS, Sentence::NoIoUring);

/// Features of the kernel besides operations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abilities {
    pub(super) skips_success: bool,
    pub(super) updates_timeouts: bool,
    pub(super) polls_multishot: bool,
    /// Whether the ring must be enabled before use.
    pub(super) starts_disabled: bool,
    /// Whether registration waits until nothing is in flight on the ring: until 5.17.
    pub(super) waits_to_register: bool,
    /// Whether a buffer may be filled incrementally, if the kernel does not refuse.
    pub(super) fills_buffers_in_parts: bool,
}

impl Abilities {
    fn new(uring: &IoUring, rung: Version, pretended: Version) -> Abilities {
        let params = uring.params();
        Abilities {
            skips_success: params.is_feature_skip_cqe_on_success() && pretended >= Version(5, 17),
            // TIMEOUT_UPDATE has no probe; EXT_ARG came with it.
            updates_timeouts: params.is_feature_ext_arg() && pretended >= Version(5, 11),
            // Multishot polls have none either; tags for resources came with them.
            polls_multishot: params.is_feature_resource_tagging() && pretended >= Version(5, 13),
            starts_disabled: rung > Version(0, 0),
            // No probe either; the 5.19 step came soon after.
            waits_to_register: rung < Version(5, 19),
            fills_buffers_in_parts: pretended >= Version(6, 12),
        }
    }
}

/// The version in the variable `RINGLOOP_KERNEL` (for example `5.10`). Later features are not used,
/// so that a program can be tested as on that kernel. Not set: all features are used.
fn pretended_version() -> Result<Version> {
    let Some(value) = variable(c"RINGLOOP_KERNEL") else { return Ok(Version::ANY) };
    let version = value.to_str().ok().and_then(|value| value.split_once('.'));
    match version.map(|(major, minor)| (major.parse(), minor.parse())) {
        Some((Ok(major), Ok(minor))) => Ok(Version(major, minor)),
        _ => Err(Error::new(Errno::EINVAL, Sentence::NoVersion)),
    }
}

pub(super) fn set_up(sizes: Sizes) -> Result<(IoUring, Features, Abilities)> {
    let pretended = pretended_version()?;
    let mut refusal = Errno::EINVAL;
    for (since, rung) in LADDER {
        if pretended < since {
            continue;
        }
        let mut builder = IoUring::builder();
        // A forked child inherits the mapping, and `Process` keeps it from using it. With
        // MADV_DONTFORK, valgrind 3.19 crashes in a child that maps memory.
        builder.setup_cqsize(sizes.cq);
        rung(&mut builder);
        match builder.build(sizes.sq) {
            Ok(uring) => return probe(uring, since, pretended),
            Err(error) => refusal = errno(&error),
        }
        if refusal != Errno::EINVAL {
            break;
        }
    }
    Err(Error::new(refusal, what_to_change(refusal)))
}

/// Probes the kernel's features. The version is not used, because distributions backport.
fn probe(
    uring: IoUring,
    rung: Version,
    pretended: Version,
) -> Result<(IoUring, Features, Abilities)> {
    let mut probe = Probe::new();
    uninterrupted(|| uring.submitter().register_probe(&mut probe)).map_err(
        |errno| match errno {
            // The kernel is too old to be probed (before 5.6).
            Errno::EINVAL => NO_IO_URING,
            _ => refusal(errno, what_to_change(errno)),
        },
    )?;
    check_enter(&uring)?;
    let can_time =
        probe.is_supported(opcodes::TIMEOUT) && probe.is_supported(opcodes::TIMEOUT_REMOVE);
    if !can_time || !uring.params().is_feature_nodrop() {
        return Err(NO_IO_URING);
    }
    let features = Features::new(|opcode| {
        probe.is_supported(opcode) && pretended >= opcodes::of(opcode).since
    });
    let abilities = Abilities::new(&uring, rung, pretended);
    Ok((uring, features, abilities))
}

/// Checks that the kernel can be entered with the ring. On a disabled ring, an enter fails with
/// EBADFD and binds it to no thread; on the oldest step, an empty enter does nothing.
fn check_enter(uring: &IoUring) -> Result<()> {
    // Nothing is queued.
    match uring.submitter().submit().map_err(|error| errno(&error)) {
        Ok(_) | Err(Errno::EBADFD) => Ok(()),
        Err(errno) => Err(refusal(errno, what_to_change(errno))),
    }
}

/// The error of a call after a successful setup: that of a filter, or `other`.
pub(super) fn refusal(errno: Errno, other: Sentence) -> Error {
    let is_filtered = matches!(errno, Errno::EPERM | Errno::EACCES | Errno::ENOSYS);
    Error::new(errno, if is_filtered { Sentence::CallRefused } else { other })
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

/// Repeats a system call that a signal has interrupted: registration waits on kernels before 5.18.
pub(super) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> nix::Result<T> {
    loop {
        match call().map_err(|error| errno(&error)) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
