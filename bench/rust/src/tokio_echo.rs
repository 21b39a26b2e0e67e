//! The case "echo" with tokio's current-thread runtime: a task for each connection, which reads and
//! writes in turn.

use std::rc::Rc;

use ringloop_bench::echo::{CHUNK, Open, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};

async fn echo(mut stream: TcpStream, open: Rc<Open>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(got @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..got]).await.is_err() {
            break;
        }
    }
    open.closed();
}

async fn accept_all(listener: TcpListener, open: Rc<Open>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        open.opened();
        spawn_local(echo(stream, open.clone()));
    }
}

fn serve() {
    let listener = listen();
    listener.set_nonblocking(true).expect("O_NONBLOCK");
    let runtime = Builder::new_current_thread().enable_io().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let open = Rc::new(Open::default());
        spawn_local(accept_all(TcpListener::from_std(listener).expect("a listener"), open.clone()));
        open.none_left().await;
    });
}

fn main() {
    ringloop_bench::main(&[("echo", serve)], &[]);
}
