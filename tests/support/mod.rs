//! Shared by the test programs: loops that cannot hang a test.
//!
//! A loop that never wakes up would hang its test forever. Each loop made here is watched: a loop
//! that lives longer than [`PATIENCE`] ends the whole program with the name of its test.

#![allow(dead_code)] // no program uses all items

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, Once, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use ringloop::{CloseError, Loop};

/// The longest life of a loop in a test. Most live a millisecond; the machine may be slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends the program unless this value is dropped in time.
#[derive(Debug)]
pub(crate) struct Watch(Instant);

/// The watched tests, by the unique time at which their patience ends.
static WATCHED: Mutex<BTreeMap<Instant, String>> = Mutex::new(BTreeMap::new());

/// Takes the lock by trying: the standard library waits for a contended lock in code that was built
/// without the thread sanitizer, which then sees a race.
fn watched() -> MutexGuard<'static, BTreeMap<Instant, String>> {
    loop {
        match WATCHED.try_lock() {
            Ok(watched) => return watched,
            Err(TryLockError::Poisoned(watched)) => return watched.into_inner(),
            Err(TryLockError::WouldBlock) => thread::yield_now(),
        }
    }
}

impl Watch {
    pub(crate) fn begin() -> Watch {
        Watch::begin_for(thread::current().name().unwrap_or("a thread without a name").to_owned())
    }

    /// Begins to watch; `what` is named if it hangs.
    pub(crate) fn begin_for(what: String) -> Watch {
        static WATCHDOG: Once = Once::new();
        WATCHDOG.call_once(|| drop(thread::spawn(watch)));
        let mut end = Instant::now() + PATIENCE;
        let mut watched = watched();
        while watched.contains_key(&end) {
            end += Duration::from_nanos(1);
        }
        watched.insert(end, what);
        Watch(end)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        watched().remove(&self.0);
    }
}

fn watch() {
    loop {
        thread::sleep(Duration::from_millis(200));
        let overdue = watched()
            .first_key_value()
            .filter(|(end, _)| **end < Instant::now())
            .map(|(_, name)| name.clone());
        if let Some(name) = overdue {
            // Written directly, because captured output of a test would never be shown.
            let _ = writeln!(std::io::stderr(), "{name}: a loop hangs");
            std::process::abort();
        }
    }
}

/// A loop that is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    lp: Loop,
    watch: Watch,
}

impl Watched {
    pub(crate) fn new(lp: Loop) -> Watched {
        Watched { watch: Watch::begin(), lp }
    }

    pub(crate) fn with(watch: Watch, lp: Loop) -> Watched {
        Watched { watch, lp }
    }

    pub(crate) fn close(self) -> Result<(), Box<CloseError>> {
        let Watched { lp, watch: _watch } = self;
        lp.close().map_err(Box::new)
    }

    /// The loop, no longer watched.
    pub(crate) fn into_inner(self) -> Loop {
        self.lp
    }

    /// The loop in a forked child, where it is not watched: another thread may have held the lock
    /// of `WATCHED` at the fork, and is not there to release it.
    pub(crate) fn in_child(self) -> Loop {
        std::mem::forget(self.watch);
        self.lp
    }
}

impl Deref for Watched {
    type Target = Loop;
    fn deref(&self) -> &Loop {
        &self.lp
    }
}
