//! The case "echo" with monoio on io_uring: a task for each connection, which reads and writes in
//! turn, with one buffer.

use std::rc::Rc;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder, spawn};
use ringloop_bench::echo::{CHUNK, Open, listen};

async fn echo(mut stream: TcpStream, open: Rc<Open>) {
    let mut buffer = Vec::with_capacity(CHUNK);
    loop {
        let (read, got) = stream.read(buffer).await;
        let Ok(1..) = read else { break };
        let (written, sent) = stream.write_all(got).await;
        if written.is_err() {
            break;
        }
        buffer = sent;
        buffer.clear();
    }
    open.closed();
}

async fn accept_all(listener: TcpListener, open: Rc<Open>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        open.opened();
        spawn(echo(stream, open.clone()));
    }
}

fn serve() {
    let listener = listen();
    let mut runtime =
        RuntimeBuilder::<IoUringDriver>::new().enable_timer().build().expect("a runtime");
    runtime.block_on(async {
        let open = Rc::new(Open::default());
        spawn(accept_all(TcpListener::from_std(listener).expect("a listener"), open.clone()));
        open.none_left().await;
    });
}

fn main() {
    ringloop_bench::main(&[("echo", serve)], &[]);
}
