//! Arguments that C passes by address: strings, arrays, structs with a size.
//!
//! A function of the C API gets an address as one of these types, or, for a single object, as an
//! `Option` of a reference. C promises, as the header says, that the memory is valid during the
//! call. No code in Rust can make a value of these types, so their users need no `unsafe`.

use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::{ptr, slice};

use libc::socklen_t;
use nix::errno::Errno;

use super::NULL_POINTER;
use crate::error::{Error, Result, Sentence};
use crate::op::address::Address;
use crate::op::data::PathBytes;

pub(super) const OPTIONS_TOO_NEW: Error = Error::new(Errno::E2BIG, Sentence::OptionsTooNew);

/// `const char *`: NULL, or a string that does not change during the call.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Str<'a>(*const c_char, PhantomData<&'a CStr>);

impl<'a> Str<'a> {
    /// None for NULL.
    pub(super) fn get(self) -> Option<&'a CStr> {
        // SAFETY: C promises that a pointer that is not NULL is a string.
        (!self.0.is_null()).then(|| unsafe { CStr::from_ptr(self.0) })
    }

    /// A copy for the kernel: a path, or any string.
    pub(super) fn to_path(self) -> Result<PathBytes> {
        PathBytes::of_c(self.get().ok_or(NULL_POINTER)?)
    }
}

/// The number of elements at the other addresses of the call: a `size_t` or the like.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Count<'a, N>(N, PhantomData<&'a ()>);

/// A `Count` that has been checked.
pub(super) type Length<'a> = Count<'a, u16>;

impl Count<'_, usize> {
    pub(super) fn get(self) -> usize {
        self.0
    }
}

impl<'a, N: Copy + TryInto<u16>> Count<'a, N> {
    /// The count, or `too_many` if it is more than `most`.
    pub(super) fn at_most(self, most: u16, too_many: Error) -> Result<Length<'a>> {
        let count = self.0.try_into().ok().filter(|&count| count <= most);
        count.map(|count| Count(count, PhantomData)).ok_or(too_many)
    }
}

/// `const T *`: NULL, or as many elements as the call's `Count`, which do not change during the
/// call.
#[repr(transparent)]
#[derive(Debug)]
pub struct Array<'a, T>(*const T, PhantomData<&'a [T]>);

impl<'a, T> Array<'a, T> {
    /// # Safety
    /// The pointer is NULL, or points to `count` elements, which do not change during 'a.
    pub(super) unsafe fn of(first: *const T, count: usize) -> (Array<'a, T>, Count<'a, usize>) {
        (Array(first, PhantomData), Count(count, PhantomData))
    }

    pub(super) fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// All elements. The address of an empty array may be any.
    pub(super) fn get(self, length: Length<'a>) -> Result<&'a [T]> {
        match (length.0, self.0.is_null()) {
            (0, _) => Ok(&[]),
            (_, true) => Err(NULL_POINTER),
            // SAFETY: C promises that the array has so many elements during the call.
            (length, false) => Ok(unsafe { slice::from_raw_parts(self.0, length.into()) }),
        }
    }
}

/// `struct sockaddr`, whose length is in bytes.
pub type sockaddr = u8;

impl<'a> Array<'a, sockaddr> {
    /// A copy of an address.
    pub(super) fn into_address(self, length: Count<'a, socklen_t>) -> Result<Address> {
        let most = size_of::<libc::sockaddr_storage>() as u16;
        let length = length.at_most(most, Error::new(Errno::EINVAL, Sentence::AddressTooLong))?;
        if self.is_null() { Err(NULL_POINTER) } else { Ok(Address::of(&[self.get(length)?])) }
    }
}

/// `T *`: NULL, or memory that is valid, and that no other code uses, until the operation of the
/// call has ended. For `void`, the memory has as many bytes as the call's `Count`.
#[repr(transparent)]
#[derive(Debug)]
pub struct Lasting<'a, T>(*mut T, PhantomData<&'a mut T>);

/// `void *`.
pub type Buffer<'a> = Lasting<'a, c_void>;
/// `const void *`.
pub type ConstBuffer<'a> = Buffer<'a>;

impl<T> Lasting<'_, T> {
    pub(super) fn as_ptr(&self) -> *mut T {
        self.0
    }
}

/// `T *`: NULL, or memory for as many elements as the call's `Count`, which no other code uses
/// during the call.
#[repr(transparent)]
#[derive(Debug)]
pub struct Room<'a, T>(*mut T, PhantomData<&'a mut [T]>);

impl<'a, T> Room<'a, T> {
    /// All elements; none for NULL.
    pub(super) fn get(self, length: Length<'a>) -> &'a mut [MaybeUninit<T>] {
        if self.0.is_null() {
            return &mut [];
        }
        // SAFETY: C promises memory for so many elements during the call.
        unsafe { slice::from_raw_parts_mut(self.0.cast(), length.0.into()) }
    }
}

/// A struct of C that begins with its size, a `uint32_t`. The struct that a program knows may have
/// fewer or more fields at its end.
///
/// # Safety
/// The struct is `repr(C)`, and begins with the size. Its fields are valid as zero, and with every
/// value that C writes.
pub unsafe trait Versioned {}

/// `const T *`: NULL, or as many bytes as the struct's size, which do not change during the call.
#[repr(transparent)]
#[derive(Debug)]
pub struct VersionedIn<'a, T>(*const T, PhantomData<&'a T>);

/// `T *`: NULL, or as many bytes as the struct's size, which no other code uses during the call.
#[repr(transparent)]
#[derive(Debug)]
pub struct VersionedOut<'a, T>(VersionedIn<'a, T>);

impl<T: Versioned> VersionedIn<'_, T> {
    /// No struct is larger than this: a larger size is garbage.
    const LARGEST: usize = 4096;

    /// The size that the caller has set.
    pub(super) fn size(&self) -> Result<usize> {
        if self.0.is_null() {
            return Err(NULL_POINTER);
        }
        // SAFETY: C promises that the struct begins with a size.
        let size = unsafe { self.0.cast::<u32>().read_unaligned() } as usize;
        let too_small = Error::new(Errno::EINVAL, Sentence::SizeTooSmall);
        if size < size_of::<u32>() { Err(too_small) } else { Ok(size) }
    }

    /// A copy, in which fields that the caller does not know are zero; None for NULL.
    pub(super) fn read(&self) -> Result<Option<T>> {
        if self.0.is_null() {
            return Ok(None);
        }
        let size = self.size()?;
        if size > Self::LARGEST {
            return Err(OPTIONS_TOO_NEW);
        }
        // SAFETY: C promises that the struct has so many bytes during the call.
        let bytes = unsafe { slice::from_raw_parts(self.0.cast::<u8>(), size) };
        if bytes.iter().skip(size_of::<T>()).any(|&byte| byte != 0) {
            return Err(OPTIONS_TOO_NEW);
        }
        let mut known = MaybeUninit::<T>::zeroed();
        // SAFETY: the copy is inside both structs, whose fields are valid as zero and as written by
        // C.
        unsafe {
            let length = size.min(size_of::<T>());
            known.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), length);
            Ok(Some(known.assume_init()))
        }
    }
}

impl<T: Versioned> VersionedOut<'_, T> {
    /// Checks that the pointer is not NULL, and that the size is valid.
    pub(super) fn check(&self) -> Result<()> {
        self.0.size().map(drop)
    }

    /// Writes the fields that the caller knows, except the size.
    pub(super) fn write(&mut self, known: &T) -> Result<()> {
        let length = self.0.size()?.min(size_of::<T>()) - size_of::<u32>();
        // SAFETY: C promises so many bytes, and `known` has as many.
        unsafe {
            let known = ptr::from_ref(known).cast::<u32>().add(1).cast::<u8>();
            self.0
                .0
                .cast_mut()
                .cast::<u32>()
                .add(1)
                .cast::<u8>()
                .copy_from_nonoverlapping(known, length);
        }
        Ok(())
    }
}
