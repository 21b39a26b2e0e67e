//! The cases with tasks, with compio on io_uring.

use std::time::Instant;

use compio::runtime::time::sleep_until;
use compio::runtime::{JoinError, JoinHandle, Runtime, spawn};
use ringloop_bench::option;
use ringloop_bench::tasks::{Peer, Yield, cases};

struct Compio;

impl Peer for Compio {
    type Handle = JoinHandle<u64>;
    type Time = Instant;

    fn run(task: impl Future<Output = u64> + 'static) {
        let runtime = Runtime::new().expect("a runtime");
        // main=1: not in a task. A task that spawns does not wake the driver, and compio then polls
        // the driver in its slowest way.
        if option("main") == 1 {
            runtime.block_on(task);
        } else {
            runtime.block_on(async { Compio::number(spawn(task).await) });
        }
    }

    fn spawn(task: impl Future<Output = u64> + 'static) -> JoinHandle<u64> {
        spawn(task)
    }

    fn number(joined: Result<u64, JoinError>) -> u64 {
        joined.expect("a task ends")
    }

    fn yield_now() -> impl Future<Output = ()> {
        Yield::default()
    }

    fn now() -> Instant {
        Instant::now()
    }

    fn sleep_until(when: Instant) -> impl Future<Output = ()> {
        sleep_until(when)
    }
}

fn main() {
    ringloop_bench::main(&cases::<Compio>(), &[]);
}
