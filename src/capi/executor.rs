//! Work off the loop.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use libc::addrinfo;

use super::{Arg, CCallback, Function, LoopPtr, Plain, Str, loop_handle_t, loop_t};
use crate::error::Result;
use crate::event_loop::work::Packet;
use crate::op::data::PathBytes;
use crate::op::resolve::Question;
use crate::pending::callback::Job;
use crate::sys::c_library::Addresses;

/// Work, which runs on another thread. It may block, and must not call functions of the loop,
/// except those for any thread. If the work forks, the child process ends with _exit(0) when the
/// work returns there.
pub type loop_work_t = Option<unsafe extern "C-unwind" fn(arg: *mut c_void)>;

/// Runs on the loop's thread after the work has ended. `status` is 0, or -ECANCELED if the work was
/// cancelled and never ran.
pub type loop_done_t =
    Option<unsafe extern "C-unwind" fn(r#loop: *mut loop_t, status: c_int, arg: *mut c_void)>;

/// Gets the addresses that loop_getaddrinfo() has found. If `status` is 0, `result` belongs to the
/// callback, which frees it with freeaddrinfo(). Otherwise `status` is one of EAI_*, for
/// gai_strerror(), EAI_CANCELED (-101) among them, and `result` is NULL. With EAI_SYSTEM, errno
/// says more.
pub type loop_addrinfo_callback_t = Option<
    unsafe extern "C-unwind" fn(
        r#loop: *mut loop_t,
        status: c_int,
        result: *mut addrinfo,
        arg: *mut c_void,
    ),
>;

/// Runs `work` on another thread, and `done` on the loop's thread after the work has returned; both
/// get `arg`. The function is for work that blocks or takes long. Posts that the work makes to the
/// loop without a delay run before `done`, so that `done` may free the `arg` of these posts. The
/// loop starts threads when they are needed, up to options.executor_threads. Work that finds no
/// free thread waits. The threads block all signals, and end when the loop is closed.
///
/// loop_cancel() is a request, as for operations. Work that has not begun never runs, and `done`
/// gets -ECANCELED. Work that has begun runs to its end. `done` is called once, unless the loop is
/// closed before. loop_close() drops work that has not begun, and waits for the rest.
///
/// Returns a handle, or -EAGAIN there is no thread, and none can be started; -EINVAL, -ENOMEM,
/// -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1), and a few microseconds. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_run_in_executor(
    r#loop: LoopPtr<'_>,
    work: Function<'_, loop_work_t>,
    done: Function<'_, loop_done_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    let args = work.with(&arg).and_then(|work| Ok((CWork(work), done.with(&arg)?)));
    r#loop.schedule(args, |lp, (work, done)| lp.execute(Job::new(move || work.run())?, done.into()))
}

/// Work of C, which may run on any thread. The ABI permits a C++ exception to arrive here, where it
/// aborts with a message (S30).
struct CWork(CCallback<Plain>);

// SAFETY: C promises that work and argument may be used on another thread.
unsafe impl Send for CWork {}

impl CWork {
    fn run(self) {
        drop(catch_unwind(AssertUnwindSafe(|| self.0.call())));
    }
}

/// Looks up a name as getaddrinfo(3) does, on a thread of loop_run_in_executor(). The handle,
/// cancelling and closing follow the rules of loop_run_in_executor(). `node`, `service` and `hints`
/// are copied, and may be NULL as in getaddrinfo(3). If the loop is closed before a callback has
/// got the result, the result is freed.
///
/// Returns a handle, or -EAGAIN there is no thread, and none can be started; -EINVAL, -ENOMEM,
/// -ESHUTDOWN, -EPERM, -EOWNERDEAD. The callback gets the errors of getaddrinfo(). The loop's
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_getaddrinfo(
    r#loop: LoopPtr<'_>,
    node: Str<'_>,
    service: Str<'_>,
    hints: Option<&addrinfo>,
    callback: Function<'_, loop_addrinfo_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    r#loop.schedule(callback.with(&arg), |lp, callback| {
        let hints = hints
            .map(|hints| [hints.ai_flags, hints.ai_family, hints.ai_socktype, hints.ai_protocol]);
        let question = Question { node: name(node)?, service: name(service)?, hints };
        let (job, packet) = Packet::new(move || question.ask())?;
        let give = callback.once(move |callback, lp| {
            let (status, result) = match packet.open() {
                Some(Ok(Ok(found))) => (0, Addresses::into_raw(found)),
                Some(Ok(Err((status, errno)))) => {
                    errno.set();
                    (status, ptr::null_mut())
                }
                Some(Err(_)) => (libc::EAI_FAIL, ptr::null_mut()),
                None => (EAI_CANCELED, ptr::null_mut()),
            };
            callback.call(lp, status, result);
        })?;
        lp.execute(job, give)
    })
}

/// <netdb.h> defines it only with _GNU_SOURCE.
const EAI_CANCELED: c_int = -101;

/// A copy of a name.
fn name(name: Str<'_>) -> Result<Option<PathBytes>> {
    name.get().map(PathBytes::of_c).transpose()
}
