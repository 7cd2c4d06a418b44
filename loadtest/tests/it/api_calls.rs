//! MySQL is away for twenty seconds while both APIs are called: every call that was answered stands in the table
//! afterwards, once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loadtest::driver::{self, Load, Pace, Progress};
use loadtest::faults::driver_partners;
use loadtest::proxy::Proxy;
use loadtest::system::{Options, Servers, Service, System, ports};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

/// Half of it MySQL refuses connections, half of it it says nothing at all.
const AWAY: Duration = Duration::from_secs(20);
/// Payments a second.
const RATE: f64 = 100.0;
/// Calls of the load: whoever waits until a bank is ready calls it, too.
const PAYMENTS: &str = "service = 1 AND route = '/v1/payments' AND method = 'POST'";
/// How long loading may take afterwards.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_lost_while_mysql_is_away() {
    let _turn = crate::turn().await;
    let servers = Servers::from_env().unwrap();
    let proxy = Proxy::start(ports::free().unwrap(), servers.mysql_address().unwrap()).await.unwrap();
    let services = [Service::Ingest, Service::Processor, Service::AdminApi];
    let options = Options {
        mysql_via: services.map(|service| (service, proxy.address())).to_vec(),
        admin_apis: 2,
        notifiers: 0,
        ..Options::new("api_calls")
    };
    let system = System::start(servers, options).await.unwrap();
    let before = calls(&system, PAYMENTS).await;

    let stop = CancellationToken::new();
    let load = Load::new("calls", driver_partners(&system), Pace::PerSecond(RATE), Duration::from_secs(120));
    let driving = tokio::spawn({
        let stop = stop.clone();
        async move { driver::run(&load, Arc::new(Progress::default()), stop).await }
    });
    // The bank's own API is called, too.
    let asking = tokio::spawn({
        let (stop, url) = (stop.clone(), system.public_url(Service::AdminApi, 0));
        async move {
            let mut answered = 0_i64;
            while !stop.is_cancelled() {
                assert!(ask(&url).await.starts_with("HTTP/1.1 404 "));
                answered += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            answered
        }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    proxy.refuse();
    tokio::time::sleep(AWAY / 2).await;
    proxy.pause();
    proxy.accept();
    tokio::time::sleep(AWAY / 2).await;
    proxy.resume();
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.cancel();
    let (report, asked) = (driving.await.unwrap().unwrap(), asking.await.unwrap());
    assert!(
        report.refused.is_empty() && report.unknown.is_empty(),
        "{:?} {:?}",
        report.refused,
        report.unknown
    );
    let paid = i64::try_from(report.accepted.len()).unwrap();
    assert!(paid > 2_000, "{paid}");

    let begun = Instant::now();
    loop {
        let posted = calls(&system, PAYMENTS).await - before;
        let not_found = calls(&system, "service = 2 AND route = 'other' AND status = 404").await;
        if (posted, not_found) == (paid, asked) {
            break;
        }
        assert!(
            posted <= paid && not_found <= asked && begun.elapsed() < PATIENCE,
            "{posted} of {paid} payments and {not_found} of {asked} others are loaded after {:?}",
            begun.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("{paid} payments and {asked} others are loaded {:?} after MySQL came back", begun.elapsed());
    // Each payment that was asked for is named by its call.
    let named = "SELECT COUNT(DISTINCT c.target_id) FROM api_calls c JOIN payments p ON p.id = c.target_id \
                 WHERE c.service = 1 AND c.method = 'POST' AND c.status = 202";
    loadtest::faults::audit::applied(&system, Duration::from_secs(60)).await.unwrap();
    let (named,): (i64,) = sqlx::query_as(named).fetch_one(system.pool()).await.unwrap();
    assert!(named >= paid, "{named} of {paid}");
    for (service, metric) in [
        (Service::Ingest, "wired_ingest_api_calls_lost_total"),
        (Service::AdminApi, "wired_admin_api_api_calls_lost_total"),
    ] {
        let metrics = system.metrics(service, 0).await.unwrap();
        let lost = metrics.lines().find_map(|line| line.strip_prefix(&format!("{metric} ")));
        assert_eq!(lost, Some("0"), "{metric}");
    }
    system.finish().await.unwrap();
}

/// Asks the bank's API for something that is not there.
async fn ask(url: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET /v1/nothing-here HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn calls(system: &System, filter: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) FROM api_calls WHERE {filter}");
    let (count,): (i64,) = sqlx::query_as(&sql).fetch_one(system.pool()).await.unwrap();
    count
}
