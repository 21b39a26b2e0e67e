//! Whose a loop is: the thread that may call it and the process it lives in (S25, S29, S33).
//!
//! Threads are told apart by a number that is never used again; an address or a pthread_t comes back with another
//! thread. A list of the threads that own loops tells whether an owner has exited. The check costs two loads and two
//! compares, in every build.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::fork::Process;

/// The owner of one loop.
#[derive(Debug)]
pub(crate) struct Owner {
    process: Process,
    thread: AtomicU64,
}

impl Owner {
    /// The thread and the process that ask.
    pub(crate) fn current() -> Result<Owner> {
        let process = Process::current()?;
        Ok(Owner { process, thread: AtomicU64::new(register_this_thread()?) })
    }

    /// Makes the calling thread the owner.
    pub(crate) fn adopt(&self) -> Result<()> {
        self.thread.store(register_this_thread()?, Relaxed);
        Ok(())
    }

    /// Whether the calling thread may call the loop; if not, EOWNERDEAD or EPERM (S29).
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.process.is_current() && self.thread.load(Relaxed) == THREAD.get() { Ok(()) } else { self.refuse() }
    }

    #[cold]
    fn refuse(&self) -> Result<()> {
        Err(if self.process.is_current() { Error::WRONG_THREAD } else { Error::FORKED })
    }

    /// As `check`, but when the owner has exited, the calling thread takes its place. Allocates nothing.
    pub(crate) fn inherit(&self) -> Result<()> {
        let is_heir = self.process.is_current() && self.thread.load(Relaxed) != THREAD.get() && self.has_exited();
        if is_heir {
            self.thread.store(number_this_thread(), Relaxed);
        }
        self.check()
    }

    pub(crate) fn process(&self) -> Process {
        self.process
    }

    fn has_exited(&self) -> bool {
        !owners().contains(&self.thread.load(Relaxed))
    }
}

static LAST_THREAD: AtomicU64 = AtomicU64::new(0);

/// The numbers of the threads that have made or adopted a loop and have not exited.
static OWNERS: Mutex<Vec<u64>> = Mutex::new(Vec::new());

thread_local! {
    /// This thread's number; 0 before it is given one.
    static THREAD: Cell<u64> = const { Cell::new(0) };
    /// Takes the number off the list when the thread exits.
    static EXIT: OnExit = const { OnExit };
}

fn owners() -> MutexGuard<'static, Vec<u64>> {
    OWNERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The calling thread's number.
fn number_this_thread() -> u64 {
    if THREAD.get() == 0 {
        THREAD.set(LAST_THREAD.fetch_add(1, Relaxed) + 1);
    }
    THREAD.get()
}

/// The calling thread's number, which stands on the list of owners from here on.
fn register_this_thread() -> Result<u64> {
    let number = number_this_thread();
    let mut owners = owners();
    if !owners.contains(&number) {
        owners.try_reserve(1)?;
        // A thread that is past its destructors counts as exited at once.
        if EXIT.try_with(|_| ()).is_ok() {
            owners.push(number);
        }
    }
    Ok(number)
}

struct OnExit;

impl Drop for OnExit {
    fn drop(&mut self) {
        let number = THREAD.get();
        owners().retain(|&owner| owner != number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s25_a_thread_is_off_the_list_once_it_has_exited() {
        let owner = std::thread::spawn(|| {
            let owner = Owner::current().unwrap();
            assert_eq!(owner.check(), Ok(()));
            owner
        })
        .join()
        .unwrap();
        assert_eq!(owner.check(), Err(Error::WRONG_THREAD));
        assert_eq!(owner.inherit(), Ok(()));
        assert_eq!(owner.check(), Ok(()));
    }

    #[test]
    fn s25_the_owner_alone_may_call() {
        let owner = Owner::current().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(owner.check(), Err(Error::WRONG_THREAD));
                assert_eq!(owner.inherit(), Err(Error::WRONG_THREAD));
            });
        });
        assert_eq!(owner.check(), Ok(()));
    }
}
