//! Searches for programs that reach new code and break a rule; see `tests/model`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the tests read programs from files")]
#[path = "../../tests/model/checker/mod.rs"]
mod checker;

fuzz_target!(|bytes: &[u8]| {
    let program = checker::Program::from_bytes(bytes);
    if let Err(fault) = checker::run(&program) {
        let (program, fault) = program.reduced(fault, checker::run);
        panic!("{fault}\n{program}");
    }
});
