//! The case "echo" with ringloop's tasks: a task for each connection, which reads and writes in
//! turn, with one buffer. The server in C, `c/ringloop_echo.c`, has callbacks and shared buffers.

use std::rc::Rc;

use ringloop::net::{TcpListener, TcpStream};
use ringloop::{Loop, task};
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
        let stream = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        open.opened();
        drop(task::spawn(echo(stream, open.clone())).expect("a task"));
    }
}

fn serve() {
    let listener = listen();
    let lp = Loop::builder().build().expect("a loop");
    lp.run_until_complete(async {
        let open = Rc::new(Open::default());
        let accepting =
            accept_all(TcpListener::from_std(listener).expect("a listener"), open.clone());
        drop(task::spawn(accepting).expect("a task"));
        open.none_left().await;
    })
    .expect("a run");
}

fn main() {
    ringloop_bench::main(&[("echo", serve)], &[]);
}
