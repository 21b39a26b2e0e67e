//! The cases in which other threads post to a loop: "posts", "post-latency", "token", as in
//! `c/threads.h`.

use std::cell::{Cell, UnsafeCell};
use std::mem::zeroed;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::Duration;

use crate::{Measure, Random, check, clock, option};

/// The part of a loop for other threads.
pub trait Remote: Clone + Send + Sync + 'static {
    /// Posts a callback.
    fn post(&self, callback: impl FnOnce() + Send + 'static);
    /// Stops the loop, from one of its callbacks.
    fn stop(&self);
}

/// A loop.
pub trait Peer: 'static {
    type Remote: Remote;
    /// Makes a loop for the calling thread.
    fn new() -> (Self, Self::Remote)
    where
        Self: Sized;
    /// Runs the loop until it is stopped.
    fn run(&mut self);
}

/// The three cases for a kind of loop.
pub fn cases<P: Peer>() -> [(&'static str, fn()); 3] {
    [("posts", posts::<P>), ("post-latency", post_latency::<P>), ("token", token::<P>)]
}

/// Keeps the calling thread on the first or the second processor that the process may use, 0 or 1.
pub fn pin(which: usize) {
    // The main thread calls first, before other threads exist.
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    const SIZE: usize = size_of::<libc::cpu_set_t>();
    // SAFETY: plain data, for which zero is a valid value.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    let allowed = ALLOWED.get_or_init(|| {
        // SAFETY: `set` is valid for writing, and has `SIZE` bytes.
        check(
            unsafe { libc::sched_getaffinity(0, SIZE, &mut set) } == 0,
            "which processors are there?",
        );
        // SAFETY: the numbers are less than the size of the set.
        (0..8 * SIZE).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
    });
    check(allowed.len() >= 2, "needs two processors");
    // SAFETY: plain data, for which zero is a valid value.
    set = unsafe { zeroed() };
    // SAFETY: the number is less than the size of the set.
    unsafe { libc::CPU_SET(allowed[which], &mut set) };
    // SAFETY: `set` is valid, and has `SIZE` bytes.
    check(unsafe { libc::sched_setaffinity(0, SIZE, &set) } == 0, "cannot pin a thread");
}

/// The same semaphore as in the C programs.
struct Semaphore(UnsafeCell<libc::sem_t>);

// SAFETY: several threads may use a semaphore.
unsafe impl Sync for Semaphore {}

impl Semaphore {
    const fn new() -> Semaphore {
        // SAFETY: plain data, which `init` initialises.
        Semaphore(UnsafeCell::new(unsafe { zeroed() }))
    }

    fn init(&self) {
        // SAFETY: the semaphore is in a static, so it does not move, and it is not in use yet.
        unsafe { libc::sem_init(self.0.get(), 0, 0) };
    }

    fn raise(&self) {
        // SAFETY: the semaphore is initialised.
        unsafe { libc::sem_post(self.0.get()) };
    }

    fn wait(&self) {
        // SAFETY: the semaphore is initialised.
        while unsafe { libc::sem_wait(self.0.get()) } != 0 {}
    }
}

// ---- posts ----

const MOST_POSTERS: usize = 64;

/// Only the loop uses the numbers: the posts that have run, and the posts at the end of the batch.
#[repr(align(64))]
struct Poster {
    ran: AtomicU64,
    due: AtomicU64,
    batch_ran: Semaphore,
}

static POSTERS: [Poster; MOST_POSTERS] = [const {
    Poster { ran: AtomicU64::new(0), due: AtomicU64::new(0), batch_ran: Semaphore::new() }
}; MOST_POSTERS];
static N: AtomicU64 = AtomicU64::new(0);
static SIZE: AtomicU64 = AtomicU64::new(0);
static LEFT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Stops the loop of this thread.
    static STOP: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
}

fn stop_this(remote: &impl Remote) {
    let remote = remote.clone();
    STOP.set(Some(Box::new(move || remote.stop())));
}

fn stop() {
    STOP.take().expect("a loop runs here and has not been stopped")();
}

fn batch_end(begin: u64) -> u64 {
    (begin + SIZE.load(Relaxed)).min(N.load(Relaxed))
}

/// The ticket holds the poster and the number of the post. Each post must run once, in the order of
/// its poster.
fn ran(ticket: u64) {
    let poster = &POSTERS[ticket as usize % MOST_POSTERS];
    let ran = poster.ran.load(Relaxed);
    check(ticket / MOST_POSTERS as u64 == ran, "a post ran twice, out of order or not at all");
    poster.ran.store(ran + 1, Relaxed);
    if ran + 1 == poster.due.load(Relaxed) {
        batch_ran(poster, ran + 1);
    }
}

fn batch_ran(poster: &Poster, ran: u64) {
    poster.due.store(batch_end(ran), Relaxed);
    if ran == N.load(Relaxed) && LEFT.fetch_sub(1, Relaxed) == 1 {
        stop();
    }
    poster.batch_ran.raise();
}

fn post_all(who: usize, remote: &impl Remote) {
    let (n, mut i) = (N.load(Relaxed), 0);
    while i < n {
        let end = batch_end(i);
        for number in i..end {
            let ticket = number * MOST_POSTERS as u64 + who as u64;
            remote.post(move || ran(ticket));
        }
        i = end;
        POSTERS[who].batch_ran.wait();
    }
}

fn posts<P: Peer>() {
    let (n, threads) = (option("n"), option("threads") as usize);
    check(
        n > 0 && option("batch") > 0 && (1..=MOST_POSTERS).contains(&threads),
        "n, batch, threads",
    );
    N.store(n, Relaxed);
    SIZE.store(option("batch"), Relaxed);
    LEFT.store(threads as u64, Relaxed);
    pin(1);
    let (mut peer, remote) = P::new();
    stop_this(&remote);
    let ready = Arc::new(Barrier::new(threads + 1));
    let posters: Vec<_> = (0..threads)
        .map(|who| {
            POSTERS[who].due.store(batch_end(0), Relaxed);
            POSTERS[who].batch_ran.init();
            let (ready, remote) = (ready.clone(), remote.clone());
            thread::spawn(move || {
                pin(who % 2);
                ready.wait();
                post_all(who, &remote);
            })
        })
        .collect();
    let measure = Measure::start();
    ready.wait();
    peer.run();
    let used = measure.stop();
    posters.into_iter().for_each(|poster| poster.join().expect("a poster ends"));
    POSTERS[..threads]
        .iter()
        .for_each(|poster| check(poster.ran.load(Relaxed) == n, "not all posts ran"));
    used.report(n * threads as u64);
}

// ---- post-latency ----

static SEEN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static LATE: Cell<Vec<u64>> = const { Cell::new(Vec::new()) };
}

fn now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

fn latency_ran(posted: u64, wanted: u64) {
    let late = now() - posted;
    let mut all = LATE.take();
    all.push(late);
    let seen = all.len() as u64;
    LATE.set(all);
    SEEN.store(seen, Release);
    if seen == wanted {
        stop();
    }
}

fn post_latency<P: Peer>() {
    let n = option("n");
    pin(1);
    let (mut peer, remote) = P::new();
    stop_this(&remote);
    LATE.set(Vec::with_capacity(n as usize));
    let ready = Arc::new(Barrier::new(2));
    let poster = {
        let ready = ready.clone();
        thread::spawn(move || {
            pin(0);
            ready.wait();
            let mut random = Random::new();
            for i in 0..n {
                let mut pause =
                    || thread::sleep(Duration::from_nanos(200_000 + random.below(800_000)));
                pause();
                // Pauses again if the loop has not run the last post yet.
                while SEEN.load(Acquire) < i {
                    pause();
                }
                let posted = now();
                remote.post(move || latency_ran(posted, n));
            }
        })
    };
    let measure = Measure::start();
    ready.wait();
    peer.run();
    let used = measure.stop();
    poster.join().expect("the poster ends");
    let late = LATE.take();
    check(late.len() as u64 == n, "not all posts ran once");
    used.report_late(late, 0);
}

// ---- token ----

static HOPS: AtomicU64 = AtomicU64::new(0);

/// Arguments: the number of the hop, the loop that runs it, and the other loop.
fn hop<R: Remote>(number: u64, here: &'static R, there: &'static R) {
    check(number == HOPS.load(Relaxed), "a post ran twice or not at all");
    HOPS.store(number + 1, Relaxed);
    if number + 1 < N.load(Relaxed) {
        there.post(move || hop(number + 1, there, here));
    } else {
        there.post(|| there.stop());
        here.stop();
    }
}

fn token<P: Peer>() {
    N.store(option("n"), Relaxed);
    pin(1);
    let (mut peer, remote) = P::new();
    let here: &'static P::Remote = Box::leak(Box::new(remote));
    let ready = Arc::new(Barrier::new(2));
    let (send, receive) = std::sync::mpsc::channel::<&'static P::Remote>();
    let other = {
        let ready = ready.clone();
        thread::spawn(move || {
            pin(0);
            let (mut peer, remote) = P::new();
            send.send(Box::leak(Box::new(remote))).expect("the main thread waits");
            ready.wait();
            peer.run();
        })
    };
    let there = receive.recv().expect("the other loop is made");
    ready.wait();
    let measure = Measure::start();
    here.post(move || hop(0, here, there));
    peer.run();
    let used = measure.stop();
    other.join().expect("the other loop ends");
    check(HOPS.load(Relaxed) == option("n"), "not all posts ran");
    used.report(option("n"));
}
