//! Errors as values: an errno and a sentence.
//!
//! The C API and the Rust API report the same errors. A program checks the errno; the sentence is
//! for people. This file has all sentences. An error is eight bytes, the errno and the number of
//! the sentence: making an error allocates nothing, and a result fits a register.

use std::ffi::CStr;
use std::{fmt, io};

use nix::errno::Errno;

/// An error: an errno, and a sentence with the cause and the remedy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error {
    errno: Errno,
    sentence: Sentence,
}

/// A result whose error is an [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Declares the sentences, and the errors whose sentence always has the same errno.
macro_rules! sentences {
    ($($name:ident $(= $error:ident($errno:ident))?: $text:literal,)*) => {
        /// The sentence of an error.
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
    NoMemory = NO_MEMORY(ENOMEM): c"no memory is left: nothing was changed; free memory and try \
        again",
    StaleHandle = STALE_HANDLE(ENOENT): c"the handle is stale: the callback or operation that it \
        named has ended, or it is not a handle of this loop",
    NotATimer = NOT_A_TIMER(EINVAL): c"the handle is not that of a timer: only call_later, call_at \
        and call_every return such handles",
    NotAnOperation = NOT_AN_OPERATION(EINVAL): c"the handle is not that of an operation: only \
        operations have deadlines; reschedule a timer instead",
    NotAWatcher = NOT_A_WATCHER(EINVAL): c"the handle is not that of a watcher: only \
        loop_watch_fd() returns such handles",
    UnknownEvents = UNKNOWN_EVENTS(EINVAL): c"the events have a bit that is not a POLL* flag of \
        poll(2)",
    NotPollable: c"the descriptor cannot be watched: it is that of a file or a directory, which is \
        always ready; read or write it without a watcher",
    WatchRefused: c"the kernel refuses to watch the descriptor",
    BuffersRefused: c"the kernel refused the ring of buffers",
    BuffersOutOfRange = BUFFERS_OUT_OF_RANGE(EINVAL): c"the number or the size of the buffers is \
        out of range: a ring has 1 to 32768 buffers of 1 to 2^31 - 1 bytes each, and at most 2^40 \
        bytes together",
    BuffersInUse = BUFFERS_IN_USE(EBUSY): c"an operation uses the buffers, or some of them are \
        kept: end the operation, and return the buffers that are kept",
    ForeignBuffers = FOREIGN_BUFFERS(EINVAL): c"the buffers belong to another loop, or have been \
        freed",
    NotABuffer = NOT_A_BUFFER(EINVAL): c"the address is not in a buffer that is kept or that a \
        callback has got",
    BadDescriptor = BAD_DESCRIPTOR(EBADF): c"the descriptor is not open",
    HookReference = HOOK_REFERENCE(EINVAL): c"the handle is that of a hook: a hook never keeps a \
        run going",
    SignalReference = SIGNAL_REFERENCE(EINVAL): c"the handle is that of a signal handler: a signal \
        handler never keeps a run going",
    NotCatchable: c"a loop cannot handle this signal: it is out of range, cannot be caught, or \
        reports a fault (SIGSEGV, SIGBUS, SIGFPE, SIGILL)",
    ZeroPeriod = ZERO_PERIOD(EINVAL): c"the period is zero: a repeating timer needs at least a \
        nanosecond",
    NotRunning = NOT_RUNNING(EINVAL): c"the loop is not running: call break in a callback of the \
        loop, or use stop",
    NoLoop = NO_LOOP(EINVAL): c"no loop is running on this thread: call this function in a task or \
        a callback of a loop",
    StoppedEarly = STOPPED_EARLY(ECANCELED): c"the loop was stopped before the future was complete",
    TimedOut = TIMED_OUT(ETIMEDOUT): c"the time limit passed before the future was complete",
    TaskAborted = TASK_ABORTED(ECANCELED): c"the task was aborted",
    TaskPanicked = TASK_PANICKED(ENOTRECOVERABLE): c"the task has panicked",
    GroupEnded = GROUP_ENDED(ECANCELED): c"the group accepts no more tasks: one of its tasks has \
        failed, or the group has ended",
    SenderGone = SENDER_DROPPED(ECANCELED): c"the value will not come: its sender was dropped, for \
        example because the loop was closed",
    Running = RUNNING(EBUSY): c"the loop is running, or one of its callbacks is on the stack: wait \
        until the run or the callback has returned",
    Bound = BOUND(EBUSY): c"the loop has already run: adopt it before its first run",
    ShutDown = SHUT_DOWN(ESHUTDOWN): c"the loop was shut down or is being closed: it accepts \
        nothing new",
    WrongThread = WRONG_THREAD(EPERM): c"the loop belongs to another thread: use a remote to post \
        to that thread",
    Forked = FORKED(EOWNERDEAD): c"the loop belongs to the parent process: close it, and make a \
        new one in the child",
    KernelHoldsOn = CLOSE_TIMED_OUT(ETIMEDOUT): c"the kernel has not released all operations, or \
        work that has begun has not ended: the loop is still open; close it again",
    Interrupted = INTERRUPTED(EINTR): c"a signal ended the wait and no callback ran",
    EntriesOutOfRange = ENTRIES_OUT_OF_RANGE(EINVAL): c"the number of entries is out of range: \
        sq_entries is at most 32768, cq_entries at most 65536 and not below sq_entries",
    NoVersion: c"RINGLOOP_KERNEL is not a version such as 5.10",
    NoWipeOnFork: c"the kernel is older than 4.14: it has no MADV_WIPEONFORK",
    NoIoUring: c"this kernel has no io_uring that is new enough (Linux 5.10 or later), or a \
        seccomp filter hides it",
    SwitchedOff: c"io_uring is disabled here: set the sysctl kernel.io_uring_disabled to 0, or \
        allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp \
        profile",
    NoRingMemory: c"the kernel has no memory for the ring: raise the limit on locked memory \
        (ulimit -l; the loops of a user count together, 28 KiB each by default), on address space \
        (ulimit -v) or of the container, or lower sq_entries and cq_entries",
    NoDescriptor: c"the process has no file descriptor left: raise the limit (ulimit -n) or close \
        some descriptors",
    NoSystemDescriptor: c"the system has no file descriptor left: raise the sysctl fs.file-max",
    SetupFailed: c"the kernel refused to set up the ring",
    EnableFailed: c"the ring could not be enabled on this thread",
    EnterFailed: c"io_uring_enter failed",
    CallRefused: c"io_uring_setup is allowed here, but io_uring_enter or io_uring_register is not: \
        allow all three in the seccomp profile",
    NoSubmissionForLong = NO_SUBMISSION_FOR_LONG(EAGAIN): c"the kernel has accepted no submissions \
        for one second, for lack of memory: free memory and run again; nothing is lost",
    OwnRefused: c"the kernel refuses the loop's own poll or timeout: the restrictions of its ring \
        must allow IORING_OP_POLL_ADD, IORING_OP_TIMEOUT and IORING_OP_TIMEOUT_REMOVE",
    CompletionLost = COMPLETION_LOST(EBADR): c"the kernel had no memory to keep a completion: \
        cancel the operations whose callbacks do not come, and set a larger cq_entries",
    EventFdFailed: c"the eventfd of loop_fd could not be made and registered with the ring",
    WakeFdFailed: c"the eventfd that wakes the loop could not be made",
    NoSubmission = NO_SUBMISSION(EAGAIN): c"the kernel accepts no submissions at the moment: try \
        again in a later iteration",
    NoTraceFile: c"the file for trace events (RINGLOOP_TRACE, or the option trace) cannot be \
        created",
    Unsupported = UNSUPPORTED(ENOSYS): c"this kernel does not have the operation: call \
        loop_supports() first, or use a thread instead",
    FlagIoDrain: c"IOSQE_IO_DRAIN is refused: it would wait for the loop's own poll for wakes, \
        which never ends",
    FlagSkipSuccess: c"IOSQE_CQE_SKIP_SUCCESS is refused: the final callback would not come",
    FlagLink: c"IOSQE_IO_LINK and IOSQE_IO_HARDLINK are refused here: use loop_submit_chain()",
    FlagUnknown: c"the entry has a flag that this version of ringloop does not know",
    OpcodeCancel: c"IORING_OP_ASYNC_CANCEL and IORING_OP_POLL_REMOVE are refused: use \
        loop_cancel()",
    OpcodeTimeout: c"IORING_OP_TIMEOUT_REMOVE and IORING_OP_LINK_TIMEOUT are refused: use \
        loop_cancel() and loop_set_deadline()",
    OpcodeMessage: c"IORING_OP_MSG_RING is refused: a loop would take the message for a completion \
        of its own; use loop_remote_call_soon()",
    Opcode128: c"operations with entries of 128 bytes are refused: the loop's ring has entries of \
        64 bytes",
    ChainTooLong = CHAIN_TOO_LONG(E2BIG): c"the chain is longer than the submission queue: set a \
        larger sq_entries",
    LengthTooLarge = TOO_LONG(EINVAL): c"the length is over INT32_MAX: the result could not hold \
        the number of bytes; split the operation",
    NoRoom: c"the buffer has no room: a vector needs spare capacity",
    NulInside = NUL_INSIDE(EINVAL): c"a path, a name or an argument has a NUL inside",
    PathTooLong = PATH_TOO_LONG(EINVAL): c"the path is too long for the address of a Unix socket, \
        which has room for 107 bytes",
    OptionsDisagree: c"the options to open a file contradict one another: a file needs read, write \
        or append; truncate, create and create_new need write or append; append excludes truncate",
    FlagZeroCopy: c"MSG_ZEROCOPY is refused: the kernel would use the buffer after the final \
        callback; submit IORING_OP_SEND_ZC, whose final callback means that the kernel has \
        released the buffer",
    FlagSplicePages: c"MSG_SPLICE_PAGES is refused: the kernel would use the buffer after the \
        final callback; submit IORING_OP_SEND_ZC, whose final callback means that the kernel has \
        released the buffer",
    FlagDeviceMemory: c"MSG_SOCK_DEVMEM is refused: the data would be in the memory of a device, \
        not in the buffer",
    FlagOfSend: c"the flags have a bit that a send refuses: it accepts MSG_CONFIRM, _DONTROUTE, \
        _DONTWAIT, _EOR, _FASTOPEN, _MORE, _NOSIGNAL, _OOB and _WAITALL",
    FlagOfReceive: c"the flags have a bit that a receive refuses: it accepts MSG_CMSG_CLOEXEC, \
        _DONTWAIT, _ERRQUEUE, _NOSIGNAL, _OOB, _PEEK, _TRUNC and _WAITALL",
    FlagTruncate: c"MSG_TRUNC is refused here: the result would not be the number of bytes in the \
        buffer; use submit",
    AnotherUnderWay = ANOTHER_UNDER_WAY(EBUSY): c"another call of this kind is in progress: await \
        its future first, or drop that future",
    EndOfStream = END_OF_STREAM(ENODATA): c"the stream ended before the buffer was full",
    BadAddress = BAD_ADDRESS(EINVAL): c"the address is invalid or missing",
    NothingWritten = NOTHING_WRITTEN(EIO): c"nothing was written, and no error gives the reason",
    OperationFailed: c"the operation failed",
    Cancelled = CANCELLED(ECANCELED): c"the work or operation was cancelled before it had begun",
    NoThread: c"no thread could be started: raise the limit (ulimit -u, the container's pids) or \
        free some memory",
    OwnExecutor = OWN_EXECUTOR(EDEADLK): c"a thread of the loop's own executor can neither close \
        nor adopt the loop, since closing waits for that thread: use another thread",
    NotAChild = NOT_A_CHILD(ECHILD): c"the process is not a child of this one, or was already \
        waited for",
    BadPid: c"the number of a process must be positive",
    NoPidFd: c"the kernel gave no descriptor for the child: pidfd_open needs Linux 5.3 or later",
    NoSuchName: c"the host or the service does not exist",
    NoAnswer: c"the name servers do not answer at the moment: try again",
    NameFailed: c"the name could not be looked up: a name server failed, or the question is \
        invalid",
    TooManyBuffers: c"there are too many buffers: the kernel takes at most 1024 at once",
    AddressTooLong: c"the length is more than that of any address, sizeof(struct sockaddr_storage)",
    NullPointer: c"a pointer that must not be NULL is NULL",
    UnknownHookPoint: c"the point of a hook must be LOOP_BEFORE_WAIT or LOOP_AFTER_WAIT",
    SizeTooSmall: c"the size of the struct is too small: set it to sizeof the struct, as \
        LOOP_OPTIONS_INIT does",
    OptionsTooNew: c"the options ask for something that this version of ringloop does not know: \
        update the library",
    MadeInRust: c"the loop was made in Rust: close it there",
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
            // The sentence does not name the cause: the errno of the kernel does.
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
