//! The case "echo" with compio on io_uring: a task for each connection, which reads and writes in
//! turn, with one buffer.

use std::rc::Rc;

use compio::BufResult;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::{Runtime, spawn};
use ringloop_bench::echo::{CHUNK, Open, listen};

async fn echo(mut stream: TcpStream, open: Rc<Open>) {
    let mut buffer = Vec::with_capacity(CHUNK);
    loop {
        let BufResult(read, got) = stream.read(buffer).await;
        let Ok(1..) = read else { break };
        let BufResult(written, sent) = stream.write_all(got).await;
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
        spawn(echo(stream, open.clone())).detach();
    }
}

fn serve() {
    let listener = listen();
    Runtime::new().expect("a runtime").block_on(async {
        let open = Rc::new(Open::default());
        spawn(accept_all(TcpListener::from_std(listener).expect("a listener"), open.clone()))
            .detach();
        open.none_left().await;
    });
}

fn main() {
    ringloop_bench::main(&[("echo", serve)], &[]);
}
