//! Receives that share few buffers: a connection with data is served while a buffer is free (S13).
//! With RINGLOOP_KERNEL=5.10, the same holds for the polls that replace multishot receives.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringloop::{Buffers, Handle, Loop};

/// The size of a buffer, which one send fills: from 6.12 on, the kernel fills buffers in parts.
const SIZE: usize = 64;

const LONG: Duration = Duration::from_secs(10);

/// Connections to receive from, their peers, and the number of bytes received on each.
struct Server {
    lp: Loop,
    buffers: Buffers,
    peers: Vec<UnixStream>,
    streams: Vec<Rc<UnixStream>>,
    handles: Vec<Handle>,
    received: Rc<RefCell<Vec<usize>>>,
}

impl Server {
    /// `count` connections. Those in `sending` have filled a buffer before all receives begin at
    /// once.
    fn new(buffers: u32, count: usize, sending: impl Fn(usize) -> bool) -> Server {
        let lp = Loop::new().unwrap();
        let buffers = lp.buffers(buffers, SIZE as u32).unwrap();
        let received = Rc::new(RefCell::new(vec![0; count]));
        let (mut peers, mut streams, mut handles) = (Vec::new(), Vec::new(), Vec::new());
        for at in 0..count {
            let (stream, mut peer) = UnixStream::pair().unwrap();
            if sending(at) {
                peer.write_all(&[7; SIZE]).unwrap();
            }
            let (stream, received) = (Rc::new(stream), Rc::clone(&received));
            let note = move |_: &Loop, data: ringloop::Result<&[u8]>| {
                received.borrow_mut()[at] += data.map_or(0, <[u8]>::len);
            };
            handles.push(lp.recv_multi(Rc::clone(&stream), &buffers, note).unwrap());
            peers.push(peer);
            streams.push(stream);
        }
        Server { lp, buffers, peers, streams, handles, received }
    }

    /// Runs until `served` connections have received data. If the loop sleeps for ten seconds, it
    /// has forgotten a connection.
    fn run_until(&self, served: usize) {
        while self.served() < served {
            let begin = Instant::now();
            self.lp.run_once(LONG).unwrap();
            assert!(begin.elapsed() < LONG, "{} were served, and a buffer is free", self.served());
        }
    }

    fn served(&self) -> usize {
        self.received.borrow().iter().filter(|&&bytes| bytes > 0).count()
    }
}

#[test]
fn s13_idle_receives_hold_up_none_that_has_data() {
    // The first four connections take the buffers; all others begin while no buffer is free.
    let server = Server::new(4, 120, |at| !(4..112).contains(&at));
    server.run_until(12);
    // Idle connections are served when data arrives.
    let mut peer = &server.peers[50];
    peer.write_all(&[7; SIZE]).unwrap();
    server.run_until(13);
}

#[test]
fn s13_data_read_by_another_holds_up_none_that_has_data() {
    let server = Server::new(1, 40, |_| true);
    let taken = Rc::new(Cell::new(0));
    // Other code reads from all but the first and the last before a buffer is free again.
    let streams: Vec<_> = server.streams[1..39].to_vec();
    let count = Rc::clone(&taken);
    server
        .lp
        .call_soon(move |_| {
            for stream in streams {
                let mut stream = &*stream;
                stream.set_nonblocking(true).unwrap();
                count.set(count.get() + usize::from(stream.read(&mut [0; SIZE]).is_ok()));
                stream.set_nonblocking(false).unwrap();
            }
        })
        .unwrap();
    server.lp.run_once(LONG).unwrap();
    server.run_until(40 - taken.get());
    assert!(server.received.borrow()[39] > 0);
}

#[test]
fn s12_forgetting_a_receive_leaves_the_buffer_to_the_next() {
    // There is one buffer, for which all other connections wait.
    let server = Rc::new(Server::new(1, 6, |_| true));
    let weak = Rc::downgrade(&server);
    // In the iteration after the first connection was served, its buffer is promised to the next.
    server.lp.run_once(LONG).unwrap();
    assert_eq!(server.served(), 1);
    for at in 1..5 {
        let server = weak.upgrade().unwrap();
        if server.received.borrow()[at] == 0 {
            assert_eq!(server.lp.forget_fd(server.streams[at].as_raw_fd()).unwrap(), 0);
        }
    }
    server.run_until(2);
    assert!(server.received.borrow()[5] > 0);
    for (at, handle) in server.handles.iter().enumerate() {
        assert_eq!(
            server.lp.is_pending(*handle),
            at == 0 || at == 5 || server.received.borrow()[at] > 0
        );
    }
    for &handle in &server.handles {
        let _ = server.lp.cancel(handle);
    }
    server.lp.run().unwrap();
    server.lp.free_buffers(&server.buffers).unwrap();
}

/// The kernel ends a multishot operation when the completion queue is full, and the loop begins the
/// operation again.
#[test]
fn s28_a_small_completion_queue_loses_no_connection_and_no_data() {
    const COUNT: usize = 20;
    const EACH: usize = 2000;
    let lp = Loop::builder().sq_entries(2).cq_entries(2).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let buffers = lp.buffers(16, SIZE as u32).unwrap();
    let (accepted, received) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
    let keep = Rc::clone(&accepted);
    lp.accept_multi(listener, move |_, got| keep.borrow_mut().push(got.unwrap())).unwrap();
    lp.run_once(Duration::ZERO).unwrap();
    let mut peers = Vec::new();
    for _ in 0..COUNT {
        let ((stream, peer), received) = (UnixStream::pair().unwrap(), Rc::clone(&received));
        let note = move |_: &Loop, data: ringloop::Result<&[u8]>| {
            received.set(received.get() + data.unwrap().len());
        };
        lp.recv_multi(stream, &buffers, note).unwrap();
        peers.push(peer);
    }
    let _clients: Vec<TcpStream> =
        (0..COUNT).map(|_| TcpStream::connect(address).unwrap()).collect();
    peers.iter_mut().for_each(|peer| peer.write_all(&[7; EACH]).unwrap());
    while received.get() < COUNT * EACH || accepted.borrow().len() < COUNT {
        lp.run_once(LONG).unwrap();
    }
    assert_eq!((received.get(), accepted.borrow().len()), (COUNT * EACH, COUNT));
    assert!(lp.metrics().overflows > 0);
}
