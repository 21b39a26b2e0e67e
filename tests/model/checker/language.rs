//! The language of programs: one action a line; the lines of a callback are indented below it.
//!
//! `call_later delay=5 on=1 by=rust` is an action with its fields, its loop (`on`) and its face
//! (`by`). A field that is left out has its first value. `end` is the end of a stream that is
//! written to, also for receivers.

use std::fmt::{self, Display};

/// The bytes that a program is made of; zeros when none are left.
pub(crate) struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }
}

/// The value of a field.
pub(crate) trait Word: Default + PartialEq + Display {
    fn any(bytes: &mut Bytes<'_>) -> Self;
    fn read(text: &str) -> Option<Self>;
}

/// The fields of a line that have not been read yet.
struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl Fields<'_> {
    fn take<T: Word>(&mut self, name: &str) -> Result<T, String> {
        let Some(at) = self.0.iter().position(|(key, _)| *key == name) else {
            return Ok(T::default());
        };
        let (_, text) = self.0.remove(at);
        T::read(text).ok_or_else(|| format!("{name} cannot be {text}"))
    }
}

/// Converts `CallSoon` to `call_soon`.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// Fields with a fixed set of values; the numbers are the weights of the random choice.
macro_rules! words {
    ($($(#[$doc:meta])* $type:ident { $first:ident $once:literal $(, $word:ident $weight:literal)* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub(crate) enum $type { #[default] $first $(, $word)* }

        impl Word for $type {
            fn any(bytes: &mut Bytes<'_>) -> $type {
                let weights = [($type::$first, $once) $(, ($type::$word, $weight))*];
                chosen(&weights, bytes.next())
            }

            fn read(text: &str) -> Option<$type> {
                let all = [$type::$first $(, $type::$word)*];
                all.into_iter().find(|word| word.to_string() == text)
            }
        }

        impl Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&snake(&format!("{self:?}")))
            }
        }
    )*};
}

fn chosen<T: Copy>(weights: &[(T, u8)], byte: u8) -> T {
    let total = weights.iter().map(|(_, weight)| weight).sum::<u8>();
    let mut left = byte % total;
    for &(word, weight) in weights {
        if left < weight {
            return word;
        }
        left -= weight;
    }
    weights[0].0
}

/// Fields that are numbers; programs choose from the listed ones.
macro_rules! numbers {
    ($($(#[$doc:meta])* $type:ident [$($number:expr),* $(,)?])*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) struct $type(pub(crate) u64);

        impl $type {
            const CHOSEN: &[u64] = &[$($number),*];
        }

        impl Default for $type {
            fn default() -> $type {
                $type($type::CHOSEN[0])
            }
        }

        impl Word for $type {
            fn any(bytes: &mut Bytes<'_>) -> $type {
                $type($type::CHOSEN[usize::from(bytes.next()) % $type::CHOSEN.len()])
            }

            fn read(text: &str) -> Option<$type> {
                let number = if text == "never" { u64::MAX } else { text.parse().ok()? };
                Some($type(number))
            }
        }

        impl Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.0 == u64::MAX { f.write_str("never") } else { write!(f, "{}", self.0) }
            }
        }
    )*};
}

words! {
    /// The API that performs the action: C or Rust.
    Face { C 1, Rust 1 }
    Clock { Virtual 7, Real 1 }
    /// Whether there is an exception handler.
    Panics { Leave 1, Handled 1 }
    /// The source of a handle: pending things of the loop, all of them, ended ones, things of any
    /// loop, the running callback, a handle with one bit flipped, or a number that is no handle.
    Whose { Live 5, Any 5, Ended 1, Foreign 1, Current 1, Flipped 2, Number 1 }
    Hook { First 4, Second 3, None 1 }
    Point { BeforeWait 1, AfterWait 1 }
    Signal { Winch 7, Urg 5, Kill 1, Segv 1, Zero 1, TooHigh 1 }
    Shown { Only 2, Cancelled 1 }
    Entry { Nop 2, Timeout 1, LongTimeout 1, Poll 1, PollBoth 1, Nothing 1 }
    Link { Soft 1, Hard 1 }
    /// The fault of the last entry of a chain.
    Fault { None 6, Skips 1, Dangles 1 }
    /// The two ends of three streams; the last stream is a pipe.
    End { FirstLeft 1, FirstRight 1, SecondLeft 1, SecondRight 1, PipeIn 1, PipeOut 1 }
    Sending { Send 1, SendAll 1, Write 1, WriteAll 1 }
    Receiving { Recv 1, Read 1 }
    Many { One 1, Many 2 }
    Owner { Own 15, Other 1 }
    Events { In 6, Out 2, Both 2, Rdhup 2, Nothing 3, Unknown 1 }
    Descriptor { OfStream 30, Closed 1, Directory 1 }
}

numbers! {
    /// Nanoseconds: zero, short times, an hour, forever.
    Time [
        0, 1, 2, 3, 5, 10, 100, 1000, 7777, 50_000, 1_000_000, 1_000_000_000, 3_600_000_000_000, u64::MAX / 2,
        u64::MAX - 1, u64::MAX,
    ]
    /// The slack in nanoseconds, within which deadlines share a wakeup.
    Slack [0, 0, 0, 0, 0, 10, 25, 1000]
    Start [1_000_000, 1_000_000, 0, 1 << 63, u64::MAX - 60]
    Few [0, 1, 2, 3, 4, 5, 6, 7]
    Back [0, 0, 0, 0, 1, 2, 3, 4, 6, 9, 14, 25, 39]
    Byte [0, 1, 3, 7, 14, 21, 85, 130, 170, 208, 255]
    Bits [0, 3, 8, 12, 20, 40, 62]
    Entries [0, 0, 1, 2, 8]
    Spin [0, 4000]
    Length [1, 2, 7, 100, 1000, 4096, 8000, 12_000]
    Count [1, 2, 3, 4, 8, 1, 0, 32_769]
    Size [1, 16, 100, 1000, 4096, 10_000, 64, 0]
}

/// A time relative to the clock: after now, before now, or absolute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    In(Time),
    Ago(Time),
    At(Time),
}

impl Default for Moment {
    fn default() -> Moment {
        Moment::In(Time(0))
    }
}

impl Moment {
    pub(crate) fn at(self, now: u64) -> u64 {
        match self {
            Moment::In(time) => now.saturating_add(time.0),
            Moment::Ago(time) => now.saturating_sub(time.0),
            Moment::At(time) => time.0,
        }
    }
}

impl Word for Moment {
    fn any(bytes: &mut Bytes<'_>) -> Moment {
        match bytes.next() % 16 {
            0 | 1 => Moment::Ago(Time::any(bytes)),
            2 => Moment::At(Time::any(bytes)),
            _ => Moment::In(Time::any(bytes)),
        }
    }

    fn read(text: &str) -> Option<Moment> {
        match text.as_bytes().first()? {
            b'+' => Time::read(&text[1..]).map(Moment::In),
            b'-' => Time::read(&text[1..]).map(Moment::Ago),
            _ => Time::read(text).map(Moment::At),
        }
    }
}

impl Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::In(time) => write!(f, "+{time}"),
            Moment::Ago(time) => write!(f, "-{time}"),
            Moment::At(time) => write!(f, "{time}"),
        }
    }
}

/// The actions, with their fields; the numbers are the weights of the random choice.
macro_rules! actions {
    ($($name:ident { $($field:ident: $type:ty),* } $weight:literal $group:ident $below:ident)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Action { $($name { $($field: $type),* }),* }

        impl Action {
            /// The weight of each action, and its group.
            const ROWS: &[(u64, Group)] = &[$(($weight, Group::$group)),*];

            /// The action with this number, with random fields.
            fn any(number: usize, bytes: &mut Bytes<'_>) -> Action {
                let makers: [fn(&mut Bytes<'_>) -> Action; Action::ROWS.len()] = [
                    $(|_bytes| Action::$name { $($field: Word::any(_bytes)),* }),*
                ];
                makers[number](bytes)
            }

            fn read(name: &str, _fields: &mut Fields<'_>) -> Result<Action, String> {
                $(if name == snake(stringify!($name)) {
                    return Ok(Action::$name { $($field: _fields.take(stringify!($field))?),* });
                })*
                Err(format!("there is no action {name}"))
            }

            /// The group of the action, and the lines that may stand below it.
            fn row(&self) -> (Group, Below) {
                match self {
                    $(Action::$name { .. } => (Group::$group, Below::$below)),*
                }
            }

            /// Copies of the action, each with one field set to its default that has another value.
            fn simpler(&self) -> Vec<Action> {
                let all: Vec<Action> = match self {
                    $(Action::$name { .. } => vec![$({
                        let mut less = *self;
                        if let Action::$name { $field, .. } = &mut less {
                            *$field = Default::default();
                        }
                        less
                    }),*],)*
                };
                all.into_iter().filter(|less| less != self).collect()
            }
        }

        impl Display for Action {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Action::$name { $($field),* } => {
                        f.write_str(&snake(stringify!($name)))?;
                        $(write_field(f, stringify!($field), $field)?;)*
                    })*
                }
                Ok(())
            }
        }
    };
}

fn write_field<T: Word>(f: &mut fmt::Formatter<'_>, name: &str, field: &T) -> fmt::Result {
    if *field == T::default() { Ok(()) } else { write!(f, " {name}={field}") }
}

actions! {
    CallSoon {} 5 Plain Script
    CallLater { delay: Time } 3 Plain Script
    CallAt { when: Moment } 3 Plain Script
    CallEvery { period: Time } 3 Plain Script
    Flood { count: Back, bits: Bits } 1 Plain Nothing
    Cancel { of: Whose, back: Back } 7 Plain Nothing
    Reschedule { of: Whose, back: Back, when: Moment } 4 Plain Nothing
    When { of: Whose, back: Back } 1 Plain Nothing
    Skipped { of: Whose, back: Back } 1 Plain Nothing
    IsPending { of: Whose, back: Back } 2 Plain Nothing
    Ref { of: Whose, back: Back } 1 Plain Nothing
    Unref { of: Whose, back: Back } 2 Plain Nothing
    OnRelease { of: Whose, back: Back, hook: Hook } 6 Plain Script
    Run { limit: Time } 3 Plain Nothing
    RunForever { limit: Time } 1 Plain Nothing
    RunOnce { limit: Time } 5 Plain Nothing
    Stop {} 2 Plain Nothing
    Break {} 2 Plain Nothing
    Panic {} 4 Plain Nothing
    Look {} 2 Plain Nothing
    Spawn {} 5 Plain Script
    Yield {} 2 Plain Nothing
    Sleep { delay: Time } 2 Plain Nothing
    Park {} 2 Plain Nothing
    Join { task: Back } 2 Plain Nothing
    Unpark { task: Back } 2 Plain Nothing
    Disturb { task: Back } 1 Plain Nothing
    Abort { task: Back } 1 Plain Nothing
    Detach { task: Back } 1 Plain Nothing

    AddHook { point: Point } 2 Other Script
    AddSignal { signal: Signal } 4 Other Script
    Raise { signal: Signal } 4 Other Nothing
    RunUntilWorker { posts: Few, manner: Byte } 1 Other Script
    Post {} 1 Other Script
    Wakeup {} 1 Other Nothing
    RemoteNew {} 2 Other Nothing
    RemoteRetain { which: Few } 1 Other Nothing
    RemoteRelease { which: Few } 1 Other Nothing
    RemotePost { which: Few, hook: Hook } 3 Other Script
    RemotePostLater { which: Few, hook: Hook, delay: Time } 2 Other Script
    RemoteWakeup { which: Few } 1 Other Nothing
    RemoteStop { which: Few } 1 Other Nothing
    Worker { which: Few, posts: Few, manner: Byte } 2 Other Script
    Fd {} 1 Other Nothing
    Flush {} 2 Other Nothing
    Slow { threshold: Time } 2 Other Script
    SlowOff {} 1 Other Nothing
    Walk { shown: Shown } 2 Other Script
    NewLoop {
        slot: Few, clock: Clock, sq: Entries, cq: Entries, spin: Spin, slack: Slack, start: Start, panics: Panics
    } 2 Loops Nothing
    Close {} 2 Other Nothing
    CloseWithin { limit: Time } 1 Other Nothing
    Shutdown {} 1 Other Nothing
    Adopt {} 1 Other Nothing
    Refuse { after: Few } 4 Other Nothing

    Submit { entry: Entry, end: End } 3 Io Script
    Chain { first: Entry, second: Entry, third: Entry, end: End, link: Link, fault: Fault } 2 Io Script
    Send { end: End, length: Length, sending: Sending } 4 Io Script
    Receive { end: End, length: Length, receiving: Receiving } 3 Io Script
    ReceiveMulti { end: End, buffers: Few, owner: Owner } 3 Io Script
    BuffersNew { count: Count, size: Size } 2 Io Nothing
    BuffersFree { which: Few } 1 Io Nothing
    BufferReturn { which: Few, at: Byte } 1 Io Nothing
    Accept { many: Many } 1 Io Script
    Connect {} 1 Io Nothing
    Execute {} 1 Io Script
    Deadline { of: Whose, back: Back, when: Moment } 2 Io Nothing
    Watch { end: End, events: Events, descriptor: Descriptor } 2 Io Script
    WatchUpdate { of: Whose, back: Back, events: Events } 1 Io Nothing
    Forget { end: End } 1 Io Nothing
    CloseEnd { end: End } 1 Io Nothing
    Feed { end: End, length: Length } 1 Io Nothing
    Drain { end: End, length: Length } 1 Io Nothing
}

/// The groups: scheduling; all other actions; making loops; descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Group {
    Plain,
    Other,
    Loops,
    Io,
}

/// The lines that may stand below a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Below {
    Nothing,
    /// The lines that a callback or a hook runs.
    Script,
}

impl Action {
    pub(crate) fn is_plain(&self) -> bool {
        self.row().0 == Group::Plain
    }

    fn has_script(&self) -> bool {
        self.row().1 == Below::Script
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    /// The depth of indentation.
    pub(crate) depth: usize,
    pub(crate) action: Action,
    pub(crate) on: Few,
    pub(crate) by: Face,
}

impl Line {
    /// Makes a line of eight bytes, with an action of one of the groups.
    fn any(bytes: &[u8], groups: &[Group], above: usize) -> Line {
        let mut bytes = Bytes(bytes);
        let depth = match bytes.next() % 8 {
            0..=2 => above + 1,
            3 | 4 => above,
            5 => above.saturating_sub(1),
            _ => 0,
        };
        let rows = Action::ROWS.iter().enumerate();
        let mut rows = rows.filter(|(_, (_, group))| groups.contains(group));
        let total = rows.clone().map(|(_, (weight, _))| weight).sum::<u64>();
        let mut left = u64::from(bytes.next()) * total / 256;
        let is_it = |(_, (weight, _)): &(usize, &(u64, Group))| {
            let is_it = left < *weight;
            left = left.wrapping_sub(*weight);
            is_it
        };
        let number = rows.find(is_it).map_or(0, |(number, _)| number);
        let how = bytes.next();
        let (on, by) = (Few((how % 4).into()), if how & 0x40 == 0 { Face::C } else { Face::Rust });
        Line { depth, action: Action::any(number, &mut bytes), on, by }
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:1$}{2}", "", 4 * self.depth, self.action)?;
        write_field(f, "on", &self.on)?;
        write_field(f, "by", &self.by)
    }
}

/// The lines of a program.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Program(pub(crate) Vec<Line>);

impl Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Program {
    /// The program that a string of bytes encodes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Program {
        const LONGEST: usize = 400;
        let (&setup, bytes) = bytes.split_first().unwrap_or((&0, &[]));
        let mut lines = Vec::new();
        let loops = usize::from(setup % 3) + 1;
        for (at, bytes) in bytes.chunks(8).take(LONGEST).enumerate() {
            let above = lines.last().map_or(0, |line: &Line| line.depth);
            let groups: &[Group] = match setup >> 2 & 3 {
                _ if at < loops => &[Group::Loops],
                0 => &[Group::Plain],
                1 if bytes[0] & 0x80 == 0 => &[Group::Io],
                2 => &[Group::Plain, Group::Other, Group::Loops],
                _ => &[Group::Plain, Group::Other, Group::Loops, Group::Io],
            };
            let mut line = Line::any(bytes, groups, above);
            if let (true, Action::NewLoop { slot, .. }) = (at < loops, &mut line.action) {
                slot.0 = at as u64;
            }
            lines.push(line);
        }
        if setup & 0x80 != 0 {
            let run = Action::Run { limit: Time(3_600_000_000_000) };
            lines.extend((0..3).map(|on| Line { depth: 0, action: run, on: Few(on), by: Face::C }));
        }
        Program(lines).tidy()
    }

    pub(crate) fn read(text: &str) -> Result<Program, String> {
        let mut lines = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = line.split_whitespace();
            let Some(name) = words.next().filter(|name| !name.starts_with('#')) else { continue };
            let fields =
                words.map(|word| word.split_once('=').ok_or(word)).collect::<Result<_, _>>();
            let read = |mut fields: Fields<'_>| {
                let depth = line.len() - line.trim_start().len();
                let line = Line {
                    depth: depth / 4,
                    action: Action::read(name, &mut fields)?,
                    on: fields.take("on")?,
                    by: fields.take("by")?,
                };
                fields.0.first().map_or(Ok(line), |(key, _)| Err(format!("{name} has no {key}")))
            };
            let read = fields
                .map_err(|word| format!("{word} is no field"))
                .and_then(|all| read(Fields(all)));
            lines.push(read.map_err(|what| format!("line {number}: {what}"))?);
        }
        let program = Program(lines);
        if program.clone().tidy() == program {
            Ok(program)
        } else {
            Err("a line is indented too far".into())
        }
    }

    /// Limits the depth of each line to one step below a line that may have a script.
    fn tidy(mut self) -> Program {
        let mut deepest = 0;
        for line in &mut self.0 {
            line.depth = line.depth.min(deepest);
            deepest = line.depth + usize::from(line.action.has_script());
        }
        self
    }

    /// The lines below this one.
    pub(crate) fn below(&self, at: usize) -> std::ops::Range<usize> {
        let depth = self.0[at].depth;
        let count = self.0[at + 1..].iter().take_while(|line| line.depth > depth).count();
        at + 1..at + 1 + count
    }

    /// Reduces a program with a fault to the shortest and simplest program that still has a fault.
    pub(crate) fn reduced(
        mut self,
        mut fault: String,
        run: impl Fn(&Program) -> Result<(), String>,
    ) -> (Program, String) {
        let is_faulty = |program: Program| run(&program).err().map(|fault| (program, fault));
        loop {
            let less = self.simpler().find_map(is_faulty);
            let Some(less) = less else { return (self, fault) };
            (self, fault) = less;
        }
    }

    /// Programs that are a little shorter or simpler, with the shortest first.
    fn simpler(&self) -> impl Iterator<Item = Program> {
        let len = self.0.len();
        let sizes =
            std::iter::successors(Some(len), |size| Some(size / 2)).take_while(|size| *size > 0);
        let shorter = sizes.flat_map(move |size| (0..=len - size).map(move |at| (at, size))).map(
            |(at, size)| {
                let lines = [&self.0[..at], &self.0[at + size..]].concat();
                Program(lines).tidy()
            },
        );
        let lines = self.0.iter().enumerate();
        let easier = lines.flat_map(move |(at, line)| {
            let mut lines: Vec<Line> =
                line.action.simpler().into_iter().map(|action| Line { action, ..*line }).collect();
            lines.push(Line { on: Few(0), ..*line });
            lines.push(Line { by: Face::C, ..*line });
            lines.into_iter().map(move |line| {
                let mut program = self.clone();
                program.0[at] = line;
                program
            })
        });
        shorter.chain(easier.filter(move |program| program != self))
    }
}
