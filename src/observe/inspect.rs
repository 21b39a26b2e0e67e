//! The reports of a loop for people: a pending entry, a slow callback, and the lines that
//! `RINGLOOP_DEBUG=1` prints.
//!
//! Plain data and its text. Printing takes no lock and ignores errors of stderr.

use std::fmt;
use std::io::Write;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::abi::handle::{Handle, Kind};
use crate::abi::source::Source;
use crate::observe::symbol::Symbol;
use crate::sys::c_library::variable;
use crate::time::Time;

/// One pending entry, as [`Loop::walk`](crate::Loop::walk) shows it.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    pub(crate) kind: Kind,
    pub(crate) handle: Handle,
    pub(crate) source: Source,
    pub(crate) when: Time,
    pub(crate) referenced: bool,
    pub(crate) fd: Option<RawFd>,
}

impl Info {
    /// The kind of the entry.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its handle.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// The deadline of a timer or an operation; [`Time::NEVER`] for other kinds.
    pub fn when(&self) -> Time {
        self.when
    }

    /// Whether it keeps [`Loop::run`](crate::Loop::run) alive.
    pub fn is_referenced(&self) -> bool {
        self.referenced
    }

    /// The descriptor of an operation or a watcher.
    pub fn fd(&self) -> Option<RawFd> {
        self.fd
    }

    /// The callback, for people: a closure's type, or a C function's address and symbol.
    pub fn callback(&self) -> impl fmt::Display + use<> {
        Symbol(self.source)
    }
}

/// A callback that ran for the limit or longer; see
/// [`Loop::set_slow_callback`](crate::Loop::set_slow_callback).
#[derive(Clone, Copy, Debug)]
pub struct SlowCallback {
    pub(crate) kind: Kind,
    pub(crate) source: Source,
    pub(crate) duration: Duration,
}

impl SlowCallback {
    /// The kind of the entry.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The duration of the callback, on CLOCK_MONOTONIC.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// The callback, for people: a closure's type, or a C function's address and symbol.
    pub fn callback(&self) -> impl fmt::Display + use<> {
        Symbol(self.source)
    }
}

/// The debug mode reports callbacks from this duration on, as asyncio's `slow_callback_duration`.
pub(crate) const DEBUG_LIMIT: Duration = Duration::from_millis(100);

/// Whether the environment sets the debug mode.
pub(crate) fn debug_mode() -> bool {
    variable(c"RINGLOOP_DEBUG").is_some_and(|value| value == c"1")
}

pub(crate) fn print_slow(slow: &SlowCallback) {
    let milliseconds = slow.duration.as_secs_f64() * 1e3;
    print(format_args!(
        "ringloop: slow callback: {} {} held the loop for {milliseconds:.3} ms",
        slow.kind.name(),
        slow.callback(),
    ));
}

/// Prints one line for an entry that is pending when the loop is closed, at `now`.
pub(crate) fn print_pending(info: &Info, now: Time) {
    let (kind, callback, handle) = (info.kind.name(), info.callback(), info.handle.as_raw());
    let due = Due(info.when, now);
    print(format_args!("ringloop: pending at close: {kind} {callback}, handle {handle}{due}"));
}

/// The deadline of an entry, and the time now.
struct Due(Time, Time);

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Due(Time::NEVER, _) => Ok(()),
            Due(when, now) if when <= now => {
                write!(f, ", overdue by {:.6} s", (now - when).as_secs_f64())
            }
            Due(when, now) => write!(f, ", due in {:.6} s", (when - now).as_secs_f64()),
        }
    }
}

/// Writes a line to stderr with one system call, truncated to 4095 bytes. A closed or full stderr
/// is ignored. The lock of the standard library's stderr is not used: in a forked child, its holder
/// may not exist.
fn print(line: fmt::Arguments<'_>) {
    let mut text = [0; 4096];
    let mut room = &mut text[..4095];
    let _ = room.write_fmt(line);
    let length = 4095 - room.len();
    text[length] = b'\n';
    let _ = nix::unistd::write(std::io::stderr(), &text[..=length]);
}
