//! Buffer rings: the kernel picks a buffer when data arrives, so an idle connection holds none.
//!
//! The kernel and the loop share a ring of buffer addresses (5.19; used from 6.0, the first kernel
//! with multishot receives). Buffers in the ring belong to the kernel. A completion returns a
//! buffer, or from 6.12 a part of one, whose rest stays with the kernel. A buffer enters the ring
//! again when the kernel has used it up and every part has been returned. On older kernels the loop
//! itself receives into a free buffer when a poll reports data.
//!
//! `unsafe` is here because the kernel writes to the buffers whenever data arrives: the memory
//! stays until the ring is unregistered, and no reference to it exists while it belongs to the
//! kernel.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::fmt;
use std::slice;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use super::Kernel;
use crate::abi::handle::Handle;
use crate::abi::opcodes;
use crate::error::{Error, Result};
use crate::sys::memory::TryArc;

/// A pool of buffers of one size. It belongs to the loop that made it until it is freed or the loop
/// is closed. (`threads::executor` has a pool of threads.)
#[derive(Debug)]
pub(crate) struct Pool {
    /// The loop, which does not move while it is behind a pointer.
    #[cfg_attr(not(feature = "capi"), allow(dead_code, reason = "so far for C alone"))]
    pub(crate) owner: *const c_void,
    /// The group ID of the ring; None if the kernel has no buffer rings.
    group: Option<u16>,
    size: u32,
    states: Box<[Cell<BufferState>]>,
    ring: Pages<PageOfEntries>,
    data: Pages<PageOfData>,
    tail: Cell<u16>,
    /// The number of buffers with the kernel, or free.
    available: Cell<u32>,
    /// The free buffers, if the kernel has no buffer rings.
    free: RefCell<Vec<u16>>,
    users: Cell<u32>,
    kept: Cell<u32>,
    /// Operations that the kernel has ended for lack of buffers, oldest first.
    waiting: RefCell<VecDeque<Handle>>,
    /// The number of them that resume in the next iteration, if not one for each free buffer.
    stride: Cell<u32>,
}

/// The state of one buffer.
#[derive(Clone, Copy, Debug, Default)]
struct BufferState {
    /// The number of bytes that the kernel has filled.
    filled: u32,
    /// The number of parts that callbacks use or keep.
    parts: u32,
    kept: u32,
    is_available: bool,
}

/// `struct io_uring_buf`. In the first one, the last field is the tail of the ring.
#[derive(Default)]
#[repr(C)]
struct RingEntry {
    addr: AtomicU64,
    len: AtomicU32,
    bid: AtomicU16,
    tail: AtomicU16,
}

const PAGE: usize = 4096;
const ENTRIES: usize = PAGE / size_of::<RingEntry>();

#[repr(C, align(4096))]
struct PageOfEntries([RingEntry; ENTRIES]);

/// The kernel writes to it.
#[repr(C, align(4096))]
struct PageOfData(Cell<[u8; PAGE]>);

/// Page-aligned, zeroed memory that does not move.
struct Pages<T>(Box<[T]>);

impl<T> Pages<T> {
    /// As many pages as `bytes` need.
    fn new(bytes: u64, page: impl FnMut() -> T) -> Result<Pages<T>> {
        let count = usize::try_from(bytes.div_ceil(PAGE as u64)).map_err(|_| Error::NO_MEMORY)?;
        let mut pages = Vec::new();
        pages.try_reserve_exact(count)?;
        pages.resize_with(count, page);
        Ok(Pages(pages.into_boxed_slice()))
    }
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pages at {:p}", self.0.len(), self.0)
    }
}

const LARGEST_COUNT: u32 = 1 << 15;

/// The buffer rings of a kernel, which it keeps until they are freed or it is closed.
impl Kernel {
    /// Makes `count` buffers of `size` bytes, for the loop at `owner`. Rounds `count` up to a power
    /// of two.
    pub(crate) fn new_pool(
        &mut self,
        count: u32,
        size: u32,
        owner: *const c_void,
    ) -> Result<TryArc<Pool>> {
        let place = self.pools.iter().position(Option::is_none).unwrap_or(self.pools.len());
        // Group IDs that a program rarely uses for its own groups.
        let group = u16::try_from(0x8000 + place).map_err(|_| Error::NO_MEMORY)?;
        if place == self.pools.len() {
            self.pools.try_reserve(1)?;
            self.pools.push(None);
        }
        // Multishot receives from a ring came with 6.0, as did SEND_ZC, which can be probed.
        let group = self.features().supports(opcodes::SEND_ZC).then_some(group);
        let pool = TryArc::new(Pool::new(count, size, group, owner)?)?;
        let count = pool.states.len() as u16;
        if let Some(group) = group {
            // SAFETY: `pools` keeps the pool until it is unregistered or the ring has been closed.
            unsafe { self.register_buffers(pool.ring.0.as_ptr() as u64, count, group)? };
        }
        self.pools[place] = Some(pool.clone());
        (0..count).for_each(|bid| pool.make_available(bid));
        Ok(pool)
    }

    /// Frees a pool that is not in use.
    pub(crate) fn free_pool(&mut self, pool: &TryArc<Pool>) -> Result<()> {
        let is_it = |other: &Option<TryArc<Pool>>| {
            other.as_ref().is_some_and(|other| TryArc::is_same(other, pool))
        };
        let place = self.pools.iter().position(is_it).ok_or(Error::FOREIGN_BUFFERS)?;
        if !pool.is_idle() {
            return Err(Error::BUFFERS_IN_USE);
        }
        pool.group.map_or(Ok(()), |group| self.unregister_buffers(group))?;
        self.pools[place] = None;
        Ok(())
    }

    pub(crate) fn pools(&self) -> impl Iterator<Item = &TryArc<Pool>> {
        self.pools.iter().flatten()
    }
}

impl Pool {
    pub(crate) fn check_sizes(count: u32, size: u32) -> Result<()> {
        let is_in_range =
            (1..=LARGEST_COUNT).contains(&count) && size > 0 && i32::try_from(size).is_ok();
        if is_in_range { Ok(()) } else { Err(Error::BUFFERS_OUT_OF_RANGE) }
    }

    /// Makes `count` buffers, rounded up to a power of two, none of which is available.
    fn new(count: u32, size: u32, group: Option<u16>, owner: *const c_void) -> Result<Pool> {
        Pool::check_sizes(count, size)?;
        let count = count.next_power_of_two();
        let mut states = Vec::new();
        states.try_reserve_exact(count as usize)?;
        states.resize(count as usize, Cell::new(BufferState::default()));
        let mut free = Vec::new();
        free.try_reserve_exact(count as usize)?;
        Ok(Pool {
            owner,
            group,
            size,
            states: states.into_boxed_slice(),
            ring: Pages::new(u64::from(count) * size_of::<RingEntry>() as u64, || {
                PageOfEntries(std::array::from_fn(|_| RingEntry::default()))
            })?,
            data: Pages::new(u64::from(count) * u64::from(size), || {
                PageOfData(Cell::new([0; PAGE]))
            })?,
            tail: Cell::new(0),
            available: Cell::new(0),
            free: RefCell::new(free),
            users: Cell::new(0),
            kept: Cell::new(0),
            waiting: RefCell::default(),
            stride: Cell::new(0),
        })
    }

    /// The group ID of the ring, if the kernel has buffer rings.
    pub(crate) fn group(&self) -> Option<u16> {
        self.group
    }

    /// Ensures that one more operation can use the buffers, and wait for them.
    pub(crate) fn begin_use(&self) -> Result<()> {
        let users = self.users.get() + 1;
        let mut waiting = self.waiting.borrow_mut();
        waiting.try_reserve(users as usize)?;
        self.users.set(users);
        Ok(())
    }

    pub(crate) fn end_use(&self) {
        self.users.set(self.users.get() - 1);
    }

    /// Whether no operation uses the pool, and no part is kept.
    fn is_idle(&self) -> bool {
        self.users.get() == 0 && self.kept.get() == 0
    }

    /// The kernel has put `length` bytes into a buffer; `goes_on` if it continues with the rest.
    /// Returns their address, now a part that a callback uses; null if the kernel does not have
    /// this buffer.
    pub(crate) fn take(&self, bid: u16, length: u32, goes_on: bool) -> *const u8 {
        match self.states.get(usize::from(bid)).map(Cell::get) {
            Some(state) if self.group.is_some() && state.is_available => {
                self.add_part(bid, length, goes_on)
            }
            _ => std::ptr::null(),
        }
    }

    /// Fills a free buffer by `fill`, which returns the number of bytes, or a number that is not
    /// positive. Returns that number, and the address as `take` does. None: no buffer is free.
    pub(crate) fn fill(&self, fill: impl FnOnce(&mut [u8]) -> i32) -> Option<(i32, *const u8)> {
        // The borrow lasts through `fill`, so that the same buffer is not used twice.
        let mut free = self.free.borrow_mut();
        let bid = *free.last()?;
        // SAFETY: the pages contain the buffer, and `free` shows that neither a callback nor the
        // kernel uses it.
        let room = unsafe { slice::from_raw_parts_mut(self.buffer(bid), self.size as usize) };
        let filled = fill(room);
        if filled <= 0 {
            return Some((filled, std::ptr::null()));
        }
        free.pop();
        Some((filled, self.add_part(bid, filled as u32, false)))
    }

    /// Makes `length` more bytes of an available buffer a part that a callback uses.
    fn add_part(&self, bid: u16, length: u32, goes_on: bool) -> *const u8 {
        let state = &self.states[usize::from(bid)];
        let BufferState { filled, parts, kept, .. } = state.get();
        state.set(BufferState {
            filled: filled.saturating_add(length),
            parts: parts + 1,
            kept,
            is_available: goes_on,
        });
        if !goes_on {
            self.available.set(self.available.get() - 1);
        }
        self.buffer(bid).wrapping_add(filled.min(self.size) as usize)
    }

    pub(crate) fn part_done(&self, data: *const u8) {
        if let Some(bid) = self.find(data) {
            self.drop_part(bid);
        }
    }

    /// Keeps the part that a callback uses.
    #[cfg(feature = "capi")]
    pub(crate) fn keep(&self, data: *const u8) -> Result<()> {
        let bid = self.find(data).ok_or(Error::NOT_A_BUFFER)?;
        let state = &self.states[usize::from(bid)];
        let BufferState { parts, kept, .. } = state.get();
        if parts == kept {
            return Err(Error::NOT_A_BUFFER);
        }
        state.set(BufferState { parts: parts + 1, kept: kept + 1, ..state.get() });
        self.kept.set(self.kept.get() + 1);
        Ok(())
    }

    #[cfg(feature = "capi")]
    pub(crate) fn give_back(&self, data: *const u8) -> Result<()> {
        let bid = self.find(data).ok_or(Error::NOT_A_BUFFER)?;
        let state = &self.states[usize::from(bid)];
        let kept = state.get().kept.checked_sub(1).ok_or(Error::NOT_A_BUFFER)?;
        state.set(BufferState { kept, ..state.get() });
        self.kept.set(self.kept.get() - 1);
        self.drop_part(bid);
        Ok(())
    }

    /// An operation waits for a buffer.
    pub(crate) fn wait(&self, handle: Handle) {
        self.stride.set(0);
        // `begin_use` reserved space for every user.
        self.waiting.borrow_mut().push_back(handle);
    }

    pub(crate) fn has_available(&self) -> bool {
        self.available.get() > 0
    }

    pub(crate) fn may_resume(&self) -> bool {
        self.has_available() && !self.waiting.borrow().is_empty()
    }

    /// Resumes waiting operations, oldest first; `resume` returns whether one could. It is unknown
    /// which of them have data. So one resumes for each free buffer, and twice as many in each
    /// following iteration while buffers stay free. In this way, operations without data do not
    /// block those with data.
    pub(crate) fn resume_waiting(&self, mut resume: impl FnMut(Handle) -> bool) {
        let count = self.available.get().max(self.stride.get());
        self.stride.set(count.saturating_mul(2));
        for _ in 0..count {
            while let Some(handle) = self.waiting.borrow_mut().pop_front() {
                if resume(handle) {
                    break;
                }
            }
        }
    }

    /// The address of a buffer.
    fn buffer(&self, bid: u16) -> *mut u8 {
        let data = self.data.0.as_ptr().cast::<u8>().cast_mut();
        data.wrapping_add(usize::from(bid) * self.size as usize)
    }

    fn find(&self, data: *const u8) -> Option<u16> {
        let offset = (data as usize).checked_sub(self.data.0.as_ptr() as usize)?;
        let bid = offset / self.size as usize;
        (bid < self.states.len()).then_some(bid as u16)
    }

    fn drop_part(&self, bid: u16) {
        let state = &self.states[usize::from(bid)];
        let BufferState { parts, is_available, .. } = state.get();
        state.set(BufferState { parts: parts.saturating_sub(1), ..state.get() });
        if parts == 1 && !is_available {
            self.make_available(bid);
        }
    }

    /// Gives a buffer to the kernel, or to the free ones.
    fn make_available(&self, bid: u16) {
        self.states[usize::from(bid)]
            .set(BufferState { is_available: true, ..BufferState::default() });
        self.available.set(self.available.get() + 1);
        if self.group.is_none() {
            self.free.borrow_mut().push(bid);
            return;
        }
        let tail = self.tail.get();
        let at = usize::from(tail) & (self.states.len() - 1);
        let entry = |at: usize| &self.ring.0[at / ENTRIES].0[at % ENTRIES];
        entry(at).addr.store(self.buffer(bid) as u64, Relaxed);
        entry(at).len.store(self.size, Relaxed);
        entry(at).bid.store(bid, Relaxed);
        self.tail.set(tail.wrapping_add(1));
        // The kernel reads the entry once the tail is past it.
        entry(0).tail.store(self.tail.get(), Release);
    }
}
