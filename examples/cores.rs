//! A loop for each processor. Each loop gets a piece of work from its neighbour, does its part and
//! posts the piece to the next loop. The loops share no lock and no data except the piece, which
//! belongs to one loop at a time.

use std::cell::{Cell, OnceCell};
use std::error::Error;
use std::thread;

use ringloop::{DetachedLoop, Loop, Remote};

const PIECES: u64 = 8;
const ROUNDS: u64 = 1000;

/// The data of one processor's loop: the remotes of all loops, and the number of handled pieces.
struct Core {
    number: usize,
    all: Vec<Remote>,
    handled: Cell<u64>,
    finished: Cell<u64>,
}

thread_local!(static CORE: OnceCell<Core> = const { OnceCell::new() });

/// Calls `f` with the core of this thread.
fn with_core<R>(f: impl FnOnce(&Core) -> R) -> R {
    CORE.with(|core| f(core.get().expect("every loop's thread has one")))
}

fn handle(core: &Core, hops: u64) {
    core.handled.set(core.handled.get() + 1);
    let count = core.all.len();
    if hops + 1 < ROUNDS * count as u64 {
        let next = &core.all[(core.number + 1) % count];
        let on = move |_: &Loop| with_core(|core| handle(core, hops + 1));
        next.call_soon(on).expect("no loop is closed before all have stopped");
        return;
    }
    // Each piece ends at the last core.
    core.finished.set(core.finished.get() + 1);
    if core.finished.get() == PIECES {
        core.all.iter().for_each(|remote| remote.stop().expect("as above"));
    }
}

fn run(detached: DetachedLoop, number: usize, all: Vec<Remote>) -> Result<u64, ringloop::Error> {
    let lp = detached.adopt()?;
    let core = Core { number, all, handled: Cell::new(0), finished: Cell::new(0) };
    CORE.with(|cell| assert!(cell.set(core).is_ok(), "each thread has one loop"));
    lp.run_forever()?;
    Ok(with_core(|core| core.handled.get()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let count = thread::available_parallelism()?.get().max(2);
    // The main thread makes the loops, where a failure is easy to report. Each loop then belongs to
    // its own thread.
    let loops =
        (0..count).map(|_| Loop::builder().build_detached()).collect::<Result<Vec<_>, _>>()?;
    let all: Vec<_> = loops.iter().map(DetachedLoop::remote).collect();
    for _ in 0..PIECES {
        all[0].call_soon(|_| with_core(|core| handle(core, 0)))?;
    }
    let start = |(number, detached): (usize, DetachedLoop)| {
        let all = all.clone();
        thread::spawn(move || run(detached, number, all))
    };
    let threads: Vec<_> = loops.into_iter().enumerate().map(start).collect();
    let mut handled = 0;
    for thread in threads {
        handled += thread.join().expect("no callback panics")?;
    }
    let is_complete = handled == PIECES * ROUNDS * count as u64;
    println!(
        "{}",
        if is_complete { "every piece went all the way round" } else { "pieces were lost" }
    );
    Ok(())
}
