//! What a string of bytes says: five bytes an operation.

use arbitrary::{Arbitrary, Unstructured};

/// One call of the C API, or a few that belong together. What the numbers mean is the verb's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub(crate) verb: Verb,
    /// Which loop; the upper three bits say how many operations the callback does that is scheduled
    /// here.
    pub(crate) lp: u8,
    /// Where a handle comes from.
    pub(crate) how: u8,
    pub(crate) which: u8,
    pub(crate) time: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verb {
    New,
    NewRefused,
    Close,
    Shutdown,
    Adopt,
    Data,
    CallSoon,
    CallLater,
    CallAt,
    CallEvery,
    AddHook,
    AddSignal,
    Raise,
    Cancel,
    Reschedule,
    When,
    Skipped,
    IsPending,
    Ref,
    Unref,
    OnRelease,
    Run,
    RunForever,
    RunOnce,
    RunUntilWorker,
    Stop,
    Break,
    Threadsafe,
    Wakeup,
    RemoteNew,
    RemoteRetain,
    RemoteRelease,
    RemoteSoon,
    RemoteLater,
    RemoteWakeup,
    RemoteStop,
    Worker,
    Fd,
    Flush,
    Metrics,
    Slow,
    Walk,
    Null,
    Look,
    /// The next call that may need memory is refused it.
    Refuse,
    /// A NOP, a poll or a timeout.
    Submit,
    SubmitRefused,
    Chain,
    Send,
    Receive,
    ReceiveMulti,
    BuffersNew,
    BuffersFree,
    BufferReturn,
    Accept,
    Connect,
    Execute,
    Deadline,
    Watch,
    WatchUpdate,
    Forget,
    CloseEnd,
    /// Without a loop: a stream's other side sends, or receives.
    Feed,
    Drain,
}

use Verb::{
    Accept, AddHook, AddSignal, Adopt, Break, BufferReturn, BuffersFree, BuffersNew, CallAt,
    CallEvery, CallLater, CallSoon, Cancel, Chain, Close, CloseEnd, Connect, Data, Deadline, Drain,
    Execute, Fd, Feed, Flush, Forget, IsPending, Look, Metrics, New, NewRefused, Null, OnRelease,
    Raise, Receive, ReceiveMulti, Ref, Refuse, RemoteLater, RemoteNew, RemoteRelease, RemoteRetain,
    RemoteSoon, RemoteStop, RemoteWakeup, Reschedule, Run, RunForever, RunOnce, RunUntilWorker,
    Send, Shutdown, Skipped, Slow, Stop, Submit, SubmitRefused, Threadsafe, Unref, Wakeup, Walk,
    Watch, WatchUpdate, When, Worker,
};

/// What is worth more stands here more often.
#[rustfmt::skip]
const VERBS: [Verb; 124] = [
    CallSoon, CallSoon, CallSoon, CallSoon, CallSoon, CallLater, CallLater, CallLater, CallAt, CallAt, CallAt,
    CallEvery, CallEvery, CallEvery, AddHook, AddHook,
    Cancel, Cancel, Cancel, Cancel, Cancel, Cancel, Cancel, Reschedule, Reschedule, Reschedule, Reschedule,
    When, Skipped, IsPending, IsPending, Ref, Unref, Unref, OnRelease, OnRelease, OnRelease, OnRelease, OnRelease, OnRelease,
    Run, Run, Run, RunForever, RunOnce, RunOnce, RunOnce, RunOnce, RunOnce, RunUntilWorker,
    Stop, Stop, Break, Break, Threadsafe, Wakeup,
    RemoteNew, RemoteNew, RemoteRetain, RemoteRelease, RemoteSoon, RemoteSoon, RemoteSoon, RemoteLater, RemoteLater,
    RemoteWakeup, RemoteStop, Worker, Worker, Fd, Flush, Flush, Metrics, Slow, Walk, Walk, Look,
    New, Close, Null, Refuse, Refuse, Refuse, Refuse,
    AddSignal, AddSignal, AddSignal, AddSignal, Raise, Raise, Raise, Raise,
    Submit, Submit, Submit, SubmitRefused, Chain, Chain, Send, Send, Send, Send, Receive, Receive, Receive,
    ReceiveMulti, ReceiveMulti, ReceiveMulti, BuffersNew, BuffersNew, BuffersFree, BufferReturn, Accept, Connect,
    Execute, Deadline, Deadline, Watch, Watch, WatchUpdate, Forget, CloseEnd, Feed, Drain,
];

/// Where in the table the verbs are that have to do with descriptors.
#[allow(dead_code, reason = "libFuzzer finds them by itself")]
pub(crate) const IO_VERBS: std::ops::Range<u64> = 92..124;

/// These end or refuse much: with the seldom ones, one byte in a few hundred.
const SELDOM: [Verb; 8] = [Shutdown, Adopt, Data, NewRefused, Close, Slow, New, Shutdown];

impl<'a> Arbitrary<'a> for Op {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Op> {
        let [verb, lp, how, which, time] = u.arbitrary()?;
        let verb = match usize::from(verb) {
            often if often < 248 => VERBS[often % VERBS.len()],
            seldom => SELDOM[seldom % SELDOM.len()],
        };
        Ok(Op { verb, lp, how, which, time })
    }
}

impl Op {
    /// How many operations the callback does that this one schedules.
    pub(crate) fn script(self) -> u8 {
        match self.lp >> 5 {
            0..=2 => 0,
            3 | 4 => 1,
            5 => 2,
            6 => 3,
            _ => 6,
        }
    }

    /// An amount of time: none, a little, an hour, for ever.
    pub(crate) fn amount(self) -> u64 {
        const AMOUNTS: [u64; 16] = [
            0,
            1,
            2,
            3,
            5,
            10,
            100,
            1000,
            7777,
            50_000,
            1_000_000,
            1_000_000_000,
            3_600_000_000_000,
            u64::MAX / 2,
            u64::MAX - 1,
            u64::MAX,
        ];
        AMOUNTS[usize::from(self.time % 16)]
    }

    /// A time, by the clock.
    pub(crate) fn moment(self, now: u64) -> u64 {
        match self.time >> 4 {
            0 | 1 => now.saturating_sub(self.amount()),
            2 => self.amount(),
            _ => now.saturating_add(self.amount()),
        }
    }
}

/// All that the bytes say.
pub(crate) fn decode(bytes: &[u8]) -> (u8, Vec<Op>) {
    const LONGEST: usize = 400;
    let mut u = Unstructured::new(bytes);
    let setup = u.arbitrary().unwrap_or(0);
    let mut ops = Vec::new();
    while !u.is_empty() && ops.len() < LONGEST {
        ops.extend(u.arbitrary::<Op>());
    }
    (setup, ops)
}
