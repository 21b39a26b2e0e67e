//! What the servers of the case "echo" share, as `c/echo.h` for those in C: a server listens on a
//! loopback port, says which, and ends when its last connection has been closed.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::task::{Poll, Waker};

use crate::{check, option, threads};

/// The most that a server takes from a connection at once: a whole message of 16 KiB.
pub const CHUNK: usize = 16384;
const BACKLOG: libc::c_int = 4096;
/// No run takes longer; a server that is left alone ends itself.
const PATIENCE: u32 = 60;

/// Keeps the process on the first processor that it may use, lets it have many connections, and
/// ends it in a minute.
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

/// The beginning of every server: a listening socket, whose port has been printed.
pub fn listen() -> TcpListener {
    prepare();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
    // Again, with a backlog of its own.
    // SAFETY: no memory is involved.
    check(unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) } == 0, "listen");
    let port = listener.local_addr().expect("an address").port();
    println!(r#"{{"port": {port}}}"#);
    std::io::stdout().flush().expect("standard output is open");
    listener
}

/// The connections that are open.
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

    /// Waits until the last one has been closed.
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
