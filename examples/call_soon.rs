//! Two callbacks run in the order in which they were scheduled, with what they were given.

use std::time::Duration;

use ringloop::{Loop, Result};

fn callback(number: u32, keyword: &str) {
    println!("callback invoked with {number} and {keyword}");
}

fn main() -> Result<()> {
    let lp = Loop::new()?;
    println!("entering event loop");

    println!("registering callbacks");
    lp.call_soon(|_| callback(1, "default"))?;
    lp.call_soon(|_| callback(2, "not default"))?;

    lp.call_later(Duration::from_millis(100), |lp| lp.stop().expect("the loop is open"))?;
    let _ = lp.run_forever()?;
    println!("closing event loop");
    Ok(())
}
