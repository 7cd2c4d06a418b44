//! A TCP stream that ends when its client is too slow: with the head of a request, or with reading an answer.
//!
//! The stream cannot see where a request begins and ends, so [`Phase`] is told by the service. Idle time between
//! requests is not counted here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

const HEAD: u8 = 0;
const BUSY: u8 = 1;
const WAITING: u8 = 2;

/// What a connection is doing. Begins with a head: who connects should have something to say.
#[derive(Debug, Clone, Default)]
pub(super) struct Phase(Arc<AtomicU8>);

impl Phase {
    /// The head has arrived.
    pub(super) fn busy(&self) {
        self.0.store(BUSY, Ordering::Relaxed);
    }

    /// The answer is on its way; the next byte read begins a head.
    pub(super) fn waiting(&self) {
        self.0.store(WAITING, Ordering::Relaxed);
    }

    fn is(&self, phase: u8) -> bool {
        self.0.load(Ordering::Relaxed) == phase
    }
}

pub(super) struct GuardedStream {
    stream: TcpStream,
    phase: Phase,
    header_timeout: Duration,
    write_timeout: Duration,
    /// When the head must have arrived; counts in the phase `HEAD`.
    head_alarm: Pin<Box<Sleep>>,
    /// When the write that waits must have gone on.
    write_alarm: Option<Pin<Box<Sleep>>>,
}

impl GuardedStream {
    pub(super) fn new(
        stream: TcpStream,
        phase: Phase,
        header_timeout: Duration,
        write_timeout: Duration,
    ) -> Self {
        let head_alarm = Box::pin(tokio::time::sleep(header_timeout));
        Self { stream, phase, header_timeout, write_timeout, head_alarm, write_alarm: None }
    }

    fn watch_write<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_alarm = None;
            return written;
        }
        let timeout = self.write_timeout;
        let alarm = self.write_alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(alarm.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let guarded = self.get_mut();
        let filled = buffer.filled().len();
        let read = Pin::new(&mut guarded.stream).poll_read(context, buffer)?;
        if buffer.filled().len() > filled && guarded.phase.is(WAITING) {
            guarded.phase.0.store(HEAD, Ordering::Relaxed);
            guarded.head_alarm.as_mut().reset(Instant::now() + guarded.header_timeout);
        }
        // Between any two bytes of a trickle there is a read that waits, so it is enough to look then.
        if read.is_pending() && guarded.phase.is(HEAD) {
            ready!(guarded.head_alarm.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read.map(Ok)
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let guarded = self.get_mut();
        let written = Pin::new(&mut guarded.stream).poll_write(context, bytes);
        guarded.watch_write(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let guarded = self.get_mut();
        let written = Pin::new(&mut guarded.stream).poll_write_vectored(context, slices);
        guarded.watch_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
