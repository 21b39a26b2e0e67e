//! Timers run in the order of their deadlines, whatever the order of scheduling; a call without delay runs first.

use std::time::Duration;

use ringloop::{Loop, Result};

fn callback(number: u32) {
    println!("callback {number} invoked");
}

fn main() -> Result<()> {
    let lp = Loop::new()?;
    println!("entering event loop");

    println!("registering callbacks");
    lp.call_later(Duration::from_millis(200), |_| callback(1))?;
    lp.call_later(Duration::from_millis(100), |_| callback(2))?;
    lp.call_soon(|_| callback(3))?;

    lp.call_later(Duration::from_millis(400), |lp| lp.stop().expect("the loop is open"))?;
    let _ = lp.run_forever()?;
    println!("closing event loop");
    Ok(())
}
