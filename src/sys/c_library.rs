//! Safe functions for calls of the C library and the kernel that std, nix and rustix lack.
//!
//! Nothing here takes a lock, and only functions that say so allocate (S31, S33), except that
//! getaddrinfo itself does both.
//!
//! `unsafe` is here because manual pages, not types, state the requirements of C functions.

use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use libc::addrinfo;
use nix::errno::Errno;

use crate::sys::memory::TryArc;

/// A variable of the environment, to be used at once; None in a program with more rights than its
/// user, such as a set-user-ID program.
///
/// The standard library's function aborts without memory for a copy. Its lock, if another thread
/// holds it during a fork, would hang a child that sets a variable.
pub(crate) fn variable<'a>(name: &CStr) -> Option<&'a CStr> {
    // SAFETY: getenv returns null or a C string, which stays valid because setenv(3) forbids a
    // change of the environment while another thread reads it.
    unsafe {
        if libc::getauxval(libc::AT_SECURE) != 0 {
            return None;
        }
        libc::getenv(name.as_ptr()).as_ref().map(|value| CStr::from_ptr(value))
    }
}

/// A borrowed descriptor of this number, for one call; a closed one fails with EBADF. None for a
/// negative number.
pub(crate) fn borrow<'a>(fd: RawFd) -> Option<BorrowedFd<'a>> {
    // SAFETY: the number is not -1, and the owner of the descriptor, if there is one, leaves it
    // open during the call.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Checks whether this process has a thread of this TID; ESRCH if not.
pub(crate) fn find_thread(tid: i32) -> nix::Result<()> {
    // SAFETY: tgkill takes any numbers, and signal 0 only checks.
    Errno::result(unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, 0) }).map(drop)
}

/// A number that is 0 initially, and again in each forked child. It has its own page, which is
/// never unmapped. Errors: ENOMEM; EINVAL on kernels without MADV_WIPEONFORK (before 4.14).
pub(crate) fn wiped_on_fork() -> nix::Result<&'static AtomicU64> {
    // The kernel rounds up to its page size.
    const SIZE: usize = 4096;
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: mmap at an address of the kernel's choice affects no memory in use, and returns an
    // aligned, zeroed page, which nothing unmaps once it has been returned.
    unsafe {
        let page = libc::mmap(ptr::null_mut(), SIZE, protection, flags, -1, 0);
        if page == libc::MAP_FAILED {
            return Err(Errno::ENOMEM);
        }
        if let Err(refused) = Errno::result(libc::madvise(page, SIZE, libc::MADV_WIPEONFORK)) {
            libc::munmap(page, SIZE);
            return Err(refused);
        }
        Ok(&*page.cast::<AtomicU64>())
    }
}

/// Ends the process at once, with status 0 and without exit handlers.
pub(crate) fn exit_at_once() -> ! {
    // SAFETY: _exit takes any number.
    unsafe { libc::_exit(0) }
}

/// A joinable thread. (The standard library aborts without memory for a thread.)
#[derive(Debug)]
pub(crate) struct Thread(libc::pthread_t);

impl Thread {
    /// Starts a thread that runs `T::run`, with the signal mask of the calling thread.
    pub(crate) fn start<T: Run>(shared: TryArc<T>) -> nix::Result<Thread> {
        extern "C" fn enter<T: Run>(shared: *mut c_void) -> *mut c_void {
            let shared = NonNull::new(shared.cast()).expect("a thread is given what it shares");
            // SAFETY: `start` made the pointer with `into_raw`, for this thread only.
            unsafe { TryArc::<T>::from_raw(shared) }.run();
            ptr::null_mut()
        }
        let shared = shared.into_raw();
        let mut thread = MaybeUninit::uninit();
        // SAFETY: `enter` takes the owner of a `T` that `into_raw` made, which returns here if
        // there is no thread, and a successful pthread_create has written the thread's ID.
        unsafe {
            match libc::pthread_create(
                thread.as_mut_ptr(),
                ptr::null(),
                enter::<T>,
                shared.as_ptr().cast(),
            ) {
                0 => Ok(Thread(thread.assume_init())),
                errno => {
                    drop(TryArc::from_raw(shared));
                    Err(Errno::from_raw(errno))
                }
            }
        }
    }

    /// Waits until the thread has ended.
    pub(crate) fn join(self) {
        // SAFETY: `start` made the thread joinable, and `self` is consumed, so it is joined once.
        unsafe { libc::pthread_join(self.0, ptr::null_mut()) };
    }
}

pub(crate) trait Run: Send + Sync + 'static {
    fn run(&self);
}

/// The result of a look-up: a list of getaddrinfo.
pub(crate) struct Addresses(*mut addrinfo);

// SAFETY: only the owner uses the list, and getaddrinfo binds it to no thread.
unsafe impl Send for Addresses {}

impl Addresses {
    /// Calls getaddrinfo(3), which blocks. The hints are flags, family, socket type and protocol.
    /// The error is an EAI_*, with the errno for EAI_SYSTEM.
    pub(crate) fn look_up(
        node: Option<&CStr>,
        service: Option<&CStr>,
        hints: Option<[c_int; 4]>,
    ) -> Result<Addresses, (c_int, Errno)> {
        let hints = hints.map(|[ai_flags, ai_family, ai_socktype, ai_protocol]| addrinfo {
            ai_flags,
            ai_family,
            ai_socktype,
            ai_protocol,
            ai_addrlen: 0,
            ai_addr: ptr::null_mut(),
            ai_canonname: ptr::null_mut(),
            ai_next: ptr::null_mut(),
        });
        let [node, service] = [node, service].map(|name| name.map_or(ptr::null(), CStr::as_ptr));
        let hints = hints.as_ref().map_or(ptr::null(), ptr::from_ref);
        let mut found = ptr::null_mut();
        // SAFETY: the names are C strings or null, and the hints are null or have zeros where
        // getaddrinfo requires them.
        match unsafe { libc::getaddrinfo(node, service, hints, &mut found) } {
            0 => Ok(Addresses(found)),
            error => Err((error, Errno::last())),
        }
    }

    /// The addresses, each as a `struct sockaddr` of any family.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut next = NonNull::new(self.0);
        std::iter::from_fn(move || {
            // SAFETY: getaddrinfo guarantees that each entry has an address of its stated length,
            // and the list lives as long as `self`.
            let (entry, address) = unsafe {
                let entry = next?.as_ref();
                (entry, std::slice::from_raw_parts(entry.ai_addr.cast(), entry.ai_addrlen as usize))
            };
            next = NonNull::new(entry.ai_next);
            Some(address)
        })
    }

    /// The list, which the caller now owns.
    #[cfg(feature = "capi")]
    pub(crate) fn into_raw(self) -> *mut addrinfo {
        std::mem::ManuallyDrop::new(self).0
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the list came from getaddrinfo, and its only owner frees it once.
            unsafe { libc::freeaddrinfo(self.0) };
        }
    }
}

/// The dynamic linker's data about an address.
#[cfg(feature = "capi")]
pub(crate) struct Linked {
    /// The exported function that contains it.
    pub(crate) symbol: Option<String>,
    /// The file that is mapped there, and the start of the mapping.
    pub(crate) file: Option<String>,
    pub(crate) base: usize,
}

/// Queries the dynamic linker. Allocates.
#[cfg(feature = "capi")]
pub(crate) fn linked_at(address: usize) -> Option<Linked> {
    // SAFETY: dladdr takes any address and fills the struct, of which all-zero is a valid value;
    // its names are null or C strings of a loaded object, which are copied at once.
    unsafe {
        let mut found: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(address as *const libc::c_void, &mut found) == 0 {
            return None;
        }
        let copy = |name: *const libc::c_char| {
            (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
        };
        Some(Linked {
            symbol: copy(found.dli_sname),
            file: copy(found.dli_fname),
            base: found.dli_fbase as usize,
        })
    }
}
