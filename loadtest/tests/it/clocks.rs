//! A processor whose clock is ahead of MySQL's applies nothing, says so, and goes on by itself once the clocks agree.
//!
//! It is MySQL's clock that is turned back here, for the processor's sessions alone: which of two clocks is wrong nobody
//! can tell, and a process's own cannot be turned.

use std::time::Duration;

use client::PaymentRequest;
use domain::money::{Amount, Currency};
use domain::payment::PaymentStatus;
use loadtest::system::{Options, Servers, Service, System};
use testkit::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_whose_clock_is_ahead_stops_loudly_and_goes_on_by_itself() {
    let _turn = crate::turn().await;
    // What is set here is set for everybody on the server.
    let folder = tempfile::tempdir().unwrap();
    let servers = Servers::own_mysql(folder.path()).await.unwrap();
    let options = Options { notifiers: 0, ..Options::new("clocks") };
    let system = System::start(servers, options).await.unwrap();
    let turn_back = |seconds: u32| {
        format!(
            "SET GLOBAL init_connect = \"SET timestamp = IF(CURRENT_USER() LIKE '%processor%', \
             UNIX_TIMESTAMP() - {seconds}, 0)\""
        )
    };
    // Just not too much.
    sqlx::raw_sql(&turn_back(50)).execute(system.pool()).await.unwrap();
    system.kill(Service::Processor, 0).await.unwrap();
    system.restart(Service::Processor, 0).await.unwrap();
    let bank = system.partners()[0].client(&system.url(0), client::Options::default()).unwrap();
    let request =
        PaymentRequest::new(system.partners()[0].mandates[0], Amount::new(100, Currency::EUR).unwrap());
    let in_time = bank.pay(&request, "in-time", Some(Duration::from_secs(10))).await.unwrap();
    assert_eq!(in_time.payment.status, PaymentStatus::Posted);

    sqlx::raw_sql(&turn_back(3_600)).execute(system.pool()).await.unwrap();
    system.kill(Service::Processor, 0).await.unwrap();
    system.restart(Service::Processor, 0).await.unwrap();
    let held_up = bank.pay(&request, "held-up", None).await.unwrap();
    assert_eq!(held_up.payment.status, PaymentStatus::Pending);
    wait_until("the processor says why", PATIENCE, async || {
        let (status, body) = system.readiness(Service::Processor, 0).await.unwrap_or_default();
        status == 503 && body.contains("ahead of MySQL's: set it, nothing is applied meanwhile")
    })
    .await;
    let metrics = system.metrics(Service::Processor, 0).await.unwrap();
    let ahead = metrics.lines().find_map(|line| line.strip_prefix("wired_processor_clock_ahead_seconds "));
    assert!((3_590..=3_700).contains(&ahead.unwrap().parse::<i64>().unwrap()), "{ahead:?}");
    let posted = "SELECT COUNT(*) FROM payments WHERE kind = 1";
    let count: i64 = sqlx::query_scalar(posted).fetch_one(system.pool()).await.unwrap();
    assert_eq!(count, 1, "nothing is decided at a wrong time");

    sqlx::raw_sql("SET GLOBAL init_connect = ''").execute(system.pool()).await.unwrap();
    wait_until("it goes on", PATIENCE, async || {
        bank.payment_by_id(held_up.payment.id).await.is_ok_and(|it| it.status == PaymentStatus::Posted)
    })
    .await;
    system.wait_ready(Service::Processor, 0).await.unwrap();
    let future = "SELECT COUNT(*) FROM accounts WHERE entered_at > UTC_TIMESTAMP(6) + INTERVAL 60 SECOND";
    let count: i64 = sqlx::query_scalar(future).fetch_one(system.pool()).await.unwrap();
    assert_eq!(count, 0);
    system.finish().await.unwrap();
}
