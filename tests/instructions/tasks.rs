//! As workload.c, for tasks: `task-workload CASE N`. With N = 0 a case does all of it but the N operations.

use std::time::Duration;

use ringloop::task::{self, Queue};
use ringloop::{Loop, Result};

/// A task is started and joined, one after the other.
async fn spawn(n: u64) -> Result<()> {
    for number in 0..n {
        assert_eq!(task::spawn(async move { number })?.await.unwrap(), number);
    }
    Ok(())
}

/// Many tasks are started, then joined.
async fn spawn_many(n: u64) -> Result<()> {
    let tasks = (0..n).map(|number| task::spawn(async move { number })).collect::<Result<Vec<_>>>()?;
    for (task, number) in tasks.into_iter().zip(0..) {
        assert_eq!(task.await.unwrap(), number);
    }
    Ok(())
}

/// One task lets others have their turn.
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

/// A value goes to another task and back.
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

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let n = arguments[1].parse().unwrap();
    // Time is virtual: the kernel's sleep is not what is counted.
    let lp = Loop::builder().virtual_time(ringloop::Time::default()).build()?;
    lp.run_until_complete(async {
        match arguments[0].as_str() {
            "task-spawn" => spawn(n).await,
            "task-spawn-many" => spawn_many(n).await,
            "task-yield" => yield_often(n).await,
            "task-sleep" => sleep(n).await,
            "task-queue" => queue(n).await,
            other => panic!("{other}: no such case"),
        }
    })?
}
