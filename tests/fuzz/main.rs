//! Sequences of calls of the C API, as random as bytes are, with a ledger of what the rules make of
//! them.
//!
//! FUZZ_CASES raises the number of strings of bytes, FUZZ_SEED takes another first one: the number
//! that a failure names, so that FUZZ_SEED=number FUZZ_CASES=1 repeats it. `make fuzz` looks for
//! strings that reach new code.

use std::env;

mod interpreter;
#[path = "../support/mod.rs"]
mod support;

/// Strings that have shown a fault. They say something else when `VERBS` changes: the faults have
/// tests of their own, too.
const REGRESSIONS: [(&str, &[u8]); 7] = [
    (
        "a post that is delayed for ever is due",
        &[
            211, 57, 43, 134, 5, 170, 63, 96, 255, 166, 95, 228, 17, 236, 37, 34, 212, 81, 217, 71,
            118,
        ],
    ),
    (
        "a new signal handler is told of a signal that came before it",
        &[179, 84, 227, 61, 153, 99, 89, 163, 220, 168, 128, 176, 82, 121, 136, 34],
    ),
    (
        "a signal is told twice when memory is refused",
        &[
            159, 86, 86, 86, 86, 86, 86, 86, 86, 86, 86, 0, 0, 0, 86, 86, 86, 86, 86, 86, 86, 86,
            86, 86, 86, 86, 173, 173, 173, 173, 88, 88, 112, 112, 112, 112, 138, 227, 66, 73, 86,
            0, 0, 0, 158, 251,
        ],
    ),
    ("a walk tells a time of a watcher", &[75, 241, 243, 50, 136, 36, 198, 221, 109, 5, 172]),
    (
        "closing needs memory when the last but one operation on a descriptor ends",
        &[
            49, 114, 115, 51, 51, 5, 104, 67, 204, 104, 65, 92, 65, 117, 76, 149, 102, 95, 81, 201,
            205,
        ],
    ),
    (
        "closing waits for ever when work was taken back and there is no memory",
        &[88, 112, 50, 90, 35, 157, 114, 170, 25, 240, 207],
    ),
    (
        "giving up to close loses results when there is no memory",
        &[75, 96, 30, 132, 218, 140, 78, 111, 3, 179, 168, 248, 107, 252, 155, 223],
    ),
];

/// The bytes of one case: as many as make up to sixty operations.
fn bytes_of(seed: u64) -> Vec<u8> {
    let mut state = seed;
    // SplitMix64.
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    };
    let length = 1 + 5 * (next() % 60);
    let mut bytes: Vec<u8> = (0..length).map(|_| next() as u8).collect();
    if !seed.is_multiple_of(4) {
        // More of what has to do with descriptors.
        for verb in bytes.iter_mut().skip(1).step_by(5) {
            let (wanted, which) = (next() % 2 == 0, interpreter::IO_VERBS.start + next() % 32);
            *verb = if wanted { which as u8 } else { *verb };
        }
    }
    bytes
}

fn number(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => default,
    }
}

/// Names the case when the program is ended by a signal.
mod last_words {
    use std::io::Write;
    use std::sync::Once;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    static SEED: AtomicU64 = AtomicU64::new(0);

    pub(crate) fn set(seed: u64) {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            for signal in [libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL] {
                // SAFETY: the handler writes to stderr and lets the signal come again.
                unsafe {
                    let mut action: libc::sigaction = std::mem::zeroed();
                    action.sa_sigaction = say as extern "C" fn(libc::c_int) as usize;
                    action.sa_flags = libc::SA_ONSTACK | libc::SA_RESETHAND;
                    libc::sigaction(signal, &raw const action, std::ptr::null_mut());
                }
            }
        });
        SEED.store(seed, Relaxed);
    }

    extern "C" fn say(signal: libc::c_int) {
        let mut line = [0; 80];
        let mut rest = &mut line[..];
        let _ = writeln!(
            rest,
            "signal {signal}: repeat with FUZZ_CASES=1 FUZZ_SEED={}",
            SEED.load(Relaxed)
        );
        let length = 80 - rest.len();
        // SAFETY: so many bytes are there; the default action of the signal is back.
        unsafe {
            libc::write(2, line.as_ptr().cast(), length);
            libc::raise(signal);
        }
    }
}

fn check(name: &str, bytes: &[u8]) {
    let watch = support::Watch::begin_for(format!("{name}: {bytes:?}"));
    let Err(fault) = interpreter::run(bytes) else { return };
    drop(watch);
    let mut reduced = (bytes.to_vec(), fault);
    while let Some(less) = reduce(name, &reduced.0) {
        reduced = less;
    }
    let (bytes, fault) = reduced;
    let (setup, ops) = interpreter::decode(&bytes);
    let ops: Vec<String> = ops.iter().map(|op| format!("\n    {op:?}")).collect();
    panic!("{name}: {fault}\nreduced to {bytes:?}\nsetup {setup}, operations:{}", ops.concat());
}

/// A shorter string that shows a fault, too.
fn reduce(name: &str, bytes: &[u8]) -> Option<(Vec<u8>, String)> {
    let ops = bytes.len() / 5;
    let sizes =
        std::iter::successors(Some(ops), |size| Some(size / 2)).take_while(|size| *size > 0);
    for size in sizes {
        for at in 0..=ops - size {
            let _watch = support::Watch::begin_for(format!("{name}, while it is being reduced"));
            let less = [&bytes[..1 + 5 * at], &bytes[1 + 5 * (at + size)..]].concat();
            if let Err(fault) = interpreter::run(&less) {
                return Some((less, fault));
            }
        }
    }
    None
}

/// The rules S2, S4, S6, S7, S10 to S20, S22, S23, S25, S26, S28, S29, S31, S35 and S36, through
/// the C API.
#[test]
fn no_sequence_of_calls_breaks_a_rule() {
    let first = number("FUZZ_SEED", 0);
    for seed in first..first + number("FUZZ_CASES", 3000) {
        last_words::set(seed);
        check(&format!("FUZZ_CASES=1 FUZZ_SEED={seed}"), &bytes_of(seed));
    }
}

#[test]
fn what_has_been_found_once_is_found_no_more() {
    for (name, bytes) in REGRESSIONS {
        check(name, bytes);
    }
}
