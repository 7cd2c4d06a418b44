//! Kills, a database that is away, and a topic that was cut off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::topic;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use runtime::config::MysqlConfig;
use testkit::wait_until;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{BOUND, Notifier, Reply, Sink, World};
use notifier::resolver::SystemLookup;

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_nothing_is_lost_and_ids_stay() {
    let world = World::new("kill").await;
    let partner = world.partner().await;
    let sink = Sink::new(|_, _| Reply::After(Duration::from_millis(2), axum::http::StatusCode::OK)).await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    let events = world.decide(partner, 3_000).await;
    for (round, chunk) in events.chunks(1_000).enumerate() {
        let notifier = world.notifier();
        world.announce(chunk).await;
        let some = (round * 1_000 + 400) as u64;
        wait_until("some to arrive", BOUND, async || sink.count() >= some).await;
        notifier.kill();
    }
    let notifier = world.notifier();
    sink.wait_for(&events).await;
    // Leases of the killed run out by themselves; here they are hurried.
    wait_until("all to be recorded", BOUND, async || {
        world.hurry(endpoint).await;
        world.deliveries(endpoint, 2).await == 3_000
    })
    .await;
    assert_eq!(sink.ids().len(), 3_000, "no id that was not announced");
    println!("3 kills: {} webhooks for 3000 events", sink.count());
    notifier.stop().await;
    // What was recorded was also committed: a fresh start sends nothing again.
    let before = sink.count();
    let notifier = world.notifier();
    let more = world.events(partner, 1).await;
    sink.wait_for(&more).await;
    assert_eq!(sink.count(), before + 1);
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_under_way_at_a_kill_is_sent_again() {
    let world = World::new("under-way").await;
    let partner = world.partner().await;
    let accepting = Arc::new(AtomicBool::new(false));
    let accepts = Arc::clone(&accepting);
    let sink = Sink::new(move |_, _| {
        if accepts.load(Ordering::Relaxed) {
            Reply::After(Duration::ZERO, axum::http::StatusCode::OK)
        } else {
            Reply::Never
        }
    })
    .await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    // Fewer than a stranger's window. Killed before and after the attempts are stored as leased; watermarks are committed every half second.
    for (round, lived) in [(1, Duration::from_millis(750)), (2, Duration::from_millis(2_500))] {
        let notifier = world.notifier();
        world.events(partner, 3).await;
        wait_until("the attempts to begin", BOUND, async || sink.ids().len() == round * 3).await;
        tokio::time::sleep(lived).await;
        notifier.kill();
    }
    accepting.store(true, Ordering::Relaxed);
    let notifier = world.notifier();
    wait_until("all to be accepted", BOUND, async || {
        world.hurry(endpoint).await;
        world.deliveries(endpoint, 2).await == 6
    })
    .await;
    assert_eq!(sink.ids().len(), 6);
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_mysql_is_away_nothing_is_lost_and_readiness_says_so() {
    let world = World::new("mysql-away").await;
    let partner = world.partner().await;
    let sink = Sink::ok().await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    let (port, up) = proxy(&world.env.service_url("notifier")).await;
    let mut config = world.config();
    config.mysql = through(&config.mysql, port);
    let notifier = Notifier::start(config, Arc::new(SystemLookup::default()));
    sink.wait_for(&world.events(partner, 100).await).await;
    up.store(false, Ordering::Relaxed);
    let events = world.events(partner, 200).await;
    wait_until("readiness to turn red", BOUND, async || {
        notifier
            .private("/health/ready")
            .await
            .is_some_and(|(status, body)| status == 503 && body.contains("mysql"))
    })
    .await;
    up.store(true, Ordering::Relaxed);
    sink.wait_for(&events).await;
    world.delivered(endpoint, 300).await;
    wait_until("readiness", BOUND, async || {
        notifier.private("/health/ready").await.is_some_and(|(status, _)| status == 200)
    })
    .await;
    notifier.stop().await;
    world.env.close().await;
}

pub(crate) fn through(mysql: &MysqlConfig, port: u16) -> MysqlConfig {
    let mut url = url::Url::parse(&mysql.mysql_url).unwrap();
    url.set_port(Some(port)).unwrap();
    MysqlConfig { mysql_url: url.to_string() }
}

/// A TCP proxy to MySQL; while it is down, connections are cut and refused.
pub(crate) async fn proxy(mysql_url: &str) -> (u16, Arc<AtomicBool>) {
    let url = url::Url::parse(mysql_url).unwrap();
    let target: SocketAddr = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap()).parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let up = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&up);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                if !state.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(mut server) = TcpStream::connect(target).await else { return };
                let _ = server.set_nodelay(true);
                let _ = client.set_nodelay(true);
                let cut = async {
                    while state.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    () = cut => {}
                }
            });
        }
    });
    (port, up)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_topic_no_longer_holds_is_delivered_from_the_event_log() {
    let world = World::new("gap").await;
    let partner = world.partner().await;
    let sink = Sink::ok().await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    let notifier = world.notifier();
    sink.wait_for(&world.events(partner, 20).await).await;
    world.delivered(endpoint, 20).await;
    notifier.stop().await;
    let lost = world.events(partner, 700).await;
    cut_off(&world).await;
    let kept = world.events(partner, 5).await;
    let notifier = world.notifier();
    sink.wait_for(&lost).await;
    sink.wait_for(&kept).await;
    world.delivered(endpoint, 725).await;
    assert_eq!(sink.ids().len(), 725);
    notifier.stop().await;
    world.env.close().await;
}

/// Deletes every record of the event topic, as retention does.
async fn cut_off(world: &World) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &world.env.kafka.kafka_brokers).set("group.id", "unused");
    let consumer: BaseConsumer = config.create().unwrap();
    let name = world.env.topic(topic::EVENTS);
    let mut ends = TopicPartitionList::new();
    for partition in 0..topic::EVENTS.partitions {
        let (_, high) = consumer.fetch_watermarks(&name, partition, BOUND).unwrap();
        ends.add_partition_offset(&name, partition, Offset::Offset(high)).unwrap();
    }
    let admin: AdminClient<_> = config.create().unwrap();
    admin.delete_records(&ends, &AdminOptions::new()).await.expect("records can be deleted");
}
