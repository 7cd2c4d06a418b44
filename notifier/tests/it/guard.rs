//! Addresses that are never contacted.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use domain::ids::EndpointId;
use futures_util::future::BoxFuture;
use notifier::resolver::Lookup;
use testkit::wait_until;

use crate::harness::{BOUND, Notifier, Sink, World};

/// Resolves names of `.test` to what is refused; `rebinding.test` to a public address at first.
#[derive(Default)]
struct Fake {
    asked: Arc<AtomicUsize>,
    rebound: AtomicBool,
}

impl Lookup for Fake {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let found: &[&str] = match host.trim_end_matches('.') {
            "loopback.test" => &["127.0.0.1"],
            "mapped.test" => &["::ffff:127.0.0.1"],
            "several.test" => &["10.0.0.1", "::1", "127.0.0.1"],
            "nat64.test" => &["64:ff9b::7f00:1"],
            "sixtofour.test" => &["2002:7f00:1::"],
            "teredo.test" => &["2001:0:4136:e378:8000:63bf:80ff:fffe"],
            "metadata.test" => &["169.254.169.254"],
            // An address of the public internet at which nothing of ours listens.
            "rebinding.test" if !self.rebound.swap(true, Ordering::Relaxed) => &["192.0.1.1"],
            "rebinding.test" => &["::1"],
            _ => &[],
        };
        let found: Vec<IpAddr> = found.iter().map(|ip| ip.parse().unwrap()).collect();
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

/// Hosts and the rule that refuses each.
const HOSTS: [(&str, &str); 28] = [
    ("loopback.test", "address"),
    ("mapped.test", "address"),
    ("several.test", "address"),
    ("nat64.test", "address"),
    ("sixtofour.test", "address"),
    ("teredo.test", "address"),
    ("metadata.test", "address"),
    ("loopback.test.", "address"),
    ("127.0.0.1", "address"),
    ("127.0.0.1.", "address"),
    ("2130706433", "address"),
    ("0x7f000001", "address"),
    ("0x7f.0x0.0x0.0x1", "address"),
    ("0177.0.0.1", "address"),
    ("017700000001", "address"),
    ("127.1", "address"),
    ("%31%32%37.0.0.1", "address"),
    ("①②⑦.0.0.1", "address"),
    ("[::1]", "address"),
    ("[::ffff:127.0.0.1]", "address"),
    ("[64:ff9b::7f00:1]", "address"),
    ("[2002:7f00:1::]", "address"),
    ("[2001:0:4136:e378:8000:63bf:80ff:fffe]", "address"),
    ("localhost", "name"),
    ("LocalHost.", "name"),
    ("a.localhost.", "name"),
    ("ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "name"),
    ("user:password@127.0.0.1", "address"),
];

#[tokio::test(flavor = "multi_thread")]
async fn forbidden_addresses_are_refused_at_connect_time_and_never_contacted() {
    let world = World::new("guard").await;
    let partner = world.partner().await;
    let (port, contacted) = canary().await;
    let mut endpoints = Vec::new();
    for (host, rule) in HOSTS {
        endpoints.push((host, rule, world.endpoint(partner, &format!("https://{host}:{port}/")).await.0));
    }
    for (url, rule) in [
        (format!("https://user:password@loopback.test:{port}/"), "credentials"),
        (format!("http://loopback.test:{port}/"), "scheme"),
        ("https://loopback.test:6379/".to_owned(), "port"),
        ("https://loopback.test:22/".to_owned(), "port"),
        ("https:///".to_owned(), "malformed"),
    ] {
        endpoints.push(("", rule, world.endpoint(partner, &url).await.0));
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let mut config = world.config();
    config.webhook_allow_loopback_http = false;
    let notifier = Notifier::start(config, Arc::new(Fake { asked: Arc::clone(&asked), ..Fake::default() }));
    world.events(partner, 1).await;
    for (host, rule, endpoint) in &endpoints {
        wait_until("an attempt", BOUND, async || !world.attempts(*endpoint).await.is_empty()).await;
        assert_eq!(world.attempts(*endpoint).await[0], "refused_by_guard", "{host}");
        assert_eq!(refused_by(&world, *endpoint).await, *rule, "{host}");
    }
    assert_eq!(contacted.load(Ordering::Relaxed), 0);
    assert!(asked.load(Ordering::Relaxed) >= 8, "names are resolved at connect time");
    notifier.stop().await;
    world.env.close().await;
}

async fn refused_by(world: &World, endpoint: EndpointId) -> String {
    let rule: Vec<u8> =
        sqlx::query_scalar("SELECT refused_by FROM attempts WHERE endpoint_id = ? ORDER BY attempt LIMIT 1")
            .bind(endpoint.uuid().as_bytes().as_slice())
            .fetch_one(world.env.pool())
            .await
            .expect("the rule is recorded");
    String::from_utf8(rule).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_pointed_elsewhere_between_look_ups_leads_nowhere() {
    let world = World::new("rebinding").await;
    let partner = world.partner().await;
    let (port, contacted) = canary().await;
    // Public at first, as when the endpoint was made; afterwards it leads home.
    let (endpoint, _) = world.endpoint(partner, &format!("https://rebinding.test:{port}/")).await;
    let mut config = world.config();
    config.webhook_allow_loopback_http = false;
    let fake = Fake::default();
    let asked = Arc::clone(&fake.asked);
    let notifier = Notifier::start(config, Arc::new(fake));
    world.events(partner, 1).await;
    wait_until("the first attempt", BOUND, async || !world.attempts(endpoint).await.is_empty()).await;
    assert_ne!(world.attempts(endpoint).await[0], "refused_by_guard", "it led to a public address");
    for round in 2..5 {
        world.hurry(endpoint).await;
        wait_until("another attempt", BOUND, async || world.attempts(endpoint).await.len() >= round).await;
    }
    assert_eq!(world.attempts(endpoint).await[1..4], ["refused_by_guard"; 3]);
    assert_eq!(contacted.load(Ordering::Relaxed), 0);
    assert!(asked.load(Ordering::Relaxed) >= 4, "no answer of the resolver is kept");
    notifier.stop().await;
    world.env.close().await;
}

/// The environment belongs to the whole process, so the notifier that it must not impress is a process of its own.
#[test]
fn a_proxy_of_the_environment_is_not_asked() {
    const CHILD: &str = "NOTIFIER_TEST_PROXY_CHILD";
    if std::env::var_os(CHILD).is_none() {
        let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        proxy.set_nonblocking(true).unwrap();
        let url = format!("http://{}", proxy.local_addr().unwrap());
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "guard::a_proxy_of_the_environment_is_not_asked"]).env(CHILD, "1");
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            child.env(name, &url);
        }
        child.env_remove("NO_PROXY").env_remove("no_proxy");
        let output = child.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(proxy.accept().is_err(), "the proxy was asked");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new("proxy").await;
        let partner = world.partner().await;
        let sink = Sink::ok().await;
        world.endpoint(partner, &sink.url).await;
        let notifier = world.notifier();
        sink.wait_for(&world.events(partner, 1).await).await;
        notifier.stop().await;
        world.env.close().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canary_sings_where_loopback_is_allowed() {
    let world = World::new("guard-local").await;
    let partner = world.partner().await;
    let (port, contacted) = canary().await;
    world.endpoint(partner, &format!("https://loopback.test:{port}/")).await;
    let notifier = Notifier::start(world.config(), Arc::new(Fake::default()));
    world.events(partner, 1).await;
    wait_until("a connection", BOUND, async || contacted.load(Ordering::Relaxed) > 0).await;
    notifier.stop().await;
    world.env.close().await;
}
