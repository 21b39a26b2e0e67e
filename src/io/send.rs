//! Sending from a buffer. Data is sent in the order of the calls: a send that begins before a
//! cancelled one has ended waits for its end. It is unknown how much a cancelled send has sent.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::in_flight::run;
use super::shared_fd::{IoKind, SharedFd};
use super::turn::{InTurn, Left, LeftCell, Turn, Turns};
use crate::error::{Error, Result};
use crate::event_loop::Loop;
use crate::op::buffer::{Buffer, Rest};
use crate::op::data::Bytes;
use crate::op::sockets;
use crate::op::streams::{CURRENT, write};
use crate::sys::memory::TryRc;

/// Sends from a buffer; returns the number of bytes. If dropped, it may have sent a part.
pub(crate) fn send<B: Buffer>(fd: &TryRc<SharedFd>, buffer: B, flags: i32) -> Turn<Bytes<B>> {
    let op = match fd.kind {
        IoKind::Socket => sockets::send(fd.clone(), Bytes(buffer), flags),
        IoKind::File => write(fd.clone(), Bytes(buffer), CURRENT),
    };
    Turn::new(fd, op)
}

impl<B: Buffer> InTurn for Bytes<B> {
    fn turns(fd: &SharedFd) -> &Turns {
        &fd.sending
    }

    fn poll_others(fd: &SharedFd, context: &Context<'_>) -> Poll<()> {
        fd.poll_position(&fd.receiving, context)
    }

    fn take_left(self, _: &SharedFd, _: LeftCell) -> std::result::Result<(Result<usize>, B), Self> {
        Err(self)
    }

    /// The byte count of a cancelled send is discarded.
    fn left(_: &mut (Result<usize>, B)) -> Result<Left<'_>> {
        Ok(Left::Nothing)
    }
}

/// The end of sending a rest, after the result of an attempt, if any; None: some is left to send.
fn end_of<B: Buffer>(rest: &mut Rest<B>, result: Option<Result<usize>>) -> Option<Result<()>> {
    match result {
        Some(Ok(0)) => return Some(Err(Error::NOTHING_WRITTEN)),
        Some(Ok(count)) => rest.advance(count),
        Some(Err(error)) => return Some(Err(error)),
        None => {}
    }
    rest.bytes().is_empty().then_some(Ok(()))
}

/// Sends the whole buffer. If dropped, it may have sent a part.
pub(crate) struct SendAll<B: Buffer> {
    fd: TryRc<SharedFd>,
    /// The data to be sent, unless a send has it.
    rest: Option<Rest<B>>,
    send: Option<Turn<Bytes<Rest<B>>>>,
}

pub(crate) fn send_all<B: Buffer>(fd: &TryRc<SharedFd>, buffer: B) -> SendAll<B> {
    SendAll { fd: fd.clone(), rest: Some(Rest::new(buffer)), send: None }
}

impl<B: Buffer> Future for SendAll<B> {
    type Output = (Result<()>, B);

    /// # Panics
    /// If it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(Result<()>, B)> {
        let mut result = None;
        loop {
            if let Some(mut rest) = self.rest.take() {
                if let Some(result) = end_of(&mut rest, result.take()) {
                    return Poll::Ready((result, rest.into_buffer()));
                }
                // A partial send occurs only on kernels that do not continue by themselves, or
                // before an error.
                let is_whole = Loop::with_running(|lp| lp.is_some_and(Loop::sends_whole));
                let flags = if is_whole { libc::MSG_WAITALL } else { 0 };
                self.send = Some(send(&self.fd, rest, flags));
            }
            let send = self.send.as_mut().expect("a future is not polled after it was ready");
            let (sent, rest) = ready!(Pin::new(send).poll(context));
            self.send = None;
            (result, self.rest) = (Some(sent), Some(rest));
        }
    }
}

impl<B: Buffer> Unpin for SendAll<B> {}

/// Writes a whole buffer at an offset of a file.
pub(crate) async fn write_all_at<B: Buffer>(
    file: &TryRc<SharedFd>,
    buffer: B,
    offset: u64,
) -> (Result<()>, B) {
    let mut rest = Rest::new(buffer);
    let mut result = None;
    loop {
        if let Some(result) = end_of(&mut rest, result) {
            return (result, rest.into_buffer());
        }
        let at = offset.saturating_add(rest.done() as u64);
        let (written, left) = run(write(file.clone(), Bytes(rest), at)).await;
        (result, rest) = (Some(written), left);
    }
}
