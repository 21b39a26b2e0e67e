//! Socket addresses in the kernel's format, of any family, and conversions from and to those of the
//! standard library.
//!
//! Only internet and Unix addresses can be converted. No system call is made.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::Path;

/// A socket address of any family: converted from the standard library, or received from the
/// kernel.
#[derive(Clone, Copy)]
pub struct Address {
    storage: Storage,
    length: u32,
}

/// `struct sockaddr_storage`, with its alignment.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Storage([u8; SIZE]);

const SIZE: usize = size_of::<libc::sockaddr_storage>();
/// The offset of the name of a Unix socket.
const NAME: usize = 2;

impl Address {
    /// Space for an address that the kernel will write.
    pub(crate) const EMPTY: Address = Address { storage: Storage([0; SIZE]), length: SIZE as u32 };

    /// The address, if it is an internet address.
    pub fn to_inet(&self) -> Option<SocketAddr> {
        let port = u16::from_be_bytes(self.at(2));
        match i32::from(self.family()?) {
            libc::AF_INET if self.length >= 8 => {
                Some(SocketAddrV4::new(Ipv4Addr::from(self.at::<4>(4)), port).into())
            }
            libc::AF_INET6 if self.length >= 28 => {
                let (flow, scope) =
                    (u32::from_ne_bytes(self.at(4)), u32::from_ne_bytes(self.at(24)));
                Some(SocketAddrV6::new(Ipv6Addr::from(self.at::<16>(8)), port, flow, scope).into())
            }
            _ => None,
        }
    }

    /// The address, if it is that of a Unix socket.
    pub fn to_unix(&self) -> Option<UnixAddr> {
        if i32::from(self.family()?) != libc::AF_UNIX {
            return None;
        }
        let name = &self.storage.0[NAME..self.length as usize];
        match name {
            [0, name @ ..] => UnixAddr::from_abstract_name(name).ok(),
            _ => {
                let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
                UnixAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(&name[..end]))).ok()
            }
        }
    }

    /// The address in memory, and its length.
    pub(super) fn as_raw(&mut self) -> (*mut u8, u32) {
        (self.storage.0.as_mut_ptr(), self.length)
    }

    /// The kernel has written an address of this length.
    pub(super) fn set_length(&mut self, length: u32) {
        self.length = length.min(SIZE as u32);
    }

    /// `AF_*`. None: there is no address.
    fn family(&self) -> Option<u16> {
        (self.length >= 2).then(|| u16::from_ne_bytes(self.at(0)))
    }

    fn at<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|i| self.storage.0[at + i])
    }

    /// Concatenates the parts of an address.
    pub(crate) fn of(parts: &[&[u8]]) -> Address {
        let mut bytes = [0; SIZE];
        let mut length = 0;
        for part in parts {
            bytes[length..length + part.len()].copy_from_slice(part);
            length += part.len();
        }
        Address { storage: Storage(bytes), length: length as u32 }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        let port = address.port().to_be_bytes();
        match address {
            SocketAddr::V4(v4) => Address::of(&[
                &(libc::AF_INET as u16).to_ne_bytes(),
                &port,
                &v4.ip().octets(),
                &[0; 8],
            ]),
            SocketAddr::V6(v6) => Address::of(&[
                &(libc::AF_INET6 as u16).to_ne_bytes(),
                &port,
                &v6.flowinfo().to_ne_bytes(),
                &v6.ip().octets(),
                &v6.scope_id().to_ne_bytes(),
            ]),
        }
    }
}

impl From<UnixAddr> for Address {
    fn from(address: UnixAddr) -> Address {
        let family = (libc::AF_UNIX as u16).to_ne_bytes();
        // The standard library has checked that the names fit.
        if let Some(path) = address.as_pathname() {
            Address::of(&[&family, path.as_os_str().as_bytes(), &[0]])
        } else if let Some(name) = address.as_abstract_name() {
            Address::of(&[&family, &[0], name])
        } else {
            Address::of(&[&family])
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.to_inet(), self.to_unix(), self.family()) {
            (Some(inet), _, _) => inet.fmt(f),
            (_, Some(unix), _) => unix.fmt(f),
            (_, _, family) => {
                f.debug_struct("Address").field("family", &family).finish_non_exhaustive()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_it_was_or_none() {
        let inet: SocketAddr = "[fe80::1%7]:65535".parse().unwrap();
        assert_eq!(Address::from(inet).to_inet(), Some(inet));
        let none = Address { length: 0, ..Address::EMPTY };
        for address in [Address::EMPTY, none] {
            assert!(address.to_inet().is_none() && address.to_unix().is_none());
        }
        let unnamed = Address { length: 2, ..Address::from(UnixAddr::from_pathname("").unwrap()) };
        assert!(unnamed.to_unix().is_some_and(|unix| unix.is_unnamed()));
    }
}
