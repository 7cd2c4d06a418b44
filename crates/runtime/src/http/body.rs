//! A request's body that must arrive in time.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

/// What is read of a refused request's body so that its connection can be used again.
const DRAIN_BYTES_MAX: usize = 64 * 1024;
/// How long that may take: the answer waits for it. Most of it has arrived already.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

type BoxError = Box<dyn Error + Send + Sync>;

/// The client did not send its body in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body did not arrive in time")]
pub struct BodyTimedOut;

/// Whether reading a body failed because it did not arrive in time, which is the client's 408.
pub fn is_body_timeout(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<BodyTimedOut>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Where a body that was dropped unread waits for [`drain`].
pub(super) type Unread = Arc<Mutex<Option<Incoming>>>;

/// Counts from the end of the request's head to the end of its body, however it trickles in.
pub(super) struct TimedBody {
    /// Always there until this is dropped.
    body: Option<Incoming>,
    deadline: Instant,
    /// Made at the first wait: most bodies arrive with their head.
    alarm: Option<Pin<Box<Sleep>>>,
    unread: Unread,
}

impl TimedBody {
    pub(super) fn new(body: Incoming, timeout: Duration, unread: Unread) -> Self {
        Self { body: Some(body), deadline: Instant::now() + timeout, alarm: None, unread }
    }
}

impl Drop for TimedBody {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

/// Reads and forgets what a handler left of a body, within bounds; `false` when there is more.
///
/// A connection whose request was not read to its end cannot be used again, and closing it with bytes unread resets
/// it, which can swallow the answer on its way.
pub(super) async fn drain(unread: &Unread) -> bool {
    let rest = unread.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut body) = rest else { return true };
    let reading = async {
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DRAIN_BYTES_MAX {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(DRAIN_TIMEOUT, reading).await.unwrap_or(false)
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = self.deadline;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        alarm.as_mut().poll(context).map(|()| Some(Err(BodyTimedOut.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
