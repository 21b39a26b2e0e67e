//! The cases with tasks, with monoio on io_uring. Its timers count in milliseconds.

use monoio::task::JoinHandle;
use monoio::time::{Instant, sleep_until};
use monoio::{IoUringDriver, RuntimeBuilder, spawn};
use ringloop_bench::tasks::{Peer, Yield, cases};

struct Monoio;

impl Peer for Monoio {
    type Handle = JoinHandle<u64>;
    type Time = Instant;

    fn run(task: impl Future<Output = u64> + 'static) {
        let mut runtime =
            RuntimeBuilder::<IoUringDriver>::new().enable_timer().build().expect("a runtime");
        runtime.block_on(async { spawn(task).await });
    }

    fn spawn(task: impl Future<Output = u64> + 'static) -> JoinHandle<u64> {
        spawn(task)
    }

    fn number(joined: u64) -> u64 {
        joined
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
    ringloop_bench::main(&cases::<Monoio>(), &[]);
}
