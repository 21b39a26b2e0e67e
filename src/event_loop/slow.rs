//! The watch over callbacks: reports slow ones (S34), and records each of them in the trace.
//!
//! While a handler, the debug mode or a trace is on, a callback costs one reading of the clock;
//! otherwise nothing. Time that passes between two callbacks, asleep or in a report, counts for
//! neither.

use std::cell::Cell;
use std::time::Duration;

use crate::abi::handle::Kind;
use crate::abi::source::Source;
use crate::error::Result;
use crate::event_loop::handler::Handler;
use crate::event_loop::{Call, Loop};
use crate::observe::inspect::{self, SlowCallback};
use crate::observe::trace::Trace;
use crate::sys::memory::try_box;
use crate::time;

pub(super) struct SlowWatch {
    /// What the handler wants to hear of; `OFF` while there is none.
    limit: Cell<u64>,
    pub(super) handler: Handler<SlowHandler>,
    /// Whether `RINGLOOP_DEBUG=1` was set when the loop was made, which wants to hear of them too.
    pub(super) debug: bool,
    /// Where trace events go.
    pub(super) trace: Option<Trace>,
    /// Whether anybody wants to know.
    is_on: Cell<bool>,
    /// The clock when the last callback ended; `UNKNOWN` when something else has passed time since.
    since: Cell<u64>,
}

/// What is being watched, remembered from before it ran: it may be gone afterwards.
pub(super) struct Watched {
    kind: Kind,
    source: Source,
    since: u64,
    late: Option<u64>,
}

type SlowHandler = dyn FnMut(&Loop, &SlowCallback);

const OFF: u64 = u64::MAX;
const UNKNOWN: u64 = 0;

impl SlowWatch {
    pub(super) fn new(debug: bool, trace: Option<Trace>) -> SlowWatch {
        SlowWatch {
            limit: Cell::new(OFF),
            handler: Handler::default(),
            debug,
            trace,
            is_on: Cell::new(debug || trace.is_some()),
            since: Cell::new(UNKNOWN),
        }
    }

    fn set_limit(&self, limit: u64) {
        self.limit.set(limit);
        self.is_on.set(limit != OFF || self.debug || self.trace.is_some());
        self.restart();
    }

    /// Time has passed that is no callback's.
    #[inline]
    pub(super) fn restart(&self) {
        self.since.set(UNKNOWN);
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.is_on.get()
    }

    /// A callback begins.
    pub(super) fn begin(&self, lp: &Loop, call: &Call) -> Option<Watched> {
        if !self.is_on() {
            return None;
        }
        if self.since.get() == UNKNOWN {
            self.since.set(time::monotonic());
        }
        let late = self.trace.and(call.due).map(|due| lp.clock.now().saturating_sub(due));
        Some(Watched {
            kind: call.kind,
            source: call.callback.source(),
            since: self.since.get(),
            late,
        })
    }

    /// The callback has returned; reports it if it was slow.
    pub(super) fn end(&self, lp: &Loop, watched: Watched) {
        let now = time::monotonic();
        self.since.set(now);
        if let Some(trace) = self.trace {
            trace.callback(watched.kind, watched.source, watched.since, now, watched.late);
            // What that took is not the next callback's.
            self.restart();
        }
        let Watched { kind, source, since, .. } = watched;
        let slow = SlowCallback { kind, source, duration: Duration::from_nanos(now - since) };
        let is_for_debug = self.debug && slow.duration >= inspect::DEBUG_LIMIT;
        let is_for_handler = now - since >= self.limit.get();
        if is_for_debug {
            inspect::print_slow(&slow);
        }
        if is_for_handler {
            self.handler.with(|handler| handler(lp, &slow));
        }
        if is_for_debug || is_for_handler {
            self.restart();
        }
    }
}

impl Loop {
    /// Calls `handler` after every callback that held the loop for `limit` or longer, with its
    /// duration and what it was (S34). Replaces the handler there was. A zero limit is as good as
    /// [`clear_slow_callback`](Loop::clear_slow_callback).
    ///
    /// Costs one reading of the clock, about 25 ns, for each callback while it is set. Durations
    /// are CLOCK_MONOTONIC's, on a virtual clock too. Errors: ESHUTDOWN, ENOMEM.
    pub fn set_slow_callback(
        &self,
        limit: Duration,
        handler: impl FnMut(&Loop, &SlowCallback) + 'static,
    ) -> Result<()> {
        self.check_open()?;
        if limit.is_zero() {
            return self.clear_slow_callback();
        }
        let handler = try_box(handler)?;
        self.slow.set_limit(time::nanos(limit));
        self.slow.handler.set(Some(handler));
        Ok(())
    }

    /// Ends the reports that [`set_slow_callback`](Loop::set_slow_callback) asked for. Errors:
    /// ESHUTDOWN.
    pub fn clear_slow_callback(&self) -> Result<()> {
        self.check()?;
        self.slow.set_limit(OFF);
        self.slow.handler.set(None);
        Ok(())
    }
}
