//! The cheapest driver there can be: requests signed before the clock starts, written as they are to kept
//! connections, answers read by their length. On a machine that the driver shares with what it measures, a whole HTTP
//! client would be a good part of what is measured.
//!
//! One request at a time on each connection; nothing is repeated.

mod requests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(super) use requests::{Requests, Signer};

use crate::driver::now_us;
use crate::latency::Latencies;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest answer that is read: that of a batch of 500.
const ANSWER_BYTES_MAX: usize = 1_024 * 1_024;
/// What a timer may be late by its nature. A request begun so little late counts from when it was begun.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// One answered request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    /// Which request.
    pub(super) index: usize,
    /// When it was due, or begun when it was not late, in microseconds since 1970.
    pub(super) due_us: i64,
    /// The HTTP status.
    pub(super) status: u16,
}

/// What came of the requests.
pub(super) struct Outcome {
    pub(super) answered: Vec<Answered>,
    pub(super) latencies: Latencies,
    /// From the first request to the last answer.
    pub(super) elapsed: Duration,
}

impl Outcome {
    /// How often each status came.
    pub(super) fn statuses(&self) -> BTreeMap<u16, usize> {
        let mut statuses = BTreeMap::new();
        for answered in &self.answered {
            *statuses.entry(answered.status).or_default() += 1;
        }
        statuses
    }

    /// Fails unless every answer was this one: everything else would measure another thing.
    pub(super) fn only(&self, status: u16) -> anyhow::Result<()> {
        let statuses = self.statuses();
        if statuses.keys().any(|it| *it != status) {
            bail!("answers other than {status} came, by status: {statuses:?}");
        }
        Ok(())
    }

    /// Answers a second.
    pub(super) fn per_second(&self) -> f64 {
        self.answered.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Sends requests until `duration` is over or there are no more. With `rate` request `n` is due at `n / rate`,
/// otherwise each connection sends the next when it has its answer.
pub(super) async fn send(
    address: SocketAddr,
    requests: &Arc<Requests>,
    connections: usize,
    rate: Option<f64>,
    duration: Duration,
) -> anyhow::Result<Outcome> {
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for stream in streams {
        let worker = Worker {
            stream,
            buffer: Vec::with_capacity(4_096),
            answered: Vec::new(),
            latencies: Latencies::default(),
        };
        workers.spawn(worker.run(requests.clone(), next.clone(), started, rate, duration));
    }
    let mut outcome =
        Outcome { answered: Vec::new(), latencies: Latencies::default(), elapsed: Duration::ZERO };
    while let Some(worker) = workers.join_next().await {
        let worker = worker??;
        outcome.answered.extend(worker.answered);
        outcome.latencies.merge(&worker.latencies);
    }
    outcome.elapsed = started.elapsed();
    Ok(outcome)
}

/// A connection for one request after the other.
pub(super) struct Connection(Worker);

impl Connection {
    /// Connects.
    pub(super) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (answered, latencies) = (Vec::new(), Latencies::default());
        Ok(Self(Worker { stream, buffer: Vec::with_capacity(4_096), answered, latencies }))
    }

    /// Sends a request and gives the answer's status when all of the answer is there.
    pub(super) async fn ask(&mut self, requests: &Requests, index: usize) -> anyhow::Result<u16> {
        self.0.exchange(requests.get(index).context("there is no such request")?).await
    }
}

/// Sends one request on a connection of its own and gives the answer's body; every other status than 200 is an error.
pub(super) async fn body(address: SocketAddr, requests: &Requests, index: usize) -> anyhow::Result<Vec<u8>> {
    let stream = TcpStream::connect(address).await?;
    let mut worker =
        Worker { stream, buffer: Vec::new(), answered: Vec::new(), latencies: Latencies::default() };
    let request = requests.get(index).context("there is no such request")?;
    let exchange = tokio::time::timeout(ANSWER_TIMEOUT, worker.exchange(request)).await;
    let status = exchange.context("an answer took too long")??;
    let start = worker.buffer.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |end| end + 4);
    let body = worker.buffer.split_off(start);
    if status != 200 {
        bail!("an answer {status} came: {}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}

struct Worker {
    stream: TcpStream,
    buffer: Vec<u8>,
    answered: Vec<Answered>,
    latencies: Latencies,
}

impl Worker {
    async fn run(
        mut self,
        requests: Arc<Requests>,
        next: Arc<AtomicUsize>,
        started: Instant,
        rate: Option<f64>,
        duration: Duration,
    ) -> anyhow::Result<Self> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(request) = requests.get(index) else { return Ok(self) };
            let due = rate.map(|rate| started + Duration::from_secs_f64(index as f64 / rate));
            if due.unwrap_or_else(Instant::now) >= started + duration {
                return Ok(self);
            }
            if let Some(due) = due {
                tokio::time::sleep_until(due).await;
            }
            let begun = Instant::now();
            let due = due.filter(|due| *due + TIMER_SLACK < begun).unwrap_or(begun);
            let due_us = now_us() - begun.duration_since(due).as_micros() as i64;
            let exchange = tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(request)).await;
            let status = exchange.context("an answer took too long")??;
            self.latencies.record(due.elapsed());
            self.answered.push(Answered { index, due_us, status });
        }
    }

    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the server closed the connection");
            }
            if let Some((status, length)) = head(&self.buffer)?
                && self.buffer.len() >= length
            {
                return Ok(status);
            }
            if self.buffer.len() > ANSWER_BYTES_MAX {
                bail!("an answer is longer than {ANSWER_BYTES_MAX} bytes");
            }
        }
    }
}

/// Status and whole length of an answer whose head is complete.
fn head(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..end]).context("the head of an answer is no text")?;
    let status = text.get(9..12).and_then(|status| status.parse().ok()).context("an answer has no status")?;
    let length = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(Ok(0), |(_, value)| value.trim().parse::<usize>())?;
    Ok(Some((status, end + 4 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_length_says() {
        assert_eq!(head(b"HTTP/1.1 202 Accepted\r\ncontent-le").unwrap(), None);
        let whole = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\nx: y\r\n\r\n{}";
        assert_eq!(head(whole).unwrap(), Some((202, whole.len())));
        assert_eq!(head(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Some((204, 27)));
        assert!(head(b"nonsense\r\n\r\n").is_err());
    }
}
