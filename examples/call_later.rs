//! Timers run in the order of their deadlines, in any order of scheduling. A call without a delay
//! runs first.

use std::time::Duration;

use ringloop::{Loop, Result, task};

fn callback(number: u32) {
    println!("callback {number} invoked");
}

async fn run(lp: &Loop) -> Result<()> {
    println!("registering callbacks");
    lp.call_later(Duration::from_millis(200), |_| callback(1))?;
    lp.call_later(Duration::from_millis(100), |_| callback(2))?;
    lp.call_soon(|_| callback(3))?;

    task::sleep(Duration::from_millis(400)).await
}

fn main() -> Result<()> {
    let lp = Loop::new()?;
    println!("entering event loop");
    lp.run_until_complete(run(&lp))??;
    println!("closing event loop");
    Ok(())
}
