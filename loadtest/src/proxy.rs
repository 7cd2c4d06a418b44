//! A small TCP proxy on loopback that breaks connections on request: pause, cut, refuse, delay, or cut at the very
//! moment when a byte pattern (such as `COMMIT`) travels from client to server.
//!
//! One task a direction. A pattern is found across reads as well. Nothing is buffered beyond one read, so a paused
//! proxy fills the sockets' buffers and then holds both sides up, as a dead network does.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// One read.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long the server may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// When a matched connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The server never sees the pattern.
    BeforeForwarding,
    /// The server gets the pattern, and the client never sees the answer.
    AfterForwarding,
}

/// Cut the next connection on which the pattern passes.
#[derive(Debug, Clone)]
struct Trap {
    pattern: Vec<u8>,
    moment: Moment,
}

/// What holds for all connections at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Mode {
    paused: bool,
    refusing: bool,
    delay: Duration,
}

#[derive(Debug)]
struct Shared {
    mode: watch::Sender<Mode>,
    traps: Mutex<VecDeque<Trap>>,
    /// Cancelled to cut all connections, then replaced.
    cut: Mutex<CancellationToken>,
    sprung: AtomicU64,
    connections: AtomicU64,
}

/// A running proxy; its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
}

impl Proxy {
    /// Listens on `listen` and forwards to `server`.
    pub async fn start(listen: SocketAddr, server: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let proxy = Self {
            address: listener.local_addr()?,
            shared: Arc::new(Shared {
                mode: watch::Sender::new(Mode::default()),
                traps: Mutex::new(VecDeque::new()),
                cut: Mutex::new(CancellationToken::new()),
                sprung: AtomicU64::new(0),
                connections: AtomicU64::new(0),
            }),
            shutdown: CancellationToken::new(),
        };
        tokio::spawn(accept(listener, server, proxy.shared.clone(), proxy.shutdown.clone()));
        Ok(proxy)
    }

    /// Where to connect to instead of the server.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds every byte back until [`Self::resume`]; connections stay open.
    pub fn pause(&self) {
        self.shared.mode.send_modify(|mode| mode.paused = true);
    }

    /// Lets bytes pass again.
    pub fn resume(&self) {
        self.shared.mode.send_modify(|mode| mode.paused = false);
    }

    /// Delays every read by so much before it is forwarded.
    pub fn delay(&self, delay: Duration) {
        self.shared.mode.send_modify(|mode| mode.delay = delay);
    }

    /// Resets every connection; new ones are accepted.
    pub fn cut(&self) {
        let cut = std::mem::take(&mut *lock(&self.shared.cut));
        cut.cancel();
    }

    /// Resets every connection and every new one, as if the server were gone, until [`Self::accept`].
    pub fn refuse(&self) {
        self.shared.mode.send_modify(|mode| mode.refusing = true);
        self.cut();
    }

    /// Accepts connections again.
    pub fn accept(&self) {
        self.shared.mode.send_modify(|mode| mode.refusing = false);
    }

    /// Resets the next connection on which `pattern` passes from client to server. Traps spring one after the other.
    pub fn cut_at(&self, pattern: &[u8], moment: Moment) {
        lock(&self.shared.traps).push_back(Trap { pattern: pattern.to_vec(), moment });
    }

    /// How many traps have sprung.
    pub fn sprung(&self) -> u64 {
        self.shared.sprung.load(Ordering::Relaxed)
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.cut();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>, shutdown: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        // Out of file descriptors, say: nothing to forward.
        let Ok((client, _)) = accepted else { continue };
        let cut = lock(&shared.cut).clone();
        if shared.mode.borrow().refusing {
            reset(&client);
            continue;
        }
        shared.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(forward(client, server, shared.clone(), cut));
    }
}

/// Closing the socket now sends a reset instead of an orderly end.
fn reset(stream: &TcpStream) {
    // It may be gone already.
    let _ = stream.set_zero_linger();
}

async fn forward(mut client: TcpStream, server: SocketAddr, shared: Arc<Shared>, cut: CancellationToken) {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(server));
    let Ok(Ok(mut server)) = connecting.await else { return reset(&client) };
    // A proxy that waits to fill segments would slow the measured system down; without the option it only does.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ended = {
        let ((client_read, client_write), (server_read, server_write)) = (client.split(), server.split());
        let both = async {
            let upstream = pump(client_read, server_write, &shared, true);
            let downstream = pump(server_read, client_write, &shared, false);
            tokio::try_join!(upstream, downstream)
        };
        tokio::select! {
            biased;
            () = cut.cancelled() => Err(Cut::BothSides),
            ended = both => ended.map(drop),
        }
    };
    if let Err(cut) = ended {
        reset(&client);
        if cut == Cut::BothSides {
            reset(&server);
        }
    }
}

/// Who is to see a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    BothSides,
    /// The server reads what was forwarded, and then an orderly end.
    ClientSide,
}

/// Forwards one direction to its end.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
    upstream: bool,
) -> Result<(), Cut> {
    let mut mode = shared.mode.subscribe();
    let mut buffer = vec![0; BUFFER_BYTES];
    // The end of what passed before, in which a pattern may have begun.
    let mut passed = Vec::new();
    loop {
        let length = from.read(&mut buffer).await.map_err(|_| Cut::BothSides)?;
        let delay = mode.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        mode.wait_for(|mode| !mode.paused).await.map_err(|_| Cut::BothSides)?;
        if length == 0 {
            return to.shutdown().await.map_err(|_| Cut::BothSides);
        }
        let sprung = if upstream { shared.spring(&mut passed, &buffer[..length]) } else { None };
        if sprung == Some(Moment::BeforeForwarding) {
            return Err(Cut::BothSides);
        }
        to.write_all(&buffer[..length]).await.map_err(|_| Cut::BothSides)?;
        if sprung.is_some() {
            return Err(Cut::ClientSide);
        }
    }
}

impl Shared {
    /// Takes the first trap when its pattern ends within `bytes`.
    fn spring(&self, passed: &mut Vec<u8>, bytes: &[u8]) -> Option<Moment> {
        let mut traps = lock(&self.traps);
        let moment = traps.front().and_then(|trap| {
            passed.extend_from_slice(bytes);
            let found = passed.windows(trap.pattern.len()).any(|window| window == trap.pattern);
            passed.drain(..passed.len().saturating_sub(trap.pattern.len() - 1));
            found.then_some(trap.moment)
        });
        if moment.is_some() {
            traps.pop_front();
            self.sprung.fetch_add(1, Ordering::Relaxed);
        }
        moment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers every line with the same line, and the proxy before it.
    async fn echo() -> (Proxy, Arc<Mutex<Vec<u8>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = seen.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let all = all.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 1024];
                    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                        lock(&all).extend_from_slice(&buffer[..length]);
                        if stream.write_all(&buffer[..length]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        (Proxy::start("127.0.0.1:0".parse().unwrap(), server).await.unwrap(), seen)
    }

    async fn say(stream: &mut TcpStream, text: &str) -> std::io::Result<String> {
        stream.write_all(text.as_bytes()).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        Ok(String::from_utf8(answer).unwrap())
    }

    #[tokio::test]
    async fn bytes_pass_until_the_connection_is_cut_and_again_on_a_new_one() {
        let (proxy, _) = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(say(&mut stream, "one").await.unwrap(), "one");
        proxy.cut();
        assert!(say(&mut stream, "two").await.is_err());
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(say(&mut stream, "three").await.unwrap(), "three");
        proxy.refuse();
        assert!(say(&mut stream, "four").await.is_err());
        if let Ok(mut stream) = TcpStream::connect(proxy.address()).await {
            assert!(say(&mut stream, "five").await.is_err());
        }
        proxy.accept();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(say(&mut stream, "six").await.unwrap(), "six");
        assert_eq!(proxy.connections(), 3);
    }

    #[tokio::test]
    async fn a_paused_proxy_holds_bytes_back() {
        let (proxy, seen) = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(say(&mut stream, "one").await.unwrap(), "one");
        proxy.pause();
        let held = tokio::time::timeout(Duration::from_millis(100), say(&mut stream, "two")).await;
        assert!(held.is_err());
        assert_eq!(*lock(&seen), b"one");
        proxy.resume();
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"two");
    }

    #[tokio::test]
    async fn a_trap_springs_once_before_or_after_the_pattern_is_forwarded() {
        let (proxy, seen) = echo().await;
        for (moment, arrives) in [(Moment::BeforeForwarding, false), (Moment::AfterForwarding, true)] {
            lock(&seen).clear();
            proxy.cut_at(b"COMMIT", moment);
            let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
            assert_eq!(say(&mut stream, "a COM").await.unwrap(), "a COM", "half a pattern is none");
            let after = say(&mut stream, "MIT").await;
            assert!(after.is_err(), "{moment:?}: {after:?}");
            for _ in 0..200 {
                if lock(&seen).ends_with(b"COMMIT") == arrives {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(lock(&seen).ends_with(b"COMMIT"), arrives, "{moment:?}");
        }
        assert_eq!(proxy.sprung(), 2);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(say(&mut stream, "COMMIT").await.unwrap(), "COMMIT", "the traps are used up");
    }
}
