//! The cases with tasks, with tokio's current-thread runtime and local tasks, which need not be
//! `Send`.

use ringloop_bench::option;
use ringloop_bench::tasks::{Channel, Peer, cases, channel};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinError, JoinHandle, LocalSet, spawn_local, yield_now};
use tokio::time::{Instant, sleep_until};

struct Tokio;

impl Peer for Tokio {
    type Handle = JoinHandle<u64>;
    type Time = Instant;

    fn run(task: impl Future<Output = u64> + 'static) {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async { Tokio::number(spawn_local(task).await) });
    }

    fn spawn(task: impl Future<Output = u64> + 'static) -> JoinHandle<u64> {
        spawn_local(task)
    }

    fn number(joined: Result<u64, JoinError>) -> u64 {
        joined.expect("a task ends")
    }

    fn yield_now() -> impl Future<Output = ()> {
        yield_now()
    }

    fn now() -> Instant {
        Instant::now()
    }

    fn sleep_until(when: Instant) -> impl Future<Output = ()> {
        sleep_until(when)
    }
}

/// own=1: tokio's channel.
struct Own;

impl Channel for Own {
    type Sender = UnboundedSender<u64>;
    type Receiver = UnboundedReceiver<u64>;

    fn new() -> (Self::Sender, Self::Receiver) {
        unbounded_channel()
    }

    fn send(sender: &Self::Sender, number: u64) {
        sender.send(number).expect("a receiver is left");
    }

    async fn receive(receiver: &mut Self::Receiver) -> u64 {
        receiver.recv().await.expect("a sender is left")
    }
}

fn main() {
    if option("own") == 1 {
        ringloop_bench::main(&[("task-channel", channel::<Tokio, Own>)], &[]);
    } else {
        ringloop_bench::main(&cases::<Tokio>(), &[]);
    }
}
