//! A TCP echo server. One task accepts; a task for each connection sends back the received data.
//!
//!     cargo run --release --example echo [PORT]      on 127.0.0.1; without a port, any that is free
//!
//! SIGINT and SIGTERM end the server.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::select;
use ringloop::net::{TcpListener, TcpStream};
use ringloop::signal::signal;
use ringloop::{Loop, Result, task};

#[derive(Default)]
struct Counts {
    connections: Cell<u64>,
    bytes: Cell<u64>,
}

async fn echo(mut stream: TcpStream, counts: Rc<Counts>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(16384);
    loop {
        let (read, data) = stream.read(buffer).await;
        if read? == 0 {
            return Ok(());
        }
        let (written, mut data) = stream.write_all(data).await;
        written?;
        counts.bytes.set(counts.bytes.get() + data.len() as u64);
        data.clear();
        buffer = data;
    }
}

async fn serve(listener: TcpListener, counts: Rc<Counts>) -> Result<()> {
    loop {
        match listener.accept().await {
            Ok(stream) => {
                counts.connections.set(counts.connections.get() + 1);
                drop(task::spawn(echo(stream, Rc::clone(&counts)))?);
            }
            Err(error) => {
                eprintln!("echo: accept: {error}");
                task::sleep(Duration::from_millis(100)).await?;
            }
        }
    }
}

async fn run(port: u16) -> Result<()> {
    let (mut interrupts, mut terminations) = (signal(libc::SIGINT)?, signal(libc::SIGTERM)?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port).into())?;
    println!("listening on {}", listener.local_addr()?);
    let counts = Rc::new(Counts::default());
    let serving = task::spawn(serve(listener, Rc::clone(&counts)))?;
    select(pin!(interrupts.next()), pin!(terminations.next())).await;
    serving.abort();
    println!("{} connections, {} bytes", counts.connections.get(), counts.bytes.get());
    Ok(())
}

fn main() -> Result<()> {
    let port = std::env::args().nth(1).map_or(0, |port| port.parse().expect("a port is a number"));
    Loop::new()?.run_until_complete(run(port))?
}
