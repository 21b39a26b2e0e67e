//! Runs a program with up to three loops, and checks the rules.
//!
//! A program calls the C API and the Rust API in any order, with handles that are live, stale, of
//! another loop, or invalid; so do its callbacks, hooks and release hooks. A model (`order`) knows
//! the next callback and its time. A ledger has the possible events of each thing and the demanded
//! result of each function; all else is a fault. At the end nothing is left: no release is owed,
//! and no post, descriptor or memory remains.

mod api;
mod arrivals;
mod callbacks;
mod calls;
mod descriptors;
mod face;
mod io;
mod language;
mod lifecycle;
mod machine;
mod memory;
mod operations;
mod order;
mod running;
mod seeing;
mod streams;
mod tasks;
mod thing;
mod threads;
mod worker;

use std::cell::Cell;
use std::fs;
use std::ptr;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

pub(crate) use self::language::Program;
use self::machine::Machine;

/// Runs one program at a time, since descriptors are counted for the whole process.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the program, and returns the first rule that was broken.
pub(crate) fn run(program: &Program) -> Result<(), String> {
    let _one = alone();
    warm_up();
    let descriptors = count_descriptors();
    let live = memory::live();
    let worker_live = {
        let machine = Machine::new(program.clone());
        if let Some(fault) = machine.play() {
            return Err(fault);
        }
        machine.worker_live.get()
    };
    let leaked = memory::live() - live + worker_live;
    if leaked != 0 {
        return Err(format!("{leaked} allocations are left"));
    }
    // Each thread that posts has one chunk.
    if memory::chunks() > posting_threads() + memory::SPARE_CHUNKS {
        return Err(format!("{} chunks of posts are left", memory::chunks()));
    }
    match count_descriptors() - descriptors {
        0 => Ok(()),
        left => Err(format!("{left} descriptors are left")),
    }
}

fn count_descriptors() -> isize {
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as isize)
}

/// The number of threads that keep memory for posts: the worker, and those that have run a program.
fn posting_threads() -> i64 {
    static THREADS: AtomicI64 = AtomicI64::new(1);
    thread_local!(static IS_COUNTED: Cell<bool> = const { Cell::new(false) });
    if !IS_COUNTED.replace(true) {
        THREADS.fetch_add(1, Relaxed);
    }
    THREADS.load(Relaxed)
}

/// Makes the allocations that are made once, and once for each thread that makes loops.
fn warm_up() {
    static WARM: Once = Once::new();
    WARM.call_once(worker::start_thread);
    let mut lp = ptr::null_mut();
    assert_eq!(api::loop_new(ptr::null(), &raw mut lp), 0, "a loop can be made");
    let handle = api::loop_add_signal_handler(lp, libc::SIGWINCH, thing::SIGNAL, ptr::null_mut());
    assert!(handle > 0, "a signal can be handled");
    assert_eq!(api::loop_close(lp), 0);
    // A write to a pipe whose reader is closed raises SIGPIPE.
    // SAFETY: no handler is set.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}
