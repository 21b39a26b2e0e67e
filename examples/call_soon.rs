//! Two callbacks run in the order in which they were scheduled, with their arguments.

use std::time::Duration;

use ringloop::{Loop, Result, task};

fn callback(number: u32, keyword: &str) {
    println!("callback invoked with {number} and {keyword}");
}

async fn run(lp: &Loop) -> Result<()> {
    println!("registering callbacks");
    lp.call_soon(|_| callback(1, "default"))?;
    lp.call_soon(|_| callback(2, "not default"))?;

    task::sleep(Duration::from_millis(100)).await
}

fn main() -> Result<()> {
    let lp = Loop::new()?;
    println!("entering event loop");
    lp.run_until_complete(run(&lp))??;
    println!("closing event loop");
    Ok(())
}
