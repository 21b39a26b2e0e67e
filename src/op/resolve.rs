//! Names of hosts and services: getaddrinfo(3), on the executor, since it blocks.

use std::ffi::{CStr, c_int};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr;

use libc::addrinfo;
use nix::errno::Errno;

use crate::abi::handle::Handle;
use crate::error::{Error, Result, Sentence};
use crate::event_loop::Loop;

/// What a name was found to be: a list of getaddrinfo's.
pub(crate) struct Addresses(*mut addrinfo);

// SAFETY: the list is its owner's alone, and belongs to no thread.
unsafe impl Send for Addresses {}

impl Addresses {
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

/// A question for getaddrinfo: names that end in a zero byte.
pub(crate) struct Question {
    pub(crate) node: Option<Box<[u8]>>,
    pub(crate) service: Option<Box<[u8]>>,
    /// The flags, the family, the type of socket and the protocol.
    pub(crate) hints: Option<[c_int; 4]>,
}

impl Question {
    /// Asks, and blocks meanwhile. The error is an EAI_*, and the errno for EAI_SYSTEM.
    pub(crate) fn ask(self) -> std::result::Result<Addresses, (c_int, Errno)> {
        let name = |name: &Option<Box<[u8]>>| {
            let name = name.as_ref().and_then(|name| CStr::from_bytes_until_nul(name).ok());
            name.map_or(ptr::null(), CStr::as_ptr)
        };
        let hints = self.hints.map(|[flags, family, socktype, protocol]| addrinfo {
            ai_flags: flags,
            ai_family: family,
            ai_socktype: socktype,
            ai_protocol: protocol,
            ai_addrlen: 0,
            ai_addr: ptr::null_mut(),
            ai_canonname: ptr::null_mut(),
            ai_next: ptr::null_mut(),
        });
        let hints = hints.as_ref().map_or(ptr::null(), ptr::from_ref);
        let mut found = ptr::null_mut();
        // SAFETY: the names are C strings or null, the hints are null or set but for what must be zero.
        match unsafe { libc::getaddrinfo(name(&self.node), name(&self.service), hints, &mut found) } {
            0 => Ok(Addresses(found)),
            error => Err((error, Errno::last())),
        }
    }
}

impl Loop {
    /// Looks up the addresses of a host (a name or a number) with the port of a service (a name or a number), for streams:
    /// getaddrinfo(3), in its order.
    ///
    /// It is work as of [`run_in_executor`](Loop::run_in_executor), and shares its threads: the errors and what cancelling does
    /// are those. `done` gets ENOENT when there is no such host or service, EAGAIN when the name servers gave no answer, EIO when
    /// they failed, EINVAL when a name has a zero byte in it.
    pub fn resolve(
        &self,
        host: &str,
        service: &str,
        done: impl FnOnce(&Loop, Result<Vec<SocketAddr>>) + 'static,
    ) -> Result<Handle> {
        self.check_open()?;
        let (node, service) = (Some(c_string(host)?), Some(c_string(service)?));
        let question = Question { node, service, hints: Some([0, libc::AF_UNSPEC, libc::SOCK_STREAM, 0]) };
        let look_up = move || match question.ask() {
            Ok(found) => read(&found),
            Err((error, errno)) => Err(error_of(error, errno)),
        };
        self.run_in_executor(look_up, move |lp, found| done(lp, found.and_then(|found| found)))
    }
}

fn c_string(name: &str) -> Result<Box<[u8]>> {
    if name.bytes().any(|byte| byte == 0) {
        return Err(Error::NUL_INSIDE);
    }
    let mut copy = Vec::new();
    copy.try_reserve_exact(name.len() + 1)?;
    copy.extend_from_slice(name.as_bytes());
    copy.push(0);
    Ok(copy.into_boxed_slice())
}

fn error_of(error: c_int, errno: Errno) -> Error {
    match error {
        libc::EAI_NONAME | libc::EAI_SERVICE | libc::EAI_NODATA => Error::new(Errno::ENOENT, Sentence::NoSuchName),
        libc::EAI_AGAIN => Error::new(Errno::EAGAIN, Sentence::NoAnswer),
        libc::EAI_MEMORY => Error::NO_MEMORY,
        libc::EAI_SYSTEM => Error::new(errno, Sentence::NameFailed),
        _ => Error::new(Errno::EIO, Sentence::NameFailed),
    }
}

/// The addresses of a list, of the families that Rust knows.
fn read(found: &Addresses) -> Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    let mut at = found.0;
    // SAFETY: the list is getaddrinfo's: each address is of the family and the length that it says.
    while let Some(entry) = unsafe { at.as_ref() } {
        addresses.try_reserve(1)?;
        match entry.ai_family {
            libc::AF_INET => {
                // SAFETY: as above.
                let address = unsafe { entry.ai_addr.cast::<libc::sockaddr_in>().read_unaligned() };
                let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
                addresses.push(SocketAddrV4::new(ip, u16::from_be(address.sin_port)).into());
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let address = unsafe { entry.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
                let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
                let port = u16::from_be(address.sin6_port);
                addresses.push(SocketAddrV6::new(ip, port, address.sin6_flowinfo, address.sin6_scope_id).into());
            }
            _ => {}
        }
        at = entry.ai_next;
    }
    Ok(addresses)
}
