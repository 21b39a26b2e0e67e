//! Actions: watchers, connections, rings of buffers, and loop_forget_fd().

use std::cell::{Cell, RefCell};
use std::mem::zeroed;
use std::ops::Range;
use std::ptr;
use std::rc::Rc;

use libc::{EBADF, EBUSY, EINVAL, EPERM};

use super::api;
use super::io::{Buffers, Kind};
use super::language::{Byte, Count, Descriptor, End, Events, Few, Many, Owner, Size};
use super::machine::{Lp, Machine, Phase, add, no};
use super::streams::close;
use super::thing::{self, Role, State, Thing};

impl Machine {
    pub(crate) fn watch(
        &self,
        l: &Rc<Lp>,
        end: End,
        events: Events,
        descriptor: Descriptor,
        script: Range<usize>,
    ) {
        let mut fd = self.fd_of(end);
        if fd < 0 {
            return;
        }
        let thing = self.new_thing(l, Role::Watch, script);
        let mut demanded = if events == Events::Unknown { no(EINVAL) } else { l.if_open(0) };
        if descriptor != Descriptor::OfStream && demanded == 0 {
            // No descriptor, and a descriptor that poll(2) cannot wait for.
            let is_open = descriptor == Descriptor::Directory;
            fd = if is_open {
                // SAFETY: the path is a C string.
                unsafe { libc::open(c"/".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) }
            } else {
                -1
            };
            demanded = if is_open { no(EPERM) } else { no(EBADF) };
        }
        let events = bits(events);
        thing.io.fd.set(fd);
        thing.io.events.set(events);
        let handle = self.call(|| api::loop_watch_fd(l.ptr, fd, events, thing::WATCH, thing.arg()));
        if demanded == no(EPERM) {
            close(&Cell::new(fd));
        }
        self.check_submitted("loop_watch_fd", &thing, handle, demanded);
    }

    pub(crate) fn update_watch(
        &self,
        l: &Lp,
        handle: i64,
        thing: Option<&Thing>,
        events: Events,
    ) -> (i32, i64) {
        let events = bits(events);
        let result = self.call(|| api::loop_watch_update(l.ptr, handle, events));
        let is_watch = thing.is_some_and(|thing| thing.role == Role::Watch);
        if let (Some(thing), 0) = (thing, result) {
            thing.io.events.set(events);
        }
        (result, if is_watch { 0 } else { no(EINVAL) })
    }

    /// Every watcher of a descriptor ends, and every operation on it is asked to end.
    pub(crate) fn forget(&self, l: &Rc<Lp>, fd: i32) -> i32 {
        let is_on = |thing: &Thing| thing.is_pending() && fd >= 0 && thing.io.fd.get() == fd;
        let demanded = l.unless_closing(if fd < 0 { no(EBADF) } else { 0 });
        let has_chains =
            self.any_of(l, |thing| is_on(thing) && thing.io.is_chained.get()).is_some();
        let watchers = self.things_of(l, |thing| is_on(thing) && thing.role == Role::Watch);
        let outer = l.forgetting.replace(fd);
        if demanded == 0 && !l.is(Phase::ShuttingDown) {
            watchers.iter().for_each(|watcher| watcher.state.set(State::Cancelled));
            self.things_of(l, |thing| is_on(thing) && thing.is_operation())
                .iter()
                .for_each(|op| op.io.asked.set(true));
        }
        let result = self.call(|| api::loop_forget_fd(l.ptr, fd));
        l.forgetting.set(outer);
        l.has_entered.set(true);
        if demanded == 0 {
            // Watchers that release hooks have added meanwhile end as well.
            for thing in self.things_of(l, is_on) {
                if thing.role == Role::Watch {
                    thing.state.set(State::Cancelled);
                }
                thing.io.asked.set(true);
            }
            let are_gone =
                watchers.iter().all(|watcher| !api::loop_is_pending(l.ptr, watcher.handle.get()));
            self.require(are_gone, || {
                format!("a watcher of {fd} is pending after loop_forget_fd()")
            });
            let is_running = |thing: &Rc<Thing>| {
                thing.on_stack.get()
                    || l.in_report.get() && ptr::eq(l.last.get(), Rc::as_ptr(thing))
            };
            let is_owed = |thing: &&Rc<Thing>| {
                thing.release.get().is_some() && thing.released.get() == 0 && !is_running(thing)
            };
            if let Some(watcher) =
                watchers.iter().find(is_owed).filter(|_| !l.is(Phase::ShuttingDown))
            {
                self.fail(|| format!("{watcher} was not released by loop_forget_fd()"));
            }
        }
        let is_vague = result > 0 && has_chains;
        self.check_call("loop_forget_fd", if is_vague { 0 } else { result }, demanded);
        result
    }

    /// Makes all loops forget one end of a stream, and closes it: the other end sees this at once.
    pub(crate) fn close_end(&self, end: End) {
        let Some((pair, end)) = self.pair(end) else { return };
        let (fd, other) = (pair.fds[end].get(), &pair.fds[1 - end]);
        let loops: Vec<_> = self.loops.iter().filter_map(|slot| slot.borrow().clone()).collect();
        if loops.iter().any(|l| matches!(l.phase.get(), Phase::Closing | Phase::ShuttingDown)) {
            return;
        }
        // A release hook may start new work on one of the other loops.
        for _ in 0..2 {
            for l in loops.iter().filter(|l| !l.is(Phase::Closed)) {
                if self.forget(l, fd) != 0 {
                    return;
                }
            }
        }
        let has_some = |thing: &Rc<Thing>| {
            thing.io.fd.get() == fd
                && thing.is_pending()
                && (!thing.io.asked.get() || thing.role == Role::Watch)
        };
        if self.things.borrow().iter().any(has_some) || pair.fds[end].get() != fd {
            return;
        }
        pair.directions.iter().for_each(|direction| direction.is_cut.set(true));
        close(&pair.fds[end]);
        let mut poll = libc::pollfd { fd: other.get(), events: libc::POLLIN, revents: 0 };
        if other.get() >= 0 {
            // SAFETY: `poll` is one pollfd.
            unsafe { libc::poll(&raw mut poll, 1, 0) };
            let is_seen = poll.revents & (libc::POLLHUP | libc::POLLERR) != 0;
            self.require(is_seen, || {
                format!("{fd} was closed, and {} does not see it", other.get())
            });
        }
    }

    /// The listening socket, made on first use.
    fn listener(&self) -> i32 {
        if self.listener.get() >= 0 {
            return self.listener.get();
        }
        // SAFETY: for an address that has only a family, the kernel chooses a name.
        unsafe {
            let fd = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            let mut address: libc::sockaddr_un = zeroed();
            address.sun_family = libc::AF_UNIX as u16;
            libc::bind(fd, (&raw const address).cast(), 2);
            libc::listen(fd, 8);
            self.listener.set(fd);
            fd
        }
    }

    pub(crate) fn accept(&self, l: &Rc<Lp>, many: Many, script: Range<usize>) {
        let thing = self.new_thing(l, Role::Operation, script);
        let (fd, io) = (self.listener(), &thing.io);
        io.fd.set(fd);
        let is_multi = many == Many::Many;
        io.kind.set(if is_multi { Kind::AcceptMulti } else { Kind::Accept });
        let accept = if is_multi { api::loop_accept_multi } else { api::loop_accept };
        let handle = self.call(|| accept(l.ptr, fd, libc::SOCK_CLOEXEC, thing::IO, thing.arg()));
        self.check_submitted("loop_accept", &thing, handle, l.if_open(0));
    }

    /// Connects to the listening socket, if one more connection may wait.
    pub(crate) fn connect(&self) {
        let listener = self.listener();
        if self.connections.borrow().len() >= 16 {
            return;
        }
        // SAFETY: the address has room for the name.
        unsafe {
            let mut address: libc::sockaddr_un = zeroed();
            let mut length = size_of::<libc::sockaddr_un>() as u32;
            libc::getsockname(listener, (&raw mut address).cast(), &raw mut length);
            let fd = libc::socket(
                libc::AF_UNIX,
                libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                0,
            );
            let is_made = libc::connect(fd, (&raw const address).cast(), length) == 0;
            self.connections.borrow_mut().push(fd);
            add(&self.connected, u64::from(is_made));
        }
    }

    pub(crate) fn end_connections(&self) {
        let (connected, accepted) = (self.connected.get(), self.accepted.get());
        self.require(accepted <= connected, || {
            format!("{accepted} of {connected} connections were accepted")
        });
        self.connections.take().into_iter().for_each(|fd| close(&Cell::new(fd)));
        close(&self.listener);
    }

    pub(crate) fn new_buffers(&self, l: &Rc<Lp>, count: Count, size: Size) {
        if self.buffers.borrow().len() >= 6 {
            return;
        }
        let (count, size) = (count.0 as u32, size.0 as u32);
        let is_right = (1..=32_768).contains(&count) && size > 0;
        let mut buffers = ptr::null_mut();
        let result = self.call(|| api::loop_buffers_new(l.ptr, count, size, &raw mut buffers));
        self.check_call(
            "loop_buffers_new",
            result,
            if is_right { l.if_open(0) } else { no(EINVAL) },
        );
        self.require(buffers.is_null() == (result != 0), || {
            "loop_buffers_new() wrote wrongly".into()
        });
        if result == 0 {
            l.has_entered.set(true);
            let buffers = Buffers { ptr: buffers, lp: Rc::clone(l), kept: RefCell::default() };
            self.buffers.borrow_mut().push(Rc::new(buffers));
        }
    }

    fn pick_buffers(&self, which: Few, wanted: impl Fn(&Buffers) -> bool) -> Option<Rc<Buffers>> {
        let buffers = self.buffers.borrow();
        let wanted: Vec<_> = buffers.iter().filter(|buffers| wanted(buffers)).collect();
        wanted.get(which.0 as usize % wanted.len().max(1)).map(|buffers| Rc::clone(buffers))
    }

    pub(crate) fn free_buffers(&self, which: Few) {
        let Some(buffers) = self.pick_buffers(which, |_| true) else {
            return self.check("loop_buffers_free", api::loop_buffers_free(ptr::null_mut()), 0);
        };
        let l = &buffers.lp;
        let uses = |thing: &Thing| {
            let theirs = thing.io.buffers.borrow();
            thing.is_pending() && theirs.as_ref().is_some_and(|theirs| Rc::ptr_eq(theirs, &buffers))
        };
        let is_used = self.any_of(l, uses).is_some() || !buffers.kept.borrow().is_empty();
        let result = api::loop_buffers_free(buffers.ptr);
        // Inside loop_shutdown() the model does not know which things have ended.
        let demanded = l.unless_closing(if is_used { no(EBUSY) } else { 0 });
        let is_vague = l.is(Phase::ShuttingDown) && result == 0;
        self.check("loop_buffers_free", result, if is_vague { 0 } else { demanded });
        if result == 0 {
            self.buffers.borrow_mut().retain(|other| !Rc::ptr_eq(other, &buffers));
        }
    }

    /// Returns a part that is kept, by any address inside this part.
    pub(crate) fn return_buffer(&self, which: Few, at: Byte) {
        let Some(buffers) = self.pick_buffers(which, |buffers| !buffers.kept.borrow().is_empty())
        else {
            let Some(buffers) = self.pick_buffers(which, |_| true) else { return };
            let demanded = buffers.lp.unless_closing(no(EINVAL));
            let foreign = ptr::from_ref(self).cast();
            self.check(
                "loop_buffer_return",
                api::loop_buffer_return(buffers.ptr, foreign),
                demanded,
            );
            return self.check(
                "loop_buffer_keep",
                api::loop_buffer_keep(buffers.ptr, foreign),
                demanded,
            );
        };
        let l = &buffers.lp;
        let (at, offset) = (at.0 as usize, at.0 as usize);
        let at = at % buffers.kept.borrow().len();
        let (data, length) = {
            let kept = &buffers.kept.borrow()[at];
            self.require(kept.is_intact(), || "kept data has changed".into());
            (kept.data, kept.copy.len())
        };
        let result =
            api::loop_buffer_return(buffers.ptr, data.wrapping_add(offset % length).cast());
        self.check("loop_buffer_return", result, l.unless_closing(0));
        if result == 0 {
            buffers.kept.borrow_mut().swap_remove(at);
        }
    }

    pub(crate) fn receive_multi(
        &self,
        l: &Rc<Lp>,
        end: End,
        buffers: Few,
        owner: Owner,
        script: Range<usize>,
    ) {
        let is_foreign = owner == Owner::Other;
        let wanted = |buffers: &Buffers| {
            Rc::ptr_eq(&buffers.lp, l) != is_foreign && !buffers.lp.is(Phase::Closing)
        };
        let Some(buffers) = self.pick_buffers(buffers, wanted) else { return };
        let Some((direction, is_pipe)) = self.direction(end) else { return };
        if is_pipe || direction.has_receiver.replace(true) {
            return;
        }
        let thing = self.new_thing(l, Role::Operation, script);
        let (io, fd) = (&thing.io, direction.to);
        io.kind.set(Kind::ReceiveMulti);
        io.fd.set(fd);
        *io.direction.borrow_mut() = Some(direction);
        *io.buffers.borrow_mut() = Some(Rc::clone(&buffers));
        let handle =
            self.call(|| api::loop_recv_multi(l.ptr, fd, buffers.ptr, thing::RECV, thing.arg()));
        let demanded = l.if_open(if is_foreign { no(EINVAL) } else { 0 });
        self.check_submitted("loop_recv_multi", &thing, handle, demanded);
    }
}

/// The events to watch for, or bits that poll(2) does not have.
fn bits(events: Events) -> u32 {
    match events {
        Events::In => libc::POLLIN as u32,
        Events::Out => libc::POLLOUT as u32,
        Events::Both => (libc::POLLIN | libc::POLLOUT) as u32,
        Events::Rdhup => libc::POLLRDHUP as u32,
        Events::Nothing => 0,
        Events::Unknown => 1 << 31,
    }
}
