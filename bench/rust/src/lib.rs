//! Parts of all Rust programs, as `c/bench.h` for those in C: options, the clocks, random numbers
//! that are the same in all programs, and the line of JSON that each run prints.

use std::cell::Cell;
use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, Instant};

pub mod echo;
pub mod tasks;
pub mod threads;

pub const AN_HOUR: Duration = Duration::from_secs(3600);
/// The number of operations between two iterations of the loop, in cases without callbacks.
pub const BATCH: u64 = 1000;

/// Ends the program with an error unless `kept`.
pub fn check(kept: bool, what: &str) {
    if !kept {
        eprintln!("error: {what}");
        std::process::exit(1);
    }
}

/// The value of `name=number` on the command line; 0 if absent.
pub fn option(name: &str) -> u64 {
    std::env::args()
        .skip(2)
        .find_map(|argument| argument.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        .unwrap_or(0)
}

/// The number of batches for `operations`.
pub fn batches(operations: u64) -> u64 {
    check(operations.is_multiple_of(BATCH), "n must be a multiple of 1000");
    operations / BATCH
}

/// A counter for callbacks, which lives as long as the program.
pub fn counter() -> &'static Cell<u64> {
    Box::leak(Box::new(Cell::new(0)))
}

/// xorshift64* with a fixed seed.
pub struct Random(u64);

impl Random {
    #[expect(clippy::new_without_default)]
    pub fn new() -> Random {
        Random(0x9E37_79B9_7F4A_7C15)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((u128::from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)) * u128::from(limit)) >> 64) as u64
    }

    pub fn index(&mut self, limit: usize) -> usize {
        self.below(limit as u64) as usize
    }

    /// The delay of the next timer of the case "timers": within `span_ms`, in whole milliseconds if
    /// `whole`.
    pub fn delay(&mut self, span_ms: u64, whole: bool) -> Duration {
        if whole {
            Duration::from_millis(1 + self.below(span_ms))
        } else {
            Duration::from_nanos(self.below(span_ms * 1_000_000))
        }
    }

    /// A timeout that does not expire during the run: one to two minutes.
    pub fn timeout(&mut self) -> Duration {
        Duration::from_nanos(60_000_000_000 + self.below(60_000_000_000))
    }

    /// A delay of an hour and up to a second.
    pub fn far(&mut self) -> Duration {
        AN_HOUR + Duration::from_nanos(self.below(1_000_000_000))
    }
}

fn clock(clock: libc::clockid_t) -> u64 {
    // SAFETY: plain data, for which zero is a valid value.
    let mut now: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `now` is valid for writing.
    unsafe { libc::clock_gettime(clock, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The number of voluntary context switches of the process.
fn sleeps() -> u64 {
    // SAFETY: plain data, for which zero is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid for writing.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    usage.ru_nvcsw as u64
}

/// A measurement: the part between `start` and `stop`.
pub struct Measure {
    sleeps: u64,
    wall: u64,
    cpu: u64,
}

impl Measure {
    pub fn start() -> Measure {
        let sleeps = sleeps();
        Measure {
            sleeps,
            wall: clock(libc::CLOCK_MONOTONIC),
            cpu: clock(libc::CLOCK_PROCESS_CPUTIME_ID),
        }
    }

    pub fn stop(&self) -> Used {
        let cpu = clock(libc::CLOCK_PROCESS_CPUTIME_ID) - self.cpu;
        let wall = clock(libc::CLOCK_MONOTONIC) - self.wall;
        Used { sleeps: sleeps() - self.sleeps, wall, cpu }
    }
}

/// The result of a measurement, which prints itself.
#[derive(Default)]
pub struct Used {
    sleeps: u64,
    wall: u64,
    cpu: u64,
}

impl Used {
    pub fn report(&self, operations: u64) {
        self.report_with(operations, &[]);
    }

    fn report_with(&self, operations: u64, more: &[(&str, &dyn Display)]) {
        let Used { sleeps, wall, cpu } = self;
        print!(r#"{{"ops": {operations}, "wall_ns": {wall}, "cpu_ns": {cpu}, "sleeps": {sleeps}"#);
        for (name, value) in more {
            print!(r#", "{name}": {value}"#);
        }
        println!("}}");
    }

    /// Reports also the lateness, and the number of early callbacks.
    pub fn report_late(&self, mut late: Vec<u64>, early: u64) {
        late.sort_unstable();
        let (count, at) = (late.len(), |part: usize| late[late.len() * part / 100]);
        let mean = late.iter().sum::<u64>() / count as u64;
        let more: [(&str, &dyn Display); 5] = [
            ("p50_ns", &at(50)),
            ("p99_ns", &at(99)),
            ("early", &early),
            ("mean_ns", &mean),
            ("max_ns", &late[count - 1]),
        ];
        self.report_with(count as u64, &more);
    }

    /// Reports also the memory that was added since `before`.
    pub fn report_memory(&self, operations: u64, before: Memory) {
        let after = Memory::now();
        let (rss, heap) = (after.rss - before.rss, after.heap - before.heap);
        self.report_with(operations, &[("rss_bytes", &rss), ("heap_bytes", &heap)]);
    }
}

/// Measures once, and `again` times more. Returns the last measurement.
pub fn last_of_rounds(mut round: impl FnMut() -> Used) -> Used {
    for _ in 0..option("again") {
        round();
    }
    round()
}

/// Resident memory of the process, and memory allocated by malloc.
pub struct Memory {
    rss: i64,
    heap: i64,
}

impl Memory {
    pub fn now() -> Memory {
        // SAFETY: reads only malloc's counters.
        let info = unsafe { libc::mallinfo2() };
        // SAFETY: no memory is involved.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
        let pages: i64 = statm
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse().ok())
            .expect("a number of pages");
        Memory { rss: pages * page, heap: (info.uordblks + info.hblkhd) as i64 }
    }
}

/// The cases "lateness" and "lateness-spin": one timer at a time, and how late its callback is.
pub struct Lateness {
    random: Random,
    wanted: usize,
    late: Vec<u64>,
    early: u64,
    when: Instant,
    measure: Measure,
}

impl Lateness {
    pub fn begin() -> Lateness {
        let wanted = option("n") as usize;
        Lateness {
            random: Random::new(),
            wanted,
            late: Vec::with_capacity(wanted),
            early: 0,
            when: Instant::now(),
            measure: Measure::start(),
        }
    }

    /// The deadline of the next timer, 0.05 to 10 ms ahead.
    pub fn next_deadline(&mut self) -> Instant {
        self.next_delay();
        self.when
    }

    /// The delay of the next timer from now.
    pub fn next_delay(&mut self) -> Duration {
        let delay = Duration::from_nanos(50_000 + self.random.below(9_950_000));
        self.when = Instant::now() + delay;
        delay
    }

    /// Returns whether more timers follow. A callback calls this first.
    pub fn fired(&mut self) -> bool {
        let now = Instant::now();
        self.early += u64::from(now < self.when);
        self.late.push(now.saturating_duration_since(self.when).as_nanos() as u64);
        self.late.len() < self.wanted
    }

    /// As `fired`, for a timer of the case "dense", which has many timers at once.
    pub fn fired_at(&mut self, when: Instant) -> bool {
        self.when = when;
        self.fired()
    }

    pub fn report(&mut self) {
        let used = self.measure.stop();
        check(self.late.len() == self.wanted, "not all timers fired");
        used.report_late(std::mem::take(&mut self.late), self.early);
    }
}

/// The case "idle": the driver watches the process and then ends it; without a driver, the alarm
/// ends it.
pub fn idle_begin() {
    println!(r#"{{"ready": true}}"#);
    std::io::stdout().flush().expect("standard output is open");
    // SAFETY: no memory is involved; the default action of SIGALRM ends the process.
    unsafe { libc::alarm(option("seconds") as u32) };
}

/// The cases of a loop that its program defines, with a function for each.
#[macro_export]
macro_rules! loop_cases {
    () => {
        [
            ("soon-chain", soon_chain as fn()),
            ("soon-bulk", soon_bulk),
            ("timers", timers),
            ("timers-cancel", timers_cancel),
            ("timers-move", timers_move),
            ("timers-memory", timers_memory),
            ("lateness", lateness),
            ("idle", idle),
            ("start", start),
        ]
    };
}

/// Runs the case on the command line.
pub fn main(cases: &[(&str, fn())], more: &[(&str, fn())]) {
    let name = std::env::args().nth(1).unwrap_or_default();
    match cases.iter().chain(more).find(|(known, _)| *known == name) {
        Some((_, run)) => run(),
        None => check(false, "usage: CASE [NAME=NUMBER]..."),
    }
}
