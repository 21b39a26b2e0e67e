//! Coroutines: futures that a loop runs beside its callbacks.
//!
//! A *task* is a future that the loop polls.
//! [`Loop::run_until_complete`](crate::Loop::run_until_complete) runs the loop until a future is
//! complete, [`spawn`] starts tasks beside it, [`sleep`] and others wait. A woken task is appended
//! to the ready queue, in one order with callbacks, timers and completions (S6), and is polled in a
//! later iteration (S7): a task that always wakes itself starves no other.
//!
//! ```
//! use std::time::Duration;
//! use ringloop::{Loop, task};
//!
//! let lp = Loop::new()?;
//! let sum = lp.run_until_complete(async {
//!     let slow = task::spawn(async {
//!         task::sleep(Duration::from_millis(20)).await?;
//!         ringloop::Result::Ok(40)
//!     })?;
//!     let quick = task::spawn(async { 2 })?;
//!     let slow = slow.await.expect("it was not aborted")?;
//!     ringloop::Result::Ok(slow + quick.await.expect("nor this"))
//! })??;
//! assert_eq!(sum, 42);
//! # Ok::<(), ringloop::Error>(())
//! ```
//!
//! Tasks belong to the loop's thread: they need not be `Send`, and running or waking them there
//! takes no lock. Their wakers are for any thread, and may outlive the loop. A task costs one
//! allocation, which includes its future.
//!
//! # Ends
//!
//! A task ends by itself, by a panic, by [`JoinHandle::abort`], or with its loop; in each case its
//! future is dropped on the loop's thread. The join handle returns a panic. If it has been dropped,
//! the panic goes to the exception handler. The loop continues in any case (S41). A task that has
//! not ended keeps [`Loop::run`](crate::Loop::run) alive (S19).

/// Implements Debug for a type with its name and some of its methods, without bounds on its
/// parameters.
macro_rules! debug {
    ($Type:ident $(<$($Of:ident),*>)? $(, $method:ident)*) => {
        impl$(<$($Of),*>)? std::fmt::Debug for $Type$(<$($Of),*>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($Type))
                    $(.field(stringify!($method), &self.$method()))*
                    .finish_non_exhaustive()
            }
        }
    };
}

#[allow(unsafe_code)]
mod body;
pub(crate) mod current;
mod error;
mod group;
#[allow(unsafe_code)]
mod header;
mod oneshot;
mod operation;
mod queue;
mod run;
mod sleep;
mod state;
#[cfg(all(test, loom))]
mod tests;

use std::future::poll_fn;
use std::task::Poll;

pub use self::body::JoinHandle;
pub(crate) use self::current::cancel;
pub use self::error::JoinError;
pub use self::group::{GroupError, Spawner, TaskGroup};
pub(crate) use self::header::{Notify, Waiter};
pub use self::oneshot::{Receiver, Sender, oneshot};
pub use self::operation::{Blocking, Operation, operation, ready, spawn_blocking};
pub use self::queue::{Pop, Queue};
pub use self::run::spawn;
#[cfg(feature = "hyper")]
pub(crate) use self::sleep::now;
pub use self::sleep::{Interval, Sleep, interval, sleep, sleep_until, timeout};

/// Completes in the next iteration of the loop, after everything that is ready now.
pub async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if has_yielded {
            return Poll::Ready(());
        }
        has_yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
