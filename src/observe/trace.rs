//! The trace file: events of a loop for Perfetto and chrome://tracing.
//!
//! `RINGLOOP_TRACE` or `Builder::trace` names the file. It is JSON, an array of events in the trace
//! event format, and is complete after each run, each close, and each 60 KiB of events. All loops
//! of a process with the same file share it. The file stays open until the process ends. Without a
//! file, a loop only checks that there is none.

use std::ffi::CStr;
use std::fmt::{self, Write};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{ftruncate, gettid};

use crate::abi::handle::Kind;
use crate::abi::source::Source;
use crate::error::{Error, Result, Sentence};
use crate::observe::symbol::Symbol;
use crate::sys::c_library::variable;
use crate::sys::fork::{PerProcess, Process};
use crate::sys::memory::try_box;
use crate::time::monotonic;

/// A trace file, which is never closed.
pub(crate) type Trace = &'static TraceFile;

pub(crate) struct TraceFile {
    /// The file's device and inode, because it may have several names.
    identity: (u64, u64),
    process: Process,
    events: Mutex<Events>,
}

struct Events {
    file: File,
    /// The length of the events in the file, followed by the end of the array.
    written: u64,
    gathered: Vec<u8>,
}

static FILES: PerProcess<Mutex<Vec<Trace>>> = PerProcess::new();

/// The number of bytes gathered before a write.
const GATHER: usize = 60 << 10;

/// The longest event; longer ones are omitted. Apart from the callback's name, events are far
/// shorter.
const LONGEST: usize = 4 << 10;

const END: &[u8] = b"\n]\n";

impl TraceFile {
    /// Opens a regular file or a device by name, in which `%p` stands for the PID.
    pub(crate) fn open(name: &[u8]) -> Result<Trace> {
        let name = with_process_number(name)?;
        let process = Process::current()?;
        let cannot = |errno| Error::new(errno, Sentence::NoTraceFile);
        let name = CStr::from_bytes_with_nul(&name).map_err(|_| Error::NUL_INSIDE)?;
        // O_NONBLOCK: a pipe without a reader is refused at once. (The standard library copies a
        // long name, and aborts without memory for the copy.)
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = open(name, flags, Mode::from_bits_retain(0o666)).map_err(cannot)?;
        let status = fstat(&file).map_err(cannot)?;
        let kind = status.st_mode & libc::S_IFMT;
        if !matches!(kind, libc::S_IFREG | libc::S_IFCHR) {
            return Err(cannot(Errno::EINVAL));
        }
        let identity = (status.st_dev, status.st_ino);
        let mut files = lock(FILES.get(Mutex::default)?);
        if let Some(file) = files.iter().find(|file| file.identity == identity) {
            return Ok(file);
        }
        if kind == libc::S_IFREG {
            ftruncate(&file, 0).map_err(cannot)?;
        }
        files.try_reserve(1)?;
        let mut gathered = Vec::new();
        gathered.try_reserve_exact(GATHER + 2 + LONGEST + END.len())?;
        let events = Mutex::new(Events { file: File::from(file), written: 0, gathered });
        let file: Trace = Box::leak(try_box(TraceFile { identity, process, events })?);
        files.push(file);
        Ok(file)
    }

    /// A callback ran from `begin` to `end`, on CLOCK_MONOTONIC; `late` is the lateness of a timer.
    pub(crate) fn callback(
        &self,
        kind: Kind,
        source: Source,
        begin: u64,
        end: u64,
        late: Option<u64>,
    ) {
        self.add("X", kind.name(), begin, |event| {
            write!(Escaped(event), "{:#}", Symbol(source))?;
            write!(event, r#"","dur":{}"#, Micros(end.saturating_sub(begin)))?;
            late.map_or(Ok(()), |late| write!(event, r#","args":{{"late_us":{}}}"#, Micros(late)))
        });
    }

    /// The loop slept since `begin`; `woken` if another thread or a signal ended the sleep.
    pub(crate) fn sleep(&self, begin: u64, woken: bool) {
        let end = monotonic();
        self.add("X", "loop", begin, |event| {
            write!(event, r#"sleep","dur":{}"#, Micros(end.saturating_sub(begin)))
        });
        if woken {
            self.add("i", "loop", end, |event| event.write_str(r#"wake","s":"t""#));
        }
    }

    pub(crate) fn post(&self) {
        self.add("i", "post", monotonic(), |event| event.write_str(r#"post","s":"t""#));
    }

    pub(crate) fn flush(&self) {
        if self.process.is_current() {
            lock(&self.events).write();
        }
    }

    /// Adds an event; `rest` begins inside the string of its name. Omits an event that is too long.
    fn add(
        &self,
        phase: &str,
        category: &str,
        at: u64,
        rest: impl FnOnce(&mut Line) -> fmt::Result,
    ) {
        // In a forked child the file is the parent's (S33).
        if !self.process.is_current() {
            return;
        }
        let (process, thread, at) = (std::process::id(), gettid(), Micros(at));
        let mut line = Line { text: [0; LONGEST], length: 0 };
        let head = write!(line, r#"{{"ph":"{phase}","pid":{process},"tid":{thread},"ts":{at},"#);
        let head = head.and_then(|()| write!(line, r#""cat":"{category}","name":""#));
        if head.and_then(|()| rest(&mut line)).and_then(|()| line.write_str("}")).is_ok() {
            lock(&self.events).add(&line.text[..line.length]);
        }
    }
}

impl Events {
    fn add(&mut self, event: &[u8]) {
        if self.gathered.len() >= GATHER {
            self.write();
        }
        let is_first = self.written == 0 && self.gathered.is_empty();
        self.gathered.extend_from_slice(if is_first { b"[\n" } else { b",\n" });
        self.gathered.extend_from_slice(event);
    }

    /// Overwrites the end of the file with events and a new end. Events that cannot be written are
    /// dropped: a full disk must not affect the program.
    fn write(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let events = self.gathered.len();
        self.gathered.extend_from_slice(END);
        if self.file.write_all_at(&self.gathered, self.written).is_ok() {
            self.written += events as u64;
        }
        self.gathered.clear();
    }
}

/// An event that is being formatted.
struct Line {
    text: [u8; LONGEST],
    length: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.text.get_mut(self.length..self.length + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

/// Escapes text for a JSON string.
struct Escaped<'a>(&'a mut Line);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|char| match char {
            '"' | '\\' => write!(self.0, "\\{char}"),
            '\0'..' ' => write!(self.0, "\\u{:04x}", u32::from(char)),
            _ => self.0.write_char(char),
        })
    }
}

/// Nanoseconds, formatted in microseconds as the format requires.
struct Micros(u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// The trace file of the environment, if any.
pub(crate) fn from_environment() -> Result<Option<Trace>> {
    let name = variable(c"RINGLOOP_TRACE").filter(|name| !name.is_empty());
    name.map(|name| TraceFile::open(name.to_bytes())).transpose()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name with the PID inserted, terminated by a NUL.
fn with_process_number(name: &[u8]) -> Result<Vec<u8>> {
    let mut result = Vec::new();
    // Two bytes become at most ten digits.
    result.try_reserve_exact(5 * name.len() + 1)?;
    let mut rest = name;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"%p") {
        result.extend_from_slice(&rest[..at]);
        let _ = io::Write::write_fmt(&mut result, format_args!("{}", std::process::id()));
        rest = &rest[at + 2..];
    }
    result.extend_from_slice(rest);
    result.push(0);
    Ok(result)
}

impl fmt::Debug for TraceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TraceFile").field(&self.identity).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_what_is_too_long_is_left_out() {
        let mut line = Line { text: [0; LONGEST], length: 0 };
        write!(Escaped(&mut line), "a\"b\\c\nd").unwrap();
        assert_eq!(&line.text[..line.length], br#"a\"b\\c\u000ad"#);
        assert!(line.write_str(&"x".repeat(LONGEST)).is_err());
        assert_eq!(Micros(1_234_005).to_string(), "1234.005");
    }
}
