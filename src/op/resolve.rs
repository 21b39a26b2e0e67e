//! Names of hosts and services: getaddrinfo(3), on the executor, because it blocks.
//!
//! Nothing is cached. A look-up that has begun cannot be cancelled.

use std::ffi::c_int;
use std::net::SocketAddr;

use nix::errno::Errno;

use crate::abi::handle::Handle;
use crate::error::{Error, Result, Sentence};
use crate::event_loop::Loop;
use crate::op::address::Address;
use crate::op::data::PathBytes;
use crate::sys::c_library::Addresses;

/// The arguments of getaddrinfo.
pub(crate) struct Question {
    pub(crate) node: Option<PathBytes>,
    pub(crate) service: Option<PathBytes>,
    /// Flags, family, socket type and protocol.
    pub(crate) hints: Option<[c_int; 4]>,
}

impl Question {
    /// Looks up the names, and blocks meanwhile. The error is an EAI_*, with the errno for
    /// EAI_SYSTEM.
    pub(crate) fn ask(self) -> std::result::Result<Addresses, (c_int, Errno)> {
        let [node, service] =
            [&self.node, &self.service].map(|name| name.as_ref().map(PathBytes::as_c_str));
        Addresses::look_up(node, service, self.hints)
    }
}

impl Loop {
    /// Looks up the addresses of a host (a name or a number) with the port of a service (a name or
    /// a number), for streams: getaddrinfo(3), in its order.
    ///
    /// The look-up is work as of [`run_in_executor`](Loop::run_in_executor), with its threads, its
    /// errors and its behaviour when cancelled. `done` gets ENOENT when there is no such host or
    /// service, EAGAIN when the name servers did not answer, EIO when they failed, EINVAL when a
    /// name contains a zero byte.
    pub fn resolve(
        &self,
        host: &str,
        service: &str,
        done: impl FnOnce(&Loop, Result<Vec<SocketAddr>>) + 'static,
    ) -> Result<Handle> {
        self.check_open()?;
        let (node, service) = (Some(PathBytes::new(host)?), Some(PathBytes::new(service)?));
        let question =
            Question { node, service, hints: Some([0, libc::AF_UNSPEC, libc::SOCK_STREAM, 0]) };
        let look_up = move || match question.ask() {
            Ok(found) => read(&found),
            Err((error, errno)) => Err(error_of(error, errno)),
        };
        self.run_in_executor(look_up, move |lp, found| done(lp, found.and_then(|found| found)))
    }
}

fn error_of(error: c_int, errno: Errno) -> Error {
    match error {
        libc::EAI_NONAME | libc::EAI_SERVICE | libc::EAI_NODATA => {
            Error::new(Errno::ENOENT, Sentence::NoSuchName)
        }
        libc::EAI_AGAIN => Error::new(Errno::EAGAIN, Sentence::NoAnswer),
        libc::EAI_MEMORY => Error::NO_MEMORY,
        libc::EAI_SYSTEM => Error::new(errno, Sentence::NameFailed),
        _ => Error::new(Errno::EIO, Sentence::NameFailed),
    }
}

/// The addresses of a list, of the families that the standard library has.
fn read(found: &Addresses) -> Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for address in found.iter().filter_map(|address| Address::of(&[address]).to_inet()) {
        addresses.try_reserve(1)?;
        addresses.push(address);
    }
    Ok(addresses)
}
