//! Parts of all servers of the case "echo", as `c/echo.h` for those in C. A server listens on a
//! loopback port, prints the port, and ends when its last connection has been closed.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::task::{Poll, Waker};

use crate::{check, option, threads};

/// The size of a receive: a whole message of 16 KiB.
pub const CHUNK: usize = 16384;
const BACKLOG: libc::c_int = 4096;
/// The longest run, in seconds: the alarm ends a server without a client.
const PATIENCE: u32 = 60;

/// Keeps the process on the first processor that it may use, allows many connections, and sets an
/// alarm that ends the process in a minute.
fn prepare() {
    threads::pin(0);
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

/// Prepares the process, makes a listening socket and prints its port.
pub fn listen() -> TcpListener {
    prepare();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
    // A second `listen` sets the backlog.
    // SAFETY: no memory is involved.
    check(unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) } == 0, "listen");
    let port = listener.local_addr().expect("an address").port();
    println!(r#"{{"port": {port}}}"#);
    std::io::stdout().flush().expect("standard output is open");
    listener
}

/// The open connections.
#[derive(Default)]
pub struct Open {
    connections: Cell<usize>,
    ended: Cell<bool>,
    waiting: Cell<Option<Waker>>,
}

impl Open {
    pub fn opened(&self) {
        self.connections.set(self.connections.get() + 1);
    }

    pub fn closed(&self) {
        self.connections.set(self.connections.get() - 1);
        if self.connections.get() == 0 {
            self.ended.set(true);
            if let Some(waker) = self.waiting.take() {
                waker.wake();
            }
        }
    }

    /// Waits until the last connection has been closed.
    pub async fn none_left(&self) {
        poll_fn(|context| {
            if self.ended.get() {
                return Poll::Ready(());
            }
            self.waiting.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}
