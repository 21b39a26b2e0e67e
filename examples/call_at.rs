//! Timers at points in time: the loop's clock is CLOCK_MONOTONIC, not the clock on the wall.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringloop::{Loop, Result};

fn callback(number: u32, lp: &Loop) {
    println!("callback {number} invoked at {:.9}", lp.time().as_secs_f64());
}

fn main() -> Result<()> {
    let lp = Loop::new()?;
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = lp.time();
    println!("clock time: {:.9}", wall.as_secs_f64());
    println!("loop time: {:.9}", now.as_secs_f64());

    lp.call_at(now + Duration::from_millis(200), |lp| callback(1, lp))?;
    lp.call_at(now + Duration::from_millis(100), |lp| callback(2, lp))?;
    lp.call_soon(|lp| callback(3, lp))?;

    lp.call_later(Duration::from_secs(1), |lp| lp.stop().expect("the loop is open"))?;
    let _ = lp.run_forever()?;
    Ok(())
}
