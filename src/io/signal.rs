//! Signals for tasks. Signals that arrive while one is pending are merged.
//!
//! ```
//! use ringloop::{Loop, signal::signal, task};
//!
//! let lp = Loop::new()?;
//! lp.run_until_complete(async {
//!     let mut hangups = signal(libc::SIGHUP)?;
//!     let waiting = task::spawn(async move { hangups.next().await })?;
//!     // SAFETY: the signal is handled.
//!     unsafe { libc::raise(libc::SIGHUP) };
//!     waiting.await.expect("it does not panic")
//! })??;
//! # Ok::<(), ringloop::Error>(())
//! ```

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::abi::handle::Handle;
use crate::error::{Error, Result};
use crate::event_loop::{Loop, Shared};
use crate::sys::memory::TryArc;
use crate::task::{Receiver, cancel, oneshot};

/// Waits for a signal repeatedly; made by [`signal`]. The signal is handled as long as this lives.
pub struct Signals {
    came: Receiver<()>,
    shared: TryArc<Shared>,
    handle: Handle,
}

/// Begins to handle a signal (for example SIGTERM) on the running loop, as
/// [`add_signal_handler`](Loop::add_signal_handler). Errors: those of that function, and EINVAL
/// when no loop is running on this thread.
pub fn signal(number: i32) -> Result<Signals> {
    Loop::with_running(|lp| {
        let lp = lp.ok_or(Error::NO_LOOP)?;
        let (sender, came) = oneshot()?;
        let handle = lp.add_signal_handler(number, move |_| sender.offer(()))?;
        Ok(Signals { came, shared: lp.shared().clone(), handle })
    })
}

impl Signals {
    /// Waits for the signal. A signal between two calls is not lost; several are merged into one,
    /// as in the loop.
    ///
    /// Cancel-safe. Errors: ECANCELED when the loop is shut down.
    pub async fn next(&mut self) -> Result<()> {
        poll_fn(|context| self.poll_signal(context)).await
    }

    fn poll_signal(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.came).poll(context).map_err(|_| Error::CANCELLED)
    }
}

/// The stream ends with the loop.
#[cfg(feature = "futures-core")]
impl futures_core::Stream for Signals {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<()>> {
        self.poll_signal(context).map(Result::ok)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // The handle is stale when the loop has been shut down.
        cancel(&self.shared, self.handle);
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("handle", &self.handle).finish_non_exhaustive()
    }
}
