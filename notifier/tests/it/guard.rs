//! Addresses that are never contacted.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use notifier::resolver::Lookup;
use testkit::wait_until;

use crate::harness::{BOUND, Notifier, World};

/// Resolves every name to the addresses that stand in it: `a-127-0-0-1.test`, and `both` to several.
struct Fake(Arc<AtomicUsize>);

impl Lookup for Fake {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let found: Vec<IpAddr> = match host.as_str() {
            "loopback.test" => vec!["127.0.0.1".parse().unwrap()],
            "mapped.test" => vec!["::ffff:127.0.0.1".parse().unwrap()],
            "several.test" => {
                vec!["10.0.0.1".parse().unwrap(), "::1".parse().unwrap(), "127.0.0.1".parse().unwrap()]
            }
            "nat64.test" => vec!["64:ff9b::7f00:1".parse().unwrap()],
            _ => Vec::new(),
        };
        Box::pin(async move { Ok(found) })
    }
}

/// Listens on all loopback addresses of one port and counts connections.
async fn canary() -> (u16, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let first = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = first.local_addr().unwrap().port();
    let second = tokio::net::TcpListener::bind(("::1", port)).await.ok();
    for listener in [Some(first), second].into_iter().flatten() {
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((_stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    (port, count)
}

const HOSTS: [&str; 12] = [
    "loopback.test",
    "mapped.test",
    "several.test",
    "nat64.test",
    "127.0.0.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "localhost",
];

#[tokio::test(flavor = "multi_thread")]
async fn forbidden_addresses_are_refused_at_connect_time_and_never_contacted() {
    let world = World::new("guard").await;
    let partner = world.partner().await;
    let (port, contacted) = canary().await;
    let mut endpoints = Vec::new();
    for host in HOSTS {
        endpoints.push(world.endpoint(partner, &format!("https://{host}:{port}/")).await.0);
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let mut config = world.config();
    config.webhook_allow_loopback_http = false;
    let notifier = Notifier::start(config, Arc::new(Fake(Arc::clone(&asked))));
    world.events(partner, 1).await;
    for (host, endpoint) in HOSTS.iter().zip(&endpoints) {
        wait_until("an attempt", BOUND, async || !world.attempts(*endpoint).await.is_empty()).await;
        let expected = if *host == "localhost" { "dns" } else { "refused_by_guard" };
        assert_eq!(world.attempts(*endpoint).await[0], expected, "{host}");
    }
    assert_eq!(contacted.load(Ordering::Relaxed), 0);
    assert!(asked.load(Ordering::Relaxed) >= 5, "names are resolved at connect time");
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canary_sings_where_loopback_is_allowed() {
    let world = World::new("guard-local").await;
    let partner = world.partner().await;
    let (port, contacted) = canary().await;
    world.endpoint(partner, &format!("https://loopback.test:{port}/")).await;
    let notifier = Notifier::start(world.config(), Arc::new(Fake(Arc::default())));
    world.events(partner, 1).await;
    wait_until("a connection", BOUND, async || contacted.load(Ordering::Relaxed) > 0).await;
    notifier.stop().await;
    world.env.close().await;
}
