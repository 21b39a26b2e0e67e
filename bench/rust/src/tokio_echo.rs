//! The case "echo" with tokio's current-thread runtime: a task for each connection, which reads and writes in turn. The
//! same as the servers in C, with `c/echo.h`: it listens on a loopback port, says which, and ends when its last
//! connection has been closed.

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;

use ringloop_bench::{check, option};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

/// The most that a server takes from a connection at once: a whole message of 16 KiB.
const CHUNK: usize = 16384;
const BACKLOG: u32 = 4096;
/// No run takes longer; a server that is left alone ends itself.
const PATIENCE: u32 = 60;

#[derive(Default)]
struct Open {
    connections: Cell<usize>,
    none_left: Notify,
}

/// Keeps the process on the first processor that it may use, lets it have many connections, and ends it in a minute.
fn prepare() {
    // SAFETY: plain data, for which zero is a value.
    let (mut all, mut one): (libc::cpu_set_t, libc::cpu_set_t) = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: `all` is valid for writing, and `size` is its size.
    check(unsafe { libc::sched_getaffinity(0, size, &mut all) } == 0, "sched_getaffinity");
    // SAFETY: reads a set that is initialized, within its bounds.
    let first = (0..libc::CPU_SETSIZE as usize).find(|&cpu| unsafe { libc::CPU_ISSET(cpu, &all) });
    // SAFETY: writes to a set that is initialized, within its bounds.
    unsafe { libc::CPU_SET(first.expect("a processor"), &mut one) };
    // SAFETY: `one` is valid for reading, and `size` is its size.
    check(unsafe { libc::sched_setaffinity(0, size, &one) } == 0, "sched_setaffinity");
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writing.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0, "getrlimit");
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid for reading.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } == 0, "setrlimit");
    check(limit.rlim_cur >= option("connections") + 64, "too few descriptors are allowed");
    // SAFETY: no memory is involved; the default action of SIGALRM ends the process.
    unsafe { libc::alarm(PATIENCE) };
}

fn listen() -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    socket.listen(BACKLOG)
}

async fn echo(mut stream: TcpStream, open: Rc<Open>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(got @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..got]).await.is_err() {
            break;
        }
    }
    open.connections.set(open.connections.get() - 1);
    if open.connections.get() == 0 {
        open.none_left.notify_one();
    }
}

async fn accept_all(listener: TcpListener, open: Rc<Open>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        open.connections.set(open.connections.get() + 1);
        spawn_local(echo(stream, open.clone()));
    }
}

fn serve() {
    prepare();
    let runtime = Builder::new_current_thread().enable_io().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let listener = listen().expect("a loopback port");
        let port = listener.local_addr().expect("an address").port();
        println!(r#"{{"port": {port}}}"#);
        std::io::stdout().flush().expect("standard output is open");
        let open = Rc::new(Open::default());
        spawn_local(accept_all(listener, open.clone()));
        open.none_left.notified().await;
    });
}

fn main() {
    ringloop_bench::main(&[("echo", serve)], &[]);
}
