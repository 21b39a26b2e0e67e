//! The cases with tasks: "task-spawn", "task-yield", "task-sleep", "task-channel"; the same for all
//! systems. The measured work is in a task, as in a program: the future that a runtime blocks on is
//! a special case in most runtimes.

use std::ops::Add;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};

use crate::{Measure, Random, check, option};

/// A runtime. Each of its tasks returns a number.
pub trait Peer: 'static {
    type Handle: Future + 'static;
    type Time: Add<Duration, Output = Self::Time> + Copy + 'static;
    /// Runs a task, and the tasks that it starts, to the end, on a new runtime.
    fn run(task: impl Future<Output = u64> + 'static);
    fn spawn(task: impl Future<Output = u64> + 'static) -> Self::Handle;
    /// The number that a joined task has returned.
    fn number(joined: <Self::Handle as Future>::Output) -> u64;
    fn yield_now() -> impl Future<Output = ()>;
    fn now() -> Self::Time;
    fn sleep_until(when: Self::Time) -> impl Future<Output = ()>;
}

/// A yield, for runtimes without one: the first poll wakes the task.
#[derive(Default)]
pub struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// An unbounded channel.
pub trait Channel: 'static {
    type Sender: 'static;
    type Receiver: 'static;
    fn new() -> (Self::Sender, Self::Receiver);
    fn send(sender: &Self::Sender, number: u64);
    fn receive(receiver: &mut Self::Receiver) -> impl Future<Output = u64>;
}

/// A channel that all systems can use.
pub struct Common;

impl Channel for Common {
    type Sender = UnboundedSender<u64>;
    type Receiver = UnboundedReceiver<u64>;

    fn new() -> (Self::Sender, Self::Receiver) {
        unbounded()
    }

    fn send(sender: &Self::Sender, number: u64) {
        check(sender.unbounded_send(number).is_ok(), "a channel is closed");
    }

    async fn receive(receiver: &mut Self::Receiver) -> u64 {
        receiver.recv().await.expect("a sender is left")
    }
}

/// The four cases for a runtime.
pub fn cases<P: Peer>() -> [(&'static str, fn()); 4] {
    [
        ("task-spawn", spawn::<P>),
        ("task-yield", yields::<P>),
        ("task-sleep", sleep::<P>),
        ("task-channel", channel::<P, Common>),
    ]
}

/// The sum of the numbers that the tasks return.
async fn join_all<P: Peer>(handles: Vec<P::Handle>) -> u64 {
    let mut sum = 0;
    for handle in handles {
        sum += P::number(handle.await);
    }
    sum
}

fn spawn<P: Peer>() {
    let (wanted, each) = (option("n"), option("each") == 1);
    P::run(async move {
        let measure = Measure::start();
        let mut sum = 0;
        if each {
            for number in 0..wanted {
                sum += P::number(P::spawn(async move { number }).await);
            }
        } else {
            sum =
                join_all::<P>((0..wanted).map(|number| P::spawn(async move { number })).collect())
                    .await;
        }
        let used = measure.stop();
        check(sum == wanted * (wanted - 1) / 2, "not all tasks ran");
        used.report(wanted);
        sum
    });
}

async fn yield_often<P: Peer>(wanted: u64) -> u64 {
    let mut returned = 0;
    while returned < wanted {
        P::yield_now().await;
        returned += 1;
    }
    returned
}

fn yields<P: Peer>() {
    let (wanted, tasks) = (option("n"), option("tasks"));
    P::run(async move {
        let measure = Measure::start();
        let handles = (0..tasks).map(|_| P::spawn(yield_often::<P>(wanted / tasks)));
        let sum = join_all::<P>(handles.collect()).await;
        let used = measure.stop();
        check(sum == wanted, "not all yields returned");
        used.report(wanted);
        sum
    });
}

fn sleep<P: Peer>() {
    let (wanted, span, whole, mut random) =
        (option("n"), option("span_ms"), option("whole") == 1, Random::new());
    P::run(async move {
        let measure = Measure::start();
        let base = P::now();
        let handles = (0..wanted).map(|number| {
            let when = base + random.delay(span, whole);
            P::spawn(async move {
                P::sleep_until(when).await;
                number
            })
        });
        let sum = join_all::<P>(handles.collect()).await;
        let used = measure.stop();
        check(sum == wanted * (wanted - 1) / 2, "not all tasks woke");
        used.report(wanted);
        sum
    });
}

/// Numbers go through a channel of type `C` to the other task, and back through another channel.
pub fn channel<P: Peer, C: Channel>() {
    let rounds = option("n");
    P::run(async move {
        let (ping, mut pings) = C::new();
        let (pong, mut pongs) = C::new();
        let measure = Measure::start();
        let there = P::spawn(async move {
            for round in 0..rounds {
                check(
                    C::receive(&mut pings).await == round,
                    "a ping came twice, out of order or not at all",
                );
                C::send(&pong, round);
            }
            rounds
        });
        let here = P::spawn(async move {
            for round in 0..rounds {
                C::send(&ping, round);
                check(
                    C::receive(&mut pongs).await == round,
                    "a pong came twice, out of order or not at all",
                );
            }
            rounds
        });
        let sum = join_all::<P>(vec![there, here]).await;
        let used = measure.stop();
        check(sum == 2 * rounds, "not all rounds were played");
        used.report(rounds);
        sum
    });
}
