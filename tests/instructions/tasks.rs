//! Workloads for tasks, as workload.c has for callbacks: `task-workload CASE N`. With N = 0 a case
//! does everything except the N operations.

use std::time::Duration;

use ringloop::fs::File;
use ringloop::net::UnixStream;
use ringloop::task::{self, Queue};
use ringloop::{Loop, Result};

/// Each task is started and joined before the next.
async fn spawn(n: u64) -> Result<()> {
    for number in 0..n {
        assert_eq!(task::spawn(async move { number })?.await.unwrap(), number);
    }
    Ok(())
}

/// Many tasks are started, then joined.
async fn spawn_many(n: u64) -> Result<()> {
    let tasks =
        (0..n).map(|number| task::spawn(async move { number })).collect::<Result<Vec<_>>>()?;
    for (task, number) in tasks.into_iter().zip(0..) {
        assert_eq!(task.await.unwrap(), number);
    }
    Ok(())
}

/// One task yields.
async fn yield_often(n: u64) -> Result<()> {
    for _ in 0..n {
        task::yield_now().await;
    }
    Ok(())
}

/// One task sleeps.
async fn sleep(n: u64) -> Result<()> {
    for _ in 0..n {
        task::sleep(Duration::from_millis(1)).await?;
    }
    Ok(())
}

/// A value is sent to another task and back.
async fn queue(n: u64) -> Result<()> {
    let (there, back) = (Queue::new(), Queue::new());
    let (pings, pongs) = (there.clone(), back.clone());
    let other = task::spawn(async move {
        while let Some(value) = pings.pop().await {
            pongs.push(value).unwrap();
        }
    })?;
    for number in 0..n {
        there.push(number).unwrap();
        assert_eq!(back.pop().await, Some(number));
    }
    there.close();
    other.await.unwrap();
    Ok(())
}

/// One task sends a byte, then receives it at the other end.
async fn recv_send(n: u64) -> Result<()> {
    let (mut here, mut there) = UnixStream::pair()?;
    let (mut byte, mut got) = (vec![b'x'], Vec::with_capacity(1));
    for _ in 0..n {
        let sent;
        (sent, byte) = here.write(byte).await;
        assert_eq!(sent?, 1);
        got.clear();
        let received;
        (received, got) = there.read(got).await;
        assert_eq!(received?, 1);
    }
    Ok(())
}

/// One task reads the first byte of the program.
async fn file_read(n: u64) -> Result<()> {
    let file = File::open(std::env::args().next().unwrap()).await?;
    let mut got = Vec::with_capacity(1);
    for _ in 0..n {
        got.clear();
        let read;
        (read, got) = file.read_at(got, 0).await;
        assert_eq!(read?, 1);
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let n = arguments[1].parse().unwrap();
    // With a virtual clock, `task-sleep` does not sleep in the kernel.
    let io = matches!(arguments[0].as_str(), "task-recv-send" | "task-file-read");
    let builder = Loop::builder();
    let lp = if io { builder } else { builder.virtual_time(ringloop::Time::default()) }.build()?;
    // Each case has its own run, so that the future of one case does not make that of another
    // larger.
    match arguments[0].as_str() {
        "task-spawn" => lp.run_until_complete(spawn(n)),
        "task-spawn-many" => lp.run_until_complete(spawn_many(n)),
        "task-yield" => lp.run_until_complete(yield_often(n)),
        "task-sleep" => lp.run_until_complete(sleep(n)),
        "task-queue" => lp.run_until_complete(queue(n)),
        "task-recv-send" => lp.run_until_complete(recv_send(n)),
        "task-file-read" => lp.run_until_complete(file_read(n)),
        other => panic!("{other}: no such case"),
    }?
}
