//! The cases with tasks, with ringloop.

use std::time::Duration;

use ringloop::task::{self, JoinError, JoinHandle, Queue};
use ringloop::{Loop, Result, Time};
use ringloop_bench::option;
use ringloop_bench::tasks::{Channel, Peer, cases, channel};

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

/// own=1: ringloop's queue, for one thread.
struct Own;

impl Channel for Own {
    type Sender = Queue<u64>;
    type Receiver = Queue<u64>;

    fn new() -> (Queue<u64>, Queue<u64>) {
        let queue = Queue::new();
        (queue.clone(), queue)
    }

    fn send(queue: &Queue<u64>, number: u64) {
        queue.push(number).expect("it is open");
    }

    async fn receive(queue: &mut Queue<u64>) -> u64 {
        queue.pop().await.expect("it is open")
    }
}

fn main() {
    if option("own") == 1 {
        ringloop_bench::main(&[("task-channel", channel::<Ringloop, Own>)], &[]);
    } else {
        ringloop_bench::main(&cases::<Ringloop>(), &[]);
    }
}
