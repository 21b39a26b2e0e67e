//! Measures callbacks: reports slow ones (S34), and writes each to the trace.
//!
//! While a handler, the debug mode or a trace is on, a callback costs one reading of the clock;
//! otherwise nothing. Time between two callbacks, asleep or in a report, counts for neither.

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
    /// The handler's limit; `OFF` without a handler.
    limit: Cell<u64>,
    pub(super) handler: Handler<SlowHandler>,
    /// Whether `RINGLOOP_DEBUG=1` was set when the loop was made, which prints slow callbacks.
    pub(super) debug: bool,
    /// The destination of trace events.
    pub(super) trace: Option<Trace>,
    /// Whether the handler, the debug mode or the trace is on.
    is_on: Cell<bool>,
    /// The clock at the end of the last callback; `UNKNOWN` after other activity.
    since: Cell<u64>,
}

/// Data about the running callback, copied before it runs, because it may be gone afterwards.
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

    /// Discards the time that has passed outside callbacks.
    #[inline]
    pub(super) fn restart(&self) {
        self.since.set(UNKNOWN);
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.is_on.get()
    }

    /// Called when a callback begins.
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

    /// Called when the callback has returned; reports a slow one.
    pub(super) fn end(&self, lp: &Loop, watched: Watched) {
        let now = time::monotonic();
        self.since.set(now);
        if let Some(trace) = self.trace {
            trace.callback(watched.kind, watched.source, watched.since, now, watched.late);
            // The time for writing the trace must not count for the next callback.
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
    /// Calls `handler` after every callback that ran for `limit` or longer, with its duration and
    /// its source (S34). Replaces an earlier handler. A zero limit is equivalent to
    /// [`clear_slow_callback`](Loop::clear_slow_callback).
    ///
    /// While set, costs one reading of the clock, about 25 ns, for each callback. Durations are
    /// measured on CLOCK_MONOTONIC, also with a virtual clock. Errors: ESHUTDOWN, ENOMEM.
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

    /// Ends the reports of [`set_slow_callback`](Loop::set_slow_callback). Errors: ESHUTDOWN.
    pub fn clear_slow_callback(&self) -> Result<()> {
        self.check()?;
        self.slow.set_limit(OFF);
        self.slow.handler.set(None);
        Ok(())
    }
}
