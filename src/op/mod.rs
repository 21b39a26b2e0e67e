//! Completion operations: what is submitted to the kernel on the user's behalf, and what the kernel is told later.
//!
//! `submit` is the one way in. An operation is an entry, a callback, and where it is more than that a driver. `unsafe` lives here
//! because an entry points at memory that the kernel uses until the final completion: the user vouches for it, or the
//! driver or the callback keep it.

mod accept_multi;
pub(crate) mod address;
pub(crate) mod buffer;
pub(crate) mod buffers;
pub(crate) mod children;
mod closing;
pub(crate) mod entries;
mod files;
pub(crate) mod flags;
pub(crate) mod kernel_box;
mod multi;
mod owned;
pub(crate) mod readiness;
mod recv_multi;
pub(crate) mod resolve;
mod sockets;
mod streams;
pub(crate) mod write_all;

use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::c_int;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags};

pub(crate) use self::files::STATX_MASK;
pub use self::files::{FileStatus, OpenOptions};
pub use self::owned::CWD;
pub(crate) use self::owned::room;
pub(crate) use self::sockets::Message;
pub(crate) use crate::abi::completion::number;
use crate::abi::completion::{MORE, TIMED_OUT};
use crate::abi::handle::Handle;
use crate::abi::opcodes::{self, Check};
use crate::abi::sqe::{self, Entry, Sqe};
use crate::error::{Error, Result, Sentence};
use crate::event_loop::Callback;
use crate::event_loop::Loop;
use crate::event_loop::Schedule;
use crate::kernel::uring::Ring;
use crate::pending::DeferredSubmission;
use crate::pending::driver::Driver;
use crate::pending::event::{Event, OpResult};
use crate::time::Time;

pub use self::multi::Buffers;

/// A result of an operation, as the kernel gave it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    result: i32,
    flags: u32,
}

impl From<OpResult> for Completion {
    fn from(OpResult { result, flags, .. }: OpResult) -> Completion {
        Completion { result, flags }
    }
}

impl Completion {
    /// What the operation came to: a number whose meaning is the operation's, often one of bytes.
    ///
    /// Errors: what the kernel says; ECANCELED; ETIMEDOUT when a deadline came before anything was done.
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

/// Closes a descriptor that an operation gave and that nobody has seen.
pub(crate) fn close_unseen(fd: i32) {
    // SAFETY: the kernel made the descriptor for an operation of the loop's, and nobody else knows of it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// A copy on the heap.
#[cfg(feature = "capi")]
pub(crate) fn copy<T: Copy>(from: &[T]) -> Result<Box<[T]>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(from.len())?;
    copy.extend_from_slice(from);
    Ok(copy.into_boxed_slice())
}

/// Whether a descriptor can be watched, as epoll sees it: EBADF, and EPERM for files and directories. An epoll is made for the
/// question, 1.3 µs; a process that has no descriptor left for that asks fstat instead.
pub(crate) fn check_pollable(fd: RawFd) -> Result<()> {
    let refusal = match Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC) {
        // The number was free.
        Ok(epoll) if epoll.0.as_raw_fd() == fd => Some(Errno::EBADF),
        Ok(epoll) => {
            let mut event = libc::epoll_event { events: 0, u64: 0 };
            // SAFETY: the event lives for the call; a number that is no descriptor is answered with EBADF.
            Errno::result(unsafe { libc::epoll_ctl(epoll.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) }).err()
        }
        Err(_) => stat_as_epoll(fd).err(),
    };
    match refusal {
        None => Ok(()),
        Some(Errno::EPERM) => Err(Error::new(Errno::EPERM, Sentence::NotPollable)),
        Some(errno @ Errno::EBADF) => Err(Error::new(errno, Sentence::BadDescriptor)),
        Some(errno) => Err(Error::new(errno, Sentence::WatchRefused)),
    }
}

fn stat_as_epoll(fd: RawFd) -> nix::Result<()> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the room is that of a stat; a number that is no descriptor is answered with EBADF.
    Errno::result(unsafe { libc::fstat(fd, stat.as_mut_ptr()) })?;
    // SAFETY: fstat has filled it in.
    let format = unsafe { stat.assume_init() }.st_mode & libc::S_IFMT;
    if matches!(format, libc::S_IFREG | libc::S_IFDIR) { Err(Errno::EPERM) } else { Ok(()) }
}

/// Asks the kernel to let go of what has ended.
pub(crate) fn cancel_orphans(schedule: &mut Schedule, ring: &mut Ring) -> Result<()> {
    ring.reserve(1)?;
    while let Some(orphan) = schedule.next_orphan() {
        ring.push_cancel(number(orphan))?;
        ring.reserve(1)?;
    }
    Ok(())
}

/// Asks the kernel to let go of what is on a descriptor, and of nothing else: other descriptors may be in the batch that is being run, and
/// are not to be polled before their callbacks have run. Of what it has been asked already, only what it did not know is asked
/// again. Tells whether there was anything to ask.
pub(crate) fn cancel_on(fd: RawFd, schedule: &mut Schedule, ring: &mut Ring) -> Result<bool> {
    let mut asked = false;
    let mut next = schedule.next_on(fd, None);
    while let Some(index) = next {
        next = schedule.next_on(fd, Some(index));
        ring.reserve(1)?;
        if let Some(handle) = schedule.end_on_the_spot(index)? {
            asked = true;
            ring.push_cancel(number(handle))?;
        }
    }
    Ok(asked)
}

/// Refuses what would take an operation out of the loop's hands; `links` are the flags that are allowed for once.
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
        set if set & (sqe::flags::IO_LINK | sqe::flags::IO_HARDLINK) != 0 => refusal(Sentence::FlagLink),
        set if set & sqe::flags::CQE_SKIP_SUCCESS != 0 => refusal(Sentence::FlagSkipSuccess),
        set if set & !sqe::flags::KNOWN != 0 => refusal(Sentence::FlagUnknown),
        _ => Ok(()),
    }
}

impl Loop {
    /// Tells the kernel what it is to be told: what to cancel, what to begin again. When it takes no more, the rest stays for the
    /// next iteration.
    #[cold]
    pub(crate) fn submit_deferred(&self, schedule: &mut Schedule, ring: &mut Ring) -> Result<()> {
        if ring.take_loss() {
            schedule.completion_lost();
        }
        if schedule.take_resumable() {
            for pool in self.pools.borrow().iter().flatten() {
                pool.resume_waiting(|handle| schedule.resume(handle));
                schedule.note_resumable(pool.may_resume());
            }
        }
        if schedule.has_orphans() {
            cancel_orphans(schedule, ring)?;
        }
        while schedule.has_submissions_now() {
            ring.reserve(1)?;
            match schedule.next_submission()? {
                // SAFETY: entries of errands are a driver's, which vouches for what they point to.
                Some(DeferredSubmission::Submit(sqe, handle)) => ring.push(unsafe { Entry::new(sqe) }, number(handle)),
                Some(DeferredSubmission::Cancel(handle)) => ring.push_cancel(number(handle))?,
                Some(DeferredSubmission::Update(handle, events)) => ring.push_poll_update(number(handle), events)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Submits any operation that the kernel knows: `entry` is copied, its `user_data` is the loop's. `f` gets each
    /// completion; the last is the one for which [`Completion::more`] says no.
    ///
    /// `IORING_OP_SEND_ZC` and `IORING_OP_SENDMSG_ZC` send without a copy: `f` gets the result, and more is to come; the final completion
    /// says that the kernel has let go of the buffer.
    ///
    /// It is submitted with the next iteration's system call, or at once where the queue is full. Errors: EINVAL, with its name in
    /// the sentence, for what would escape the loop: IOSQE_IO_DRAIN, IOSQE_CQE_SKIP_SUCCESS, IOSQE_IO_LINK and
    /// IOSQE_IO_HARDLINK, unknown flags, the operations ASYNC_CANCEL, POLL_REMOVE, TIMEOUT_REMOVE, LINK_TIMEOUT, MSG_RING and those of
    /// 128 bytes, and what lets the kernel use a buffer after the final completion (MSG_ZEROCOPY and MSG_SPLICE_PAGES of SEND and SENDMSG,
    /// MSG_SOCK_DEVMEM of RECV and RECVMSG); ENOSYS for an operation that this kernel does not have; EAGAIN when the kernel takes no
    /// submissions at the moment; ENOMEM, ESHUTDOWN. O(1).
    ///
    /// # Safety
    /// All that the entry points to must be valid for what the operation does with it, until `f` has been called for the last
    /// time or has been dropped, which never happens earlier than the kernel has let go; buffers that the kernel is given to keep
    /// (`IORING_OP_PROVIDE_BUFFERS`), for as long as it has them. Descriptors that it names must be the
    /// caller's to use.
    pub unsafe fn submit(&self, entry: &Sqe, mut f: impl FnMut(&Loop, Completion) + 'static) -> Result<Handle> {
        self.check_open()?;
        check(entry, 0)?;
        let callback = Callback::many_event(move |lp: &Loop, event: &Event| f(lp, event.completed().into()))?;
        // SAFETY: the caller vouches for the entry.
        unsafe { self.submit_operation(entry, None, callback) }
    }

    /// Cuts an operation short at `when`: its final completion then says [`timed_out`](Completion::timed_out), with what the
    /// kernel had done, or ETIMEDOUT if that was nothing. Replaces the deadline it had; [`Time::NEVER`] removes it.
    ///
    /// It is a timer of the loop's, as exact as any, and costs as much. What the kernel will not cancel, file I/O that has
    /// begun, ends when it ends. Errors: EINVAL when the handle is not an operation's, ENOENT, ENOMEM, ESHUTDOWN.
    pub fn set_deadline(&self, handle: Handle, when: Time) -> Result<()> {
        self.check_open()?;
        self.schedule.borrow_mut().set_deadline(handle, when.as_nanos())
    }

    /// Whether this kernel has an operation, an `IORING_OP_*`. Asked when the loop was made, never by the version.
    pub fn supports(&self, opcode: u8) -> bool {
        self.ring.borrow().features().supports(opcode)
    }

    /// The flag with which a kernel finishes what it has begun to send. It came in 5.19, but one that is cancelled tells how far it
    /// came only since 6.1, when messages could be sent without a copy.
    pub(crate) fn send_whole_flag(&self) -> c_int {
        if self.supports(opcodes::SENDMSG_ZC) { libc::MSG_WAITALL } else { 0 }
    }

    /// The descriptor of the ring, for `io_uring_register` of files and buffers: never to submit on, nor to close. Completions of tags of
    /// registered resources are passed over; tags below 2^32 are never numbers of the loop's own.
    pub fn ring_fd(&self) -> Result<RawFd> {
        self.check()?;
        Ok(self.ring.borrow().fd())
    }

    /// Adds the operations of a chain and queues their entries, none or all: `callback` makes the callback of each,
    /// `added` gets its handle.
    ///
    /// # Safety
    /// As for `submit_operation`.
    #[cfg_attr(not(feature = "capi"), allow(dead_code, reason = "so far for C alone"))]
    pub(crate) unsafe fn submit_chain(
        &self,
        sqes: &[Sqe],
        callback: impl Fn(usize) -> Callback,
        added: impl Fn(usize, Handle),
    ) -> Result<()> {
        let (mut schedule, mut ring) = (self.schedule.borrow_mut(), self.ring.borrow_mut());
        let Some(last) = sqes.len().checked_sub(1) else { return Ok(()) };
        if sqes.len() > ring.capacity() {
            return Err(Error::CHAIN_TOO_LONG);
        }
        for (at, sqe) in sqes.iter().enumerate() {
            check(sqe, if at == last { 0 } else { sqe::flags::IO_LINK | sqe::flags::IO_HARDLINK })?;
            if !ring.features().supports(sqe.opcode) {
                return Err(Error::UNSUPPORTED);
            }
        }
        schedule.reserve_operations(sqes.len())?;
        ring.reserve(sqes.len())?;
        let mut before = None;
        for (at, sqe) in sqes.iter().enumerate() {
            let is_linked = at < last && sqe.flags & sqe::flags::IO_HARDLINK == 0;
            let link = if is_linked { sqe::flags::IO_LINK } else { 0 };
            let handle = schedule.add_operation(sqe, None, callback(at));
            // SAFETY: the caller vouches for the entries.
            let entry = unsafe { Entry::new(Sqe { flags: sqe.flags | link, ..*sqe }) };
            ring.push(entry, number(handle));
            if let Some(before) = before.replace(handle) {
                schedule.chain(before, handle);
            }
            added(at, handle);
        }
        Ok(())
    }

    /// Adds an operation and queues its entry.
    ///
    /// # Safety
    /// What the entry points to lives until the final completion: it is the user's, the driver's, or the callback's.
    pub(crate) unsafe fn submit_operation(
        &self,
        sqe: &Sqe,
        driver: Option<Box<dyn Driver>>,
        callback: Callback,
    ) -> Result<Handle> {
        let callback = ManuallyDrop::new(callback);
        let (mut schedule, mut ring) = (self.schedule.borrow_mut(), self.ring.borrow_mut());
        let is_known = if ring.features().supports(sqe.opcode) { Ok(()) } else { Err(Error::UNSUPPORTED) };
        let room = is_known.and_then(|()| schedule.reserve_operations(1)).and_then(|()| ring.reserve(1));
        if let Err(error) = room {
            drop((schedule, ring));
            Callback::refuse(callback);
            return Err(error);
        }
        let takes_turns = driver.as_ref().is_some_and(|driver| driver.takes_turns());
        let handle = schedule.add_operation(sqe, driver, ManuallyDrop::into_inner(callback));
        if !takes_turns || schedule.has_turn(handle) {
            // SAFETY: the caller vouches for the entry.
            ring.push(unsafe { Entry::new(*sqe) }, number(handle));
        }
        Ok(handle)
    }
}
