//! Errors as values: an errno and one sentence.
//!
//! Both faces report the same errors. The errno is the contract, the sentence is for people. All
//! sentences stand here; an error is a number for each, eight bytes, so that making one allocates
//! nothing and a result fits a register.

use std::ffi::CStr;
use std::{fmt, io};

use nix::errno::Errno;

/// What went wrong: an errno, and a sentence that says what to do about it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error {
    errno: Errno,
    sentence: Sentence,
}

/// A result whose error is an [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Declares what can be said, and the errors that always say it with the same errno.
macro_rules! sentences {
    ($($name:ident $(= $error:ident($errno:ident))?: $text:literal,)*) => {
        /// What an error says.
        #[derive(Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        #[cfg_attr(not(feature = "capi"), allow(dead_code, reason = "some are for C alone"))]
        pub(crate) enum Sentence { $($name,)* }

        impl Sentence {
            const fn text(self) -> &'static CStr {
                match self { $(Sentence::$name => $text,)* }
            }
        }

        #[cfg_attr(not(feature = "capi"), allow(dead_code, reason = "one is for C alone"))]
        impl Error {
            $($(
                pub(crate) const $error: Error = Error::new(Errno::$errno, Sentence::$name);
            )?)*
        }
    };
}

sentences! {
    NoMemory = NO_MEMORY(ENOMEM): c"no memory could be had; nothing was changed, free some and try \
        again",
    StaleHandle = STALE_HANDLE(ENOENT): c"the handle is stale: what it named has ended, or it is \
        no handle of this loop",
    NotATimer = NOT_A_TIMER(EINVAL): c"the handle is not a timer's: only call_later, call_at and \
        call_every give those",
    NotAnOperation = NOT_AN_OPERATION(EINVAL): c"the handle is not an operation's: only those can \
        have a deadline, timers are rescheduled",
    NotAWatcher = NOT_A_WATCHER(EINVAL): c"the handle is not a watcher's: only loop_watch_fd() \
        gives those",
    UnknownEvents = UNKNOWN_EVENTS(EINVAL): c"the events have a bit that is no POLL* of poll(2)",
    NotPollable: c"the descriptor cannot be watched: it is that of a file or a directory, which \
        are always ready",
    WatchRefused: c"the kernel will not watch the descriptor",
    BuffersRefused: c"the kernel refused the ring of buffers",
    BuffersOutOfRange = BUFFERS_OUT_OF_RANGE(EINVAL): c"a ring of buffers has 1 to 32768 of them, \
        of 1 to 2^31 - 1 bytes each, and 2^40 bytes at most",
    BuffersInUse = BUFFERS_IN_USE(EBUSY): c"the buffers are used by an operation, or some of them \
        are kept: end it, return them",
    ForeignBuffers = FOREIGN_BUFFERS(EINVAL): c"the buffers are another loop's, or have been freed",
    NotABuffer = NOT_A_BUFFER(EINVAL): c"the address is not in a buffer that is kept, or in the \
        callback's hands",
    BadDescriptor = BAD_DESCRIPTOR(EBADF): c"the descriptor is not open",
    HookReference = HOOK_REFERENCE(EINVAL): c"the handle is a hook's: a hook never keeps a run \
        alive",
    SignalReference = SIGNAL_REFERENCE(EINVAL): c"the handle is a signal handler's: it never keeps \
        a run alive",
    NotCatchable: c"no loop can handle this signal: it is out of range, cannot be caught, or is \
        that of a fault (SIGSEGV, SIGBUS, SIGFPE, SIGILL)",
    ZeroPeriod = ZERO_PERIOD(EINVAL): c"the period is zero: a repeating timer needs at least a \
        nanosecond",
    NotRunning = NOT_RUNNING(EINVAL): c"the loop is not running: break is for a callback of the \
        loop",
    NoLoop = NO_LOOP(EINVAL): c"no loop is running on this thread: this is for tasks and callbacks \
        of a loop",
    StoppedEarly = STOPPED_EARLY(ECANCELED): c"the loop was stopped before the future was complete",
    TimedOut = TIMED_OUT(ETIMEDOUT): c"the time was up before the future was complete",
    TaskAborted = TASK_ABORTED(ECANCELED): c"the task was aborted",
    TaskPanicked = TASK_PANICKED(ENOTRECOVERABLE): c"the task has panicked",
    GroupEnded = GROUP_ENDED(ECANCELED): c"the group takes no more tasks: one of them has failed, \
        or the group is gone",
    SenderGone = SENDER_DROPPED(ECANCELED): c"it will not come: the sender was dropped, as when \
        the loop is closed",
    Running = RUNNING(EBUSY): c"the loop is running or a callback of it is on the stack: wait \
        until that has returned",
    Bound = BOUND(EBUSY): c"the loop has run already: adopt it before its first run",
    ShutDown = SHUT_DOWN(ESHUTDOWN): c"the loop is shut down or closing: it takes nothing new",
    WrongThread = WRONG_THREAD(EPERM): c"the loop belongs to another thread",
    Forked = FORKED(EOWNERDEAD): c"the loop belongs to the parent process: close it, and make a \
        new one in the child",
    KernelHoldsOn = CLOSE_TIMED_OUT(ETIMEDOUT): c"the kernel has not let go of all operations, or \
        work that has begun has not ended: the loop is still open, close it again",
    Interrupted = INTERRUPTED(EINTR): c"a signal ended the wait and no callback ran",
    EntriesOutOfRange = ENTRIES_OUT_OF_RANGE(EINVAL): c"sq_entries is at most 32768, cq_entries at \
        most 65536 and not below sq_entries",
    NoVersion: c"RINGLOOP_KERNEL is not a version such as 5.10",
    NoWipeOnFork: c"the kernel is older than 4.14: it has no MADV_WIPEONFORK",
    NoIoUring: c"this kernel has no io_uring that is new enough (Linux 5.10 or later), or a \
        seccomp filter hides it",
    SwitchedOff: c"io_uring is switched off here: set the sysctl kernel.io_uring_disabled to 0, or \
        allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp \
        profile",
    NoRingMemory: c"the kernel has no memory for the ring: raise the limit on locked memory \
        (ulimit -l; the loops of a user count together, 28 KiB each by default), on address space \
        (ulimit -v) or of the container, or lower sq_entries and cq_entries",
    NoDescriptor: c"the process has no file descriptor left: raise the limit (ulimit -n) or close \
        some",
    NoSystemDescriptor: c"the system has no file descriptor left: raise the sysctl fs.file-max",
    SetupFailed: c"the kernel refused to set up the ring",
    EnableFailed: c"the ring could not be enabled on this thread",
    EnterFailed: c"io_uring_enter failed",
    CallRefused: c"io_uring_setup is allowed here, but io_uring_enter or io_uring_register is not: \
        allow all three in the seccomp profile",
    NoSubmissionForLong = NO_SUBMISSION_FOR_LONG(EAGAIN): c"the kernel has taken no submissions \
        for a second, for want of memory: free some and run again, nothing is lost",
    OwnRefused: c"the kernel refuses the loop's own poll or timeout: the restrictions of its ring \
        must allow IORING_OP_POLL_ADD, IORING_OP_TIMEOUT and IORING_OP_TIMEOUT_REMOVE",
    CompletionLost = COMPLETION_LOST(EBADR): c"the kernel had no memory to keep a completion: \
        cancel the operations whose callbacks do not come, ask for more cq_entries",
    EventFdFailed: c"the eventfd of loop_fd could not be made and registered with the ring",
    WakeFdFailed: c"the eventfd that wakes the loop could not be made",
    NoSubmission = NO_SUBMISSION(EAGAIN): c"the kernel takes no submissions at the moment: try \
        again",
    NoTraceFile: c"the file for trace events (RINGLOOP_TRACE, or the option trace) cannot be made",
    Unsupported = UNSUPPORTED(ENOSYS): c"this kernel does not have the operation: ask \
        loop_supports() first, or do it on a thread",
    FlagIoDrain: c"IOSQE_IO_DRAIN is refused: it would wait for the loop's own poll for wakes, \
        which never ends",
    FlagSkipSuccess: c"IOSQE_CQE_SKIP_SUCCESS is refused: the final callback would not come",
    FlagLink: c"IOSQE_IO_LINK and IOSQE_IO_HARDLINK are refused here: use loop_submit_chain()",
    FlagUnknown: c"the entry has a flag that no kernel known to this version of ringloop has",
    OpcodeCancel: c"IORING_OP_ASYNC_CANCEL and IORING_OP_POLL_REMOVE are refused: use \
        loop_cancel()",
    OpcodeTimeout: c"IORING_OP_TIMEOUT_REMOVE and IORING_OP_LINK_TIMEOUT are refused: use \
        loop_cancel() and loop_set_deadline()",
    OpcodeMessage: c"IORING_OP_MSG_RING is refused: a loop would take the message for a completion \
        of its own; use loop_remote_call_soon()",
    Opcode128: c"operations with entries of 128 bytes are refused: the loop's ring has entries of \
        64",
    ChainTooLong = CHAIN_TOO_LONG(E2BIG): c"the chain is longer than the submission queue: ask for \
        more sq_entries",
    LengthTooLarge = TOO_LONG(EINVAL): c"the length is over INT32_MAX: the kernel could not tell \
        how much was done",
    NoRoom: c"the buffer has no room: a vector needs capacity to spare",
    NulInside = NUL_INSIDE(EINVAL): c"a path, a name or an argument has a NUL inside",
    PathTooLong = PATH_TOO_LONG(EINVAL): c"the path is too long for the address of a Unix socket, \
        which has room for 107 bytes",
    OptionsDisagree: c"the options to open a file disagree: it needs read, write or append; \
        truncate, create and create_new need write or append; and append does not go with truncate",
    FlagZeroCopy: c"MSG_ZEROCOPY is refused: the kernel would use the buffer after the final \
        callback; submit IORING_OP_SEND_ZC, whose final callback says that it has let go",
    FlagSplicePages: c"MSG_SPLICE_PAGES is refused: the kernel would use the buffer after the \
        final callback; submit IORING_OP_SEND_ZC, whose final callback says that it has let go",
    FlagDeviceMemory: c"MSG_SOCK_DEVMEM is refused: the data would be in the memory of a device, \
        and not in the buffer",
    FlagOfSend: c"a send takes MSG_CONFIRM, _DONTROUTE, _DONTWAIT, _EOR, _FASTOPEN, _MORE, \
        _NOSIGNAL, _OOB and _WAITALL, and the flags have another bit",
    FlagOfReceive: c"a receive takes MSG_CMSG_CLOEXEC, _DONTWAIT, _ERRQUEUE, _NOSIGNAL, _OOB, \
        _PEEK, _TRUNC and _WAITALL, and the flags have another bit",
    FlagTruncate: c"MSG_TRUNC is refused here: the result would not tell what is in the buffer; \
        use submit",
    AnotherUnderWay = ANOTHER_UNDER_WAY(EBUSY): c"another one of this kind is under way: await \
        that first, or drop it",
    EndOfStream = END_OF_STREAM(ENODATA): c"the stream has ended before the buffer was full",
    BadAddress = BAD_ADDRESS(EINVAL): c"the address makes no sense, or there is none",
    NothingWritten = NOTHING_WRITTEN(EIO): c"nothing could be written, and there is no error that \
        says why",
    OperationFailed: c"the operation failed",
    Cancelled = CANCELLED(ECANCELED): c"it was cancelled before it had begun",
    NoThread: c"no thread could be started: raise the limit (ulimit -u, the container's pids) or \
        free some memory",
    OwnExecutor = OWN_EXECUTOR(EDEADLK): c"a thread of the loop's own executor, for which closing \
        waits, can neither close nor adopt it: use another thread",
    NotAChild = NOT_A_CHILD(ECHILD): c"the process is no child of this one, or has been waited for \
        already",
    BadPid: c"the number of a process is positive",
    NoPidFd: c"no descriptor could be had for the child: Linux 5.3 or later has pidfd_open",
    NoSuchName: c"there is no such host, or no such service",
    NoAnswer: c"the name servers gave no answer at the moment: try again",
    NameFailed: c"the name could not be looked up: a name server failed, or the question makes no \
        sense",
    TooManyBuffers: c"more buffers at once than the kernel takes, which is 1024",
    AddressTooLong: c"the length is more than that of any address, which is sizeof(struct \
        sockaddr_storage)",
    NullPointer: c"a pointer that must not be NULL is NULL",
    UnknownHookPoint: c"a hook is for LOOP_BEFORE_WAIT or LOOP_AFTER_WAIT",
    SizeTooSmall: c"the size of the struct is too small: set it to the sizeof, as \
        LOOP_OPTIONS_INIT does",
    OptionsTooNew: c"the options ask for something that this version of ringloop does not know",
    MadeInRust: c"the loop was made in Rust, and is closed there",
    UnknownFlag: c"options->flags has a bit that this version of ringloop does not know",
}

impl Error {
    pub(crate) const fn new(errno: Errno, sentence: Sentence) -> Error {
        Error { errno, sentence }
    }

    /// The error of an operation whose result is a negated errno.
    pub(crate) fn of_operation(result: i32) -> Error {
        Error::new(Errno::from_raw(result.saturating_neg()), Sentence::OperationFailed)
    }

    /// The error of a system call that the standard library has made.
    pub(crate) fn of_io(error: &io::Error) -> Error {
        error.raw_os_error().map_or(Error::BAD_ADDRESS, |errno| Error::of_operation(-errno))
    }

    /// The errno, positive: `Error::raw_os_error() == libc::ENOENT`.
    pub fn raw_os_error(&self) -> i32 {
        self.errno as i32
    }

    #[cfg(feature = "capi")]
    pub(crate) fn sentence(&self) -> &'static CStr {
        self.sentence.text()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = self.sentence.text().to_string_lossy();
        match self.sentence {
            // The kernel's errno is all there is to say.
            Sentence::OperationFailed => {
                write!(f, "{sentence}: {} ({:?})", self.errno.desc(), self.errno)
            }
            _ => write!(f, "{sentence} ({:?})", self.errno),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::from_raw_os_error(error.raw_os_error())
    }
}

impl From<std::collections::TryReserveError> for Error {
    fn from(_: std::collections::TryReserveError) -> Error {
        Error::NO_MEMORY
    }
}
