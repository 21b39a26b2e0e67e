//! Cancelling loses no data: random programs drop receives at random points, and still get exactly
//! the sent data, in order. S13.
//!
//! RINGLOOP_CANCELLING_MS sets the duration of each test, 200 ms by default.
//! RINGLOOP_CANCELLING_SEED makes each test run only this seed.

use std::cell::{Cell, RefCell};
use std::env;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringloop::net::{ReadHalf, TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use ringloop::process::{PipeReader, PipeWriter};
use ringloop::task;

use crate::streams::{poll_once, run};
use crate::trace::{Random, ns};

/// Runs a program with one seed after another until the time of the test is over.
fn with_seeds(program: impl Fn(Rc<Dice>)) {
    struct Seed(u64);
    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with RINGLOOP_CANCELLING_SEED={}", self.0);
            }
        }
    }
    let number =
        |name: &str| env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let try_seed = |seed| {
        let _seed = Seed(seed);
        program(Rc::new(Dice(RefCell::new(Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))))));
    };
    if let Some(seed) = number("RINGLOOP_CANCELLING_SEED") {
        return try_seed(seed);
    }
    let end =
        Instant::now() + Duration::from_millis(number("RINGLOOP_CANCELLING_MS").unwrap_or(200));
    // The seeds differ from those of the previous run.
    let first = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    for seed in first.. {
        try_seed(seed);
        if Instant::now() > end {
            break;
        }
    }
}

struct Dice(RefCell<Random>);

impl Dice {
    fn below(&self, end: u64) -> u64 {
        self.0.borrow_mut().below(end)
    }

    /// Waits for a random time, possibly zero.
    async fn wait(&self) {
        match self.below(6) {
            0 => task::sleep(ns(self.below(200_000))).await.unwrap(),
            1 | 2 => task::yield_now().await,
            3 => {
                for _ in 0..self.below(5) {
                    task::yield_now().await;
                }
            }
            _ => {}
        }
    }

    /// Awaits a future, or drops the future at a random point: before it is complete, or before its
    /// completion has been seen.
    async fn perhaps<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        match self.below(8) {
            0 | 1 => Some(future.await),
            2 => task::timeout(ns(self.below(200_000)), future).await.ok(),
            3 | 4 => {
                for _ in 0..self.below(5) {
                    if let Some(output) = poll_once(future.as_mut()).await {
                        return Some(output);
                    }
                    self.wait().await;
                }
                None
            }
            5 | 6 => {
                let output = poll_once(future.as_mut()).await;
                if output.is_none() {
                    self.wait().await;
                }
                output
            }
            _ => None,
        }
    }
}

/// The byte at a position of the sequence.
fn byte_at(place: usize) -> u8 {
    (place.wrapping_mul(167) ^ (place >> 8)) as u8
}

fn sequence(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(byte_at).collect()
}

/// A value that is lent to a task, and returns when the task has ended, in whichever way.
struct Lent<S>(Rc<Cell<Option<S>>>, Option<S>);

impl<S> Lent<S> {
    fn of(place: &Rc<Cell<Option<S>>>) -> Lent<S> {
        Lent(Rc::clone(place), place.take())
    }

    fn get(&mut self) -> &mut S {
        self.1.as_mut().expect("the value is lent once")
    }
}

impl<S> Drop for Lent<S> {
    fn drop(&mut self) {
        self.0.set(self.1.take());
    }
}

/// A reader whose `read` returns None at the end of the data.
trait Reads: 'static {
    async fn read(&mut self, room: usize) -> Option<Vec<u8>>;
}

fn read_of(result: ringloop::Result<usize>, data: Vec<u8>) -> Option<Vec<u8>> {
    let count = result.expect("the read succeeds");
    assert_eq!(count, data.len());
    (count > 0).then_some(data)
}

impl Reads for ReadHalf {
    async fn read(&mut self, room: usize) -> Option<Vec<u8>> {
        let (result, data) = ReadHalf::read(self, Vec::with_capacity(room)).await;
        read_of(result, data)
    }
}

impl Reads for PipeReader {
    async fn read(&mut self, room: usize) -> Option<Vec<u8>> {
        let (result, data) = PipeReader::read(self, Vec::with_capacity(room)).await;
        read_of(result, data)
    }
}

#[cfg(feature = "futures-io")]
impl<S: 'static> Reads for ringloop::compat::Buffered<S> {
    async fn read(&mut self, room: usize) -> Option<Vec<u8>> {
        let mut data = vec![0; room];
        let count =
            futures_util::AsyncReadExt::read(self, &mut data).await.expect("the read succeeds");
        data.truncate(count);
        (count > 0).then_some(data)
    }
}

/// Reads a sequence to its end, and drops some of the reads.
async fn read_sequence(reader: impl Reads, length: usize, dice: &Dice) {
    let place = Rc::new(Cell::new(Some(reader)));
    let mut read = 0;
    loop {
        let room = 1 + dice.below([4, 100, 3000][dice.below(3) as usize]) as usize;
        let mut reader = Lent::of(&place);
        let output = if dice.below(4) == 0 {
            // The task that reads is aborted, unless it ends first.
            let reading = task::spawn(async move { reader.get().read(room).await }).unwrap();
            dice.wait().await;
            reading.abort();
            reading.await.ok()
        } else {
            dice.perhaps(reader.get().read(room)).await
        };
        match output {
            None => {}
            Some(None) => break,
            Some(Some(data)) => {
                assert!(data == sequence(read, data.len()), "wrong data at {read}");
                read += data.len();
            }
        }
    }
    assert_eq!(read, length);
}

/// Writes a sequence in pieces.
async fn write_pieces<E, W>(length: usize, dice: &Dice, mut write: W)
where
    E: std::fmt::Debug,
    W: AsyncFnMut(Vec<u8>) -> Result<(), E>,
{
    let mut written = 0;
    while written < length {
        let piece =
            (1 + dice.below([3, 50, 4000][dice.below(3) as usize]) as usize).min(length - written);
        write(sequence(written, piece)).await.expect("the write succeeds");
        written += piece;
        dice.wait().await;
    }
}

fn some_length(dice: &Dice) -> usize {
    dice.below([20, 500, 30_000][dice.below(3) as usize]) as usize
}

#[test]
fn s45_a_stream_loses_nothing_by_dropped_reads() {
    with_seeds(|dice| {
        run(async {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (reader, length) = (ours.into_split().0, some_length(&dice));
            let (mut writer, inner) = (theirs.into_split().1, Rc::clone(&dice));
            let writing = task::spawn(async move {
                write_pieces(length, &inner, async |piece| writer.write_all(piece).await.0).await;
            })
            .unwrap();
            read_sequence(reader, length, &dice).await;
            writing.await.unwrap();
        });
    });
}

#[test]
fn s45_a_tcp_stream_from_another_thread_loses_nothing_by_dropped_reads() {
    with_seeds(|dice| {
        run(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let (address, length) = (listener.local_addr().unwrap(), some_length(&dice));
            let seed = dice.below(1 << 40);
            let writing = std::thread::spawn(move || {
                use std::io::Write;
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                let (mut random, mut written) = (Random(seed), 0);
                while written < length {
                    let piece = (1 + random.below(2000) as usize).min(length - written);
                    stream.write_all(&sequence(written, piece)).unwrap();
                    written += piece;
                    if random.below(3) == 0 {
                        std::thread::sleep(ns(random.below(50_000)));
                    }
                }
            });
            let stream = TcpStream::from_std(listener.accept().unwrap().0).unwrap();
            read_sequence(stream.into_split().0, length, &dice).await;
            writing.join().unwrap();
        });
    });
}

#[test]
fn s45_a_pipe_loses_nothing_by_dropped_reads() {
    with_seeds(|dice| {
        run(async {
            let (reader, writer) = std::io::pipe().unwrap();
            let (reader, mut writer) =
                (PipeReader::from_std(reader).unwrap(), PipeWriter::from_std(writer).unwrap());
            let (length, inner) = (some_length(&dice), Rc::clone(&dice));
            let writing = task::spawn(async move {
                write_pieces(length, &inner, async |piece| writer.write_all(piece).await.0).await;
            })
            .unwrap();
            read_sequence(reader, length, &dice).await;
            writing.await.unwrap();
        });
    });
}

#[cfg(feature = "futures-io")]
#[test]
fn s45_a_buffered_stream_loses_nothing_by_dropped_reads_and_flushes() {
    use futures_util::AsyncWriteExt;
    use ringloop::compat::Buffered;

    with_seeds(|dice| {
        run(async {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let capacity = |dice: &Dice| 1 + dice.below([3, 1000][dice.below(2) as usize]) as usize;
            let reader = Buffered::from(ours).with_capacity(capacity(&dice));
            let mut writer = Buffered::from(theirs).with_capacity(capacity(&dice));
            let (length, inner) = (some_length(&dice).min(5000), Rc::clone(&dice));
            let writing = task::spawn(async move {
                write_pieces(length, &inner, async |piece| {
                    let mut rest = &piece[..];
                    while !rest.is_empty() {
                        // A write that has not returned success has written nothing.
                        if let Some(written) = inner.perhaps(writer.write(rest)).await {
                            rest = &rest[written?..];
                        }
                    }
                    inner.perhaps(writer.flush()).await.unwrap_or(Ok(()))
                })
                .await;
                writer.close().await.unwrap();
            })
            .unwrap();
            read_sequence(reader, length, &dice).await;
            writing.await.unwrap();
        });
    });
}

#[test]
fn s45_no_datagram_is_lost_by_dropped_receives() {
    with_seeds(|dice| {
        run(async {
            let localhost: SocketAddr = "127.0.0.1:0".parse().unwrap();
            let (ours, theirs) =
                (UdpSocket::bind(localhost).unwrap(), UdpSocket::bind(localhost).unwrap());
            let (to, from) = (ours.local_addr().unwrap(), theirs.local_addr().unwrap());
            let (count, received) = (dice.below(60) as usize, Rc::new(Cell::new(0)));
            let (inner, seen) = (Rc::clone(&dice), Rc::clone(&received));
            let sending = task::spawn(async move {
                for number in 0..count {
                    let (result, _) = theirs.send_to(sequence(number, number % 300), to).await;
                    assert_eq!(result, Ok(number % 300));
                    inner.wait().await;
                    // The socket's buffer in the kernel has space for 20 datagrams.
                    while number > seen.get() + 20 {
                        task::yield_now().await;
                    }
                }
            })
            .unwrap();
            while received.get() < count {
                let number = received.get();
                let data = if dice.below(2) == 0 {
                    dice.perhaps(ours.recv(Vec::with_capacity(300)))
                        .await
                        .map(|(result, data)| (result.unwrap(), data))
                } else {
                    dice.perhaps(ours.recv_from(Vec::with_capacity(300))).await.map(
                        |(result, data)| {
                            let (length, sender) = result.unwrap();
                            assert_eq!(sender, from);
                            (length, data)
                        },
                    )
                };
                if let Some((length, data)) = data {
                    assert_eq!((length, data), (number % 300, sequence(number, number % 300)));
                    received.set(number + 1);
                }
            }
            sending.await.unwrap();
        });
    });
}

#[test]
fn s45_no_connection_is_lost_by_dropped_accepts() {
    with_seeds(|dice| {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let (address, count) = (listener.local_addr().unwrap(), dice.below(20) as usize);
            let (inner, clients) = (Rc::clone(&dice), Rc::new(RefCell::new(Vec::new())));
            let connected = Rc::clone(&clients);
            let connecting = task::spawn(async move {
                for _ in 0..count {
                    let client = TcpStream::connect(address).await.unwrap();
                    connected.borrow_mut().push(client);
                    inner.wait().await;
                }
            })
            .unwrap();
            let mut accepted = Vec::new();
            while accepted.len() < count {
                accepted
                    .extend(dice.perhaps(listener.accept()).await.map(|stream| stream.unwrap()));
            }
            connecting.await.unwrap();
            for (client, server) in clients.borrow().iter().zip(&accepted) {
                assert_eq!(client.local_addr(), server.peer_addr());
            }
        });
    });
}

#[test]
fn s45_no_unix_connection_is_lost_by_aborted_accepts() {
    with_seeds(|dice| {
        run(async {
            use std::os::linux::net::SocketAddrExt;
            // Each name is new: a child that another test has forked may have the previous listener
            // open.
            let name =
                format!("ringloop-cancelling-{}-{}", std::process::id(), dice.below(1 << 40));
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
            let listener = Rc::new(UnixListener::bind_addr(&address).unwrap());
            let count = 1 + dice.below(10) as usize;
            let inner = Rc::clone(&dice);
            let connecting = task::spawn(async move {
                for number in 0..count {
                    let mut client = UnixStream::connect_addr(&address).await.unwrap();
                    client.write_all(vec![number as u8]).await.0.unwrap();
                    inner.wait().await;
                }
            })
            .unwrap();
            let mut numbers = Vec::new();
            while numbers.len() < count {
                let listener = Rc::clone(&listener);
                let accepting = task::spawn(async move { listener.accept().await }).unwrap();
                dice.wait().await;
                accepting.abort();
                if let Ok(stream) = accepting.await {
                    numbers.extend(stream.unwrap().read_exact(Vec::with_capacity(1)).await.1);
                }
            }
            connecting.await.unwrap();
            assert!(numbers.into_iter().eq(0..count as u8));
        });
    });
}
