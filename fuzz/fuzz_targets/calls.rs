//! Looks for sequences of calls that reach new code, and break a rule there; see `tests/fuzz`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/fuzz/interpreter/mod.rs"]
mod interpreter;

fuzz_target!(|bytes: &[u8]| {
    if let Err(fault) = interpreter::run(bytes) {
        let (setup, ops) = interpreter::decode(bytes);
        panic!("{fault}\nsetup {setup}, operations: {ops:#?}");
    }
});
