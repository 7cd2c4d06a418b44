//! Bad endpoints harm nobody else, and those inside the network are never contacted.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use loadtest::driver::{self, Load, Pace, Progress};
use loadtest::faults::endpoints::{self, Bad, Plan};
use loadtest::faults::{audit, driver_partners, store};
use loadtest::system::{Options, Servers, Service, System};
use testkit::wait_until;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Times on a busy machine are noise: `loadtest faults` holds the strict bound, here only harm is noticed.
const WORSE_MAX: f64 = 3.0;
const WORSE_MAX_MS: f64 = 50.0;
/// A debug build, and five endpoints that would like it to hold 10 MiB for each request.
const NOTIFIER_MIB_MAX: f64 = 200.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_and_a_refused_endpoint_harm_no_healthy_one() {
    let _turn = crate::turn().await;
    let measured = endpoints::run(&Plan::two_bad(Duration::from_secs(8), 40.0)).await.unwrap();
    println!("{measured:?}");
    let bound = measured.alone_p99_ms * WORSE_MAX + WORSE_MAX_MS;
    assert!(measured.beside_p99_ms <= bound, "{measured:?}");
    assert!(measured.attempts[&Bad::Hanging] > 0 && measured.attempts[&Bad::Refused] > 0, "{measured:?}");
}

/// The p99 is measured by `loadtest bench`; here nothing may be lost and memory has a bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_endpoints_thirty_five_are_bad_and_nothing_is_lost() {
    let _turn = crate::turn().await;
    let seconds = crate::number("WIRED_ISOLATION_SECONDS").unwrap_or(6);
    let measured = endpoints::run(&Plan::fifty(Duration::from_secs(seconds), 30.0)).await.unwrap();
    println!("{measured:?}");
    assert_eq!(measured.attempts.len(), 5, "{measured:?}");
    assert!(measured.attempts.values().all(|attempts| *attempts > 0), "{measured:?}");
    assert!(measured.events_of_bad > 0, "{measured:?}");
    assert!(measured.notifier_mib < NOTIFIER_MIB_MAX, "{measured:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_inside_the_network_is_never_contacted() {
    let _turn = crate::turn().await;
    // Whoever is contacted here has been found out.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let contacts = Arc::new(AtomicUsize::new(0));
    let counting = tokio::spawn({
        let contacts = Arc::clone(&contacts);
        async move {
            while listener.accept().await.is_ok() {
                contacts.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let own = own_address();
    let hosts = [
        "127.0.0.1".to_owned(),
        "[::1]".to_owned(),
        "[::ffff:127.0.0.1]".to_owned(),
        "[64:ff9b::127.0.0.1]".to_owned(),
        "169.254.169.254".to_owned(),
        "10.0.0.1".to_owned(),
        "[fe80::1]".to_owned(),
        "0.0.0.0".to_owned(),
        // A name that resolves to loopback only at connect time.
        "localhost".to_owned(),
        own.to_string(),
    ];
    let options = Options { partners: hosts.len() as u32, customers: 4, ..Options::new("inside") };
    let options = options.with_env(Service::Notifier, "WIRED_WEBHOOK_ALLOW_LOOPBACK_HTTP", "false");
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    system.terminate(Service::Notifier, 0).await.unwrap();
    for (partner, host) in system.partners().iter().zip(&hosts) {
        // The standard port is allowed to everybody; here it would prove nothing, since nobody listens there.
        let url = format!("https://{host}:{port}/webhooks");
        assert_eq!(store::set_endpoint_url(system.pool(), partner.id, &url).await.unwrap(), 1);
    }
    system.restart(Service::Notifier, 0).await.unwrap();
    let mut load = Load::new("inside", driver_partners(&system), Pace::Workers(4), Duration::from_secs(30));
    load.requests_max = hosts.len() as u64;
    let report = driver::run(&load, Arc::new(Progress::default()), CancellationToken::new()).await.unwrap();
    assert_eq!(report.accepted.len(), hosts.len(), "{report:?}");
    audit::applied(&system, Duration::from_secs(30)).await.unwrap();
    let attempts = wait_until("an attempt at each endpoint", Duration::from_secs(30), async || {
        let attempts = store::attempts(system.pool()).await.unwrap();
        (attempts.len() >= hosts.len()).then_some(attempts)
    });
    let attempts = attempts.await;
    assert!(attempts.iter().all(|(status, error)| status.is_none() && error.is_some()), "{attempts:?}");
    println!("{attempts:?}");
    // The listener does work.
    tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    wait_until("the listener to count", Duration::from_secs(5), async || {
        contacts.load(Ordering::Relaxed) > 0
    })
    .await;
    assert_eq!(contacts.load(Ordering::Relaxed), 1, "an endpoint inside the network was contacted");
    counting.abort();
    system.finish().await.unwrap();
}

/// This machine's own address in its network, or loopback where there is none. No packet is sent.
fn own_address() -> Ipv4Addr {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let routed = socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).and_then(|()| socket.local_addr());
    match routed {
        Ok(SocketAddr::V4(address)) if address.ip().is_private() => *address.ip(),
        _ => Ipv4Addr::LOCALHOST,
    }
}
