//! The cases with tasks, with ringloop.

use std::time::Duration;

use ringloop::task::{self, JoinError, JoinHandle};
use ringloop::{Loop, Result, Time};
use ringloop_bench::option;
use ringloop_bench::tasks::{Peer, cases};

#[track_caller]
fn must<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

struct Ringloop;

impl Peer for Ringloop {
    type Handle = JoinHandle<u64>;
    type Time = Time;

    fn run(task: impl Future<Output = u64> + 'static) {
        let lp = must(Loop::builder().slack(Duration::from_micros(option("slack_us"))).build());
        must(lp.run_until_complete(async { Ringloop::number(Ringloop::spawn(task).await) }));
    }

    fn spawn(task: impl Future<Output = u64> + 'static) -> JoinHandle<u64> {
        must(task::spawn(task))
    }

    fn number(joined: std::result::Result<u64, JoinError>) -> u64 {
        joined.expect("a task ends")
    }

    fn yield_now() -> impl Future<Output = ()> {
        task::yield_now()
    }

    fn now() -> Time {
        Time::now()
    }

    async fn sleep_until(when: Time) {
        must(task::sleep_until(when).await);
    }
}

fn main() {
    ringloop_bench::main(&cases::<Ringloop>(), &[]);
}
