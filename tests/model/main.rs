//! Random programs of calls of the C API and the Rust API, checked against a model of the rules.
//!
//! Each program in `programs/` has shown a fault, for which it is named; these programs run first.
//! A new program that fails is printed, reduced to few lines. CASES raises the number of random
//! programs. SEED sets the first one: a failure prints its number, and SEED=number CASES=1 repeats
//! it. `make fuzz` searches for programs that reach new code; BYTES names a file that `make fuzz`
//! has left.

use std::{env, fs};

use self::checker::Program;

mod checker;
#[path = "../support/mod.rs"]
mod support;

/// The bytes of one program, enough for up to sixty lines.
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
    let length = 1 + 8 * (4 + next() % 60);
    (0..length).map(|_| next() as u8).collect()
}

fn number(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => default,
    }
}

/// Prints the program when a signal ends the process.
mod last_words {
    use std::io::Write;
    use std::sync::Once;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    static SEED: AtomicU64 = AtomicU64::new(0);

    pub(crate) fn set(seed: u64) {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            for signal in [libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL] {
                // SAFETY: the handler only writes to stderr and raises the signal again.
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
        let _ = writeln!(rest, "signal {signal}: repeat with CASES=1 SEED={}", SEED.load(Relaxed));
        let length = 80 - rest.len();
        // SAFETY: `line` has `length` bytes; the signal has its default action again.
        unsafe {
            libc::write(2, line.as_ptr().cast(), length);
            libc::raise(signal);
        }
    }
}

/// Runs a program under a watchdog; returns its fault.
fn done(program: &Program) -> Result<(), String> {
    let _watch = support::Watch::begin_for(format!("this program hangs:\n{program}"));
    checker::run(program)
}

fn check(name: &str, program: Program) {
    if let Err(fault) = done(&program) {
        let (program, fault) = program.reduced(fault, done);
        panic!("{name}: {fault}\n{program}");
    }
}

/// Checks the rules S2, S4 to S8, S10 to S20, S22, S23, S25, S26, S28 to S31, S35 to S39, S41 and
/// S43 in the same programs.
#[test]
fn no_program_breaks_a_rule() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/model/programs");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let name = file.display().to_string();
        let program = Program::read(&fs::read_to_string(&file).unwrap());
        check(&name, program.unwrap_or_else(|what| panic!("{name}: {what}")));
    }
    if let Some(file) = env::var_os("BYTES") {
        let program = Program::from_bytes(&fs::read(file).unwrap());
        println!("{program}");
        check("BYTES", program);
    }
    let first = number("SEED", 0);
    for seed in first..first + number("CASES", 6000) {
        last_words::set(seed);
        let program = Program::from_bytes(&bytes_of(seed));
        assert_eq!(Program::read(&program.to_string()).as_ref(), Ok(&program));
        check(&format!("CASES=1 SEED={seed}"), program);
    }
}
