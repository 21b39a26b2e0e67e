//! What the C library and the kernel have and neither std, nix nor rustix, as safe functions: why a
//! call is right is said here alone.
//!
//! Nothing here takes a lock, and what does not say so allocates nothing (S31, S33); the C library
//! itself does both in getaddrinfo.
//!
//! `unsafe` lives here because C says in its manual pages what Rust says in types.

use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use libc::addrinfo;
use nix::errno::Errno;

use crate::sys::memory::TryArc;

/// A variable of the environment, to be read at once; none in a program that runs with more rights
/// than its user has, as set-user-ID programs do.
///
/// The standard library's function would abort where there is no memory for a copy. Its lock, held
/// by another thread at the moment of a fork, would hang a child that sets a variable.
pub(crate) fn variable<'a>(name: &CStr) -> Option<&'a CStr> {
    // SAFETY: getenv gives null or a C string. It stays where it is while nobody changes the
    // environment, which no thread may do while another reads it: so says setenv(3), and so
    // getaddrinfo and all of C need it.
    unsafe {
        if libc::getauxval(libc::AT_SECURE) != 0 {
            return None;
        }
        libc::getenv(name.as_ptr()).as_ref().map(|value| CStr::from_ptr(value))
    }
}

/// Whatever has this number, to be asked something at once: what has none is answered with EBADF.
/// None: nothing has a negative one.
pub(crate) fn borrow<'a>(fd: RawFd) -> Option<BorrowedFd<'a>> {
    // SAFETY: the number is that of a descriptor which its owner leaves open, or of none; it is not
    // -1.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Asks whether this process has a thread of this number, by the kernel's count: ESRCH when it has
/// none.
pub(crate) fn find_thread(tid: i32) -> nix::Result<()> {
    // SAFETY: signal 0 asks, and sends nothing.
    Errno::result(unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, 0) }).map(drop)
}

/// A number that is 0 at first, and again in each forked child: it stands in a page of its own, for
/// ever. Errors: ENOMEM; EINVAL where the kernel cannot do that (4.14).
pub(crate) fn wiped_on_fork() -> nix::Result<&'static AtomicU64> {
    // The kernel rounds up to whole pages of whatever size it has.
    const SIZE: usize = 4096;
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory that is
    // in use. It is aligned and zeroed, and nobody unmaps it once it has been given out.
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

/// Ends the process at once, with status 0 and without what the program does at its exit.
pub(crate) fn exit_at_once() -> ! {
    // SAFETY: _exit takes any number.
    unsafe { libc::_exit(0) }
}

/// A thread that is to be joined. (Where there is no memory for one, the standard library aborts.)
#[derive(Debug)]
pub(crate) struct Thread(libc::pthread_t);

impl Thread {
    /// Starts a thread, which runs `T::run` and has the signal mask of the calling one.
    pub(crate) fn start<T: Run>(shared: TryArc<T>) -> nix::Result<Thread> {
        extern "C" fn enter<T: Run>(shared: *mut c_void) -> *mut c_void {
            let shared = NonNull::new(shared.cast()).expect("a thread is given what it shares");
            // SAFETY: it came from `into_raw`, for this thread alone.
            unsafe { TryArc::<T>::from_raw(shared) }.run();
            ptr::null_mut()
        }
        let shared = shared.into_raw();
        let mut thread = MaybeUninit::uninit();
        // SAFETY: `enter` takes an owner of a `T`, which is the new thread's, and the caller's
        // again where there is none; the thread's number is written before it is read.
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

    /// Waits until it has ended.
    pub(crate) fn join(self) {
        // SAFETY: the thread was made joinable, and is joined once.
        unsafe { libc::pthread_join(self.0, ptr::null_mut()) };
    }
}

/// What a thread does.
pub(crate) trait Run: Send + Sync + 'static {
    fn run(&self);
}

/// What a name was found to be: a list of getaddrinfo's.
pub(crate) struct Addresses(*mut addrinfo);

// SAFETY: the list is its owner's alone, and belongs to no thread.
unsafe impl Send for Addresses {}

impl Addresses {
    /// Asks getaddrinfo(3), and blocks meanwhile. The hints are flags, family, type of socket and
    /// protocol. The error is an EAI_*, and the errno for EAI_SYSTEM.
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
        // SAFETY: the names are C strings or null, the hints are null or set but for what must be
        // zero.
        match unsafe { libc::getaddrinfo(node, service, hints, &mut found) } {
            0 => Ok(Addresses(found)),
            error => Err((error, Errno::last())),
        }
    }

    /// The addresses, as a `struct sockaddr` of any family has them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut next = NonNull::new(self.0);
        std::iter::from_fn(move || {
            // SAFETY: the list is getaddrinfo's, and lives as long as its owner: each entry has an
            // address of the length that it says.
            let (entry, address) = unsafe {
                let entry = next?.as_ref();
                (entry, std::slice::from_raw_parts(entry.ai_addr.cast(), entry.ai_addrlen as usize))
            };
            next = NonNull::new(entry.ai_next);
            Some(address)
        })
    }

    /// The list, which belongs to the caller from here on.
    #[cfg(feature = "capi")]
    pub(crate) fn into_raw(self) -> *mut addrinfo {
        std::mem::ManuallyDrop::new(self).0
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the list came from getaddrinfo, and is freed once.
            unsafe { libc::freeaddrinfo(self.0) };
        }
    }
}

/// What the dynamic linker knows of an address.
#[cfg(feature = "capi")]
pub(crate) struct Linked {
    /// The function that it lies in, where that is exported.
    pub(crate) symbol: Option<String>,
    /// The file that is mapped there, and from where on.
    pub(crate) file: Option<String>,
    pub(crate) base: usize,
}

/// Asks the dynamic linker. Allocates.
#[cfg(feature = "capi")]
pub(crate) fn linked_at(address: usize) -> Option<Linked> {
    // SAFETY: dladdr takes any address, and writes to the struct it is given, of which all-zero is
    // a valid value. A name in it is null, or a C string that lives as long as the object is
    // loaded; it is copied at once.
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
