//! Timers at points in time. The loop's clock is CLOCK_MONOTONIC, not the time of day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringloop::{Loop, Result, task};

fn callback(number: u32, lp: &Loop) {
    println!("callback {number} invoked at {:.9}", lp.time().as_secs_f64());
}

async fn run(lp: &Loop) -> Result<()> {
    let now = lp.time();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    println!("clock time: {:.9}", wall.as_secs_f64());
    println!("loop time: {:.9}", now.as_secs_f64());

    lp.call_at(now + Duration::from_millis(200), |lp| callback(1, lp))?;
    lp.call_at(now + Duration::from_millis(100), |lp| callback(2, lp))?;
    lp.call_soon(|lp| callback(3, lp))?;

    task::sleep(Duration::from_secs(1)).await
}

fn main() -> Result<()> {
    let lp = Loop::new()?;
    lp.run_until_complete(run(&lp))?
}
