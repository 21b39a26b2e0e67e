//! The choice of the queue between other threads and the loop (`bench/queues`): the library's
//! inbox, and others, without a loop. So many producers push so many boxed items each; one consumer
//! takes all that is there, uses it, and looks again.
//!
//! Nobody sleeps: a consumer that finds nothing gives its processor to whoever waits for it. With
//! after=1 it begins when the producers have ended, which shows the queue without contention. An
//! item is an allocation of 24 bytes for each queue, except the first, which has the library's own
//! memory for posts, and the last.

/// Functions that the loop alone calls are dead code here.
#[allow(dead_code, unused_imports)]
#[path = "../../../src/threads"]
mod threads {
    pub(crate) mod inbox;
    pub(crate) mod sync;
}

/// The parts of which these are made.
#[allow(dead_code)]
#[path = "../../../src/pending"]
mod pending {
    pub(crate) mod chain;
    pub(crate) mod post_box;
}

#[allow(dead_code)]
#[path = "../../../src/sys"]
mod sys {
    pub(crate) mod memory;
}

/// The one error that these have.
mod error {
    #[derive(Debug)]
    pub(crate) struct Error;

    impl Error {
        pub(crate) const NO_MEMORY: Error = Error;
    }

    pub(crate) type Result<T> = std::result::Result<T, Error>;
}

use std::collections::VecDeque;
use std::mem::take;
use std::ptr::NonNull;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;

use crossbeam_queue::SegQueue;
use pending::chain::{Element, Link, Linked};
use pending::post_box::PostBox;
use ringloop_bench::threads::pin;
use ringloop_bench::*;
use threads::inbox::Inbox;

/// Who pushed an item, and which of his items it is.
#[derive(Clone, Copy)]
struct Ticket {
    producer: usize,
    number: usize,
}

/// What the queues other than the inbox carry: as large as a `Node`, whose link the third number
/// stands for.
type Item = Box<[usize; 3]>;

impl Ticket {
    fn boxed(self) -> Item {
        Box::new([0, self.producer, self.number])
    }
}

#[expect(clippy::boxed_local, reason = "the box is freed here, as for all")]
fn read(item: Item) -> Ticket {
    Ticket { producer: item[1], number: item[2] }
}

/// The same for the inbox, whose items are linked.
struct Node {
    link: Link<Node>,
    ticket: Ticket,
}

// SAFETY: the link is in it.
unsafe impl Linked for Node {
    fn link(&self) -> &Link<Node> {
        &self.link
    }
}

impl Node {
    fn new(ticket: Ticket) -> Node {
        Node { link: Link::new(), ticket }
    }
}

/// What has come: of each producer all, once and in order.
struct Seen {
    next: Vec<usize>,
    count: usize,
}

impl Seen {
    fn see(&mut self, ticket: Ticket) {
        let next = &mut self.next[ticket.producer];
        check(ticket.number == *next, "an item came twice, out of order or not at all");
        *next += 1;
        self.count += 1;
    }
}

/// `push` is what each producer does with an item; `take_all` shows the consumer all that is there.
fn measure(push: impl Fn(Ticket) + Clone + Send, mut take_all: impl FnMut(&mut Seen)) {
    let (n, producers, after) =
        (option("n") as usize, option("producers") as usize, option("after") == 1);
    let (ready, pushed) =
        (Arc::new(Barrier::new(producers + 1)), Arc::new(Barrier::new(producers + 1)));
    let mut seen = Seen { next: vec![0; producers], count: 0 };
    let mut takes = 0;
    pin(1);
    thread::scope(|scope| {
        for producer in 0..producers {
            let (push, ready, pushed) = (push.clone(), ready.clone(), pushed.clone());
            scope.spawn(move || {
                pin(producer % 2);
                ready.wait();
                (0..n).for_each(|number| push(Ticket { producer, number }));
                if after {
                    pushed.wait();
                }
            });
        }
        let measure = Measure::start();
        ready.wait();
        if after {
            pushed.wait();
        }
        while seen.count < n * producers {
            let before = seen.count;
            take_all(&mut seen);
            if seen.count > before {
                takes += 1;
            } else {
                thread::yield_now();
            }
        }
        let used = measure.stop();
        check(seen.next.iter().all(|&next| next == n), "not all items came once");
        used.report_with(seen.count as u64, &[("takes", &takes)]);
    });
}

/// `pack` makes a node of a ticket, which `unpack` takes out.
fn inbox_of(pack: fn(Ticket) -> NonNull<Node>, unpack: fn(NonNull<Node>) -> Ticket) {
    let inbox = Inbox::new();
    let push = |ticket| {
        // SAFETY: the node is fresh, and stays where it is until it is unpacked.
        let pushed = inbox.push(unsafe { Element::from_raw(pack(ticket)) });
        check(matches!(pushed, Ok(false)), "the inbox is closed or asleep");
    };
    measure(push, |seen| {
        let mut posts = inbox.take();
        while let Some(post) = posts.pop() {
            seen.see(unpack(post.into_raw()));
        }
    });
}

fn inbox() {
    let pack = |ticket| NonNull::from(Box::leak(Box::new(Node::new(ticket))));
    // SAFETY: every post is a boxed node, and this one is out of the list.
    inbox_of(pack, |node| unsafe { Box::from_raw(node.as_ptr()) }.ticket);
}

/// The inbox with the memory that the library takes for posts.
fn post_boxes() {
    let pack = |ticket| PostBox::new(Node::new(ticket)).ok().expect("there is memory").into_raw();
    // SAFETY: every post is a node in such a box, and this one is out of the list.
    inbox_of(pack, |node| unsafe { PostBox::from_raw(node) }.open().ticket);
}

fn seg_queue() {
    let queue: SegQueue<Item> = SegQueue::new();
    measure(
        |ticket| queue.push(ticket.boxed()),
        |seen| {
            while let Some(item) = queue.pop() {
                seen.see(read(item));
            }
        },
    );
}

fn std_mpsc() {
    let (sender, receiver) = mpsc::channel::<Item>();
    measure(
        move |ticket| check(sender.send(ticket.boxed()).is_ok(), "the receiver is gone"),
        |seen| {
            while let Ok(item) = receiver.try_recv() {
                seen.see(read(item));
            }
        },
    );
}

/// The consumer swaps the queue for the one that it has emptied.
fn mutex() {
    let queue: Mutex<VecDeque<Item>> = Mutex::default();
    let mut emptied = VecDeque::new();
    measure(
        |ticket| queue.lock().expect("nobody panics").push_back(ticket.boxed()),
        |seen| {
            let mut taken = take(&mut emptied);
            std::mem::swap(&mut taken, &mut *queue.lock().expect("nobody panics"));
            taken.drain(..).for_each(|item| seen.see(read(item)));
            emptied = taken;
        },
    );
}

/// No boxes: what an array of values would save.
fn values() {
    let queue: Mutex<Vec<Ticket>> = Mutex::default();
    let mut emptied = Vec::new();
    measure(
        |ticket| queue.lock().expect("nobody panics").push(ticket),
        |seen| {
            let mut taken = take(&mut emptied);
            std::mem::swap(&mut taken, &mut *queue.lock().expect("nobody panics"));
            taken.drain(..).for_each(|ticket| seen.see(ticket));
            emptied = taken;
        },
    );
}

fn main() {
    let cases: &[(&str, fn())] = &[
        ("post-boxes", post_boxes),
        ("inbox", inbox),
        ("segqueue", seg_queue),
        ("mpsc", std_mpsc),
        ("mutex", mutex),
        ("values", values),
    ];
    ringloop_bench::main(cases, &[]);
}
