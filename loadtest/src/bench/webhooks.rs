//! How many webhooks are delivered to one endpoint and to ten, compared with a peer measured on such a machine
//! (Svix 1.99: 949 messages/s to one endpoint, 3,288 deliveries/s to ten).
//!
//! The processor makes the events while the notifier is down; then the notifier has a backlog to consume, look up,
//! sign, send and record. The receiver verifies every signature, in the process of the benchmark, on the same machine.

use std::time::Duration;

use anyhow::{Context as _, bail};
use domain::event::API_VERSION;
use domain::ids::{EndpointId, EndpointSecretId, PartnerId};
use domain::seal::{KeyEncryptionKey, KeyEncryptionKeys, NONCE_BYTES, Place};
use domain::webhook::Secret;
use migrations::users::Role;
use uuid::Uuid;

use super::city::{self, City};
use super::drain::statements_of;
use crate::proc;
use crate::report::{Goal, Report};
use crate::sink::Sink;
use crate::system::{Options, Servers, Service, System};

/// What Svix delivers to one endpoint and to ten.
const PEER: [f64; 2] = [949.0, 3_288.0];
const TIMES_THE_PEER: f64 = 5.0;
/// Events to one endpoint, and to ten.
const EVENTS_TO: [u64; 2] = [30_000, 8_000];
const ENDPOINTS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures and reports.
pub(super) async fn measure(servers: Servers, report: &mut Report) -> anyhow::Result<()> {
    let options = Options { ingests: 0, customers: 1_000, partners: 2, ..Options::new("tell") };
    let system = System::start(servers, options).await?;
    let sink = Sink::start(system.partners()[0].webhook_listen).await?;
    sink.trust_bodies();
    // admin-api seed gives the second partner's endpoint a path of its own.
    let paths = [vec!["/webhooks".to_owned()], ten_paths()];
    for (partner, paths) in system.partners().iter().zip(&paths) {
        sink.endpoint(&paths[0], &partner.webhook_secret)?;
    }
    for path in &paths[1][1..] {
        add_endpoint(&system, &sink, system.partners()[1].id, path).await?;
    }
    let mut statements = 0.0;
    for index in 0..2 {
        let (partner, paths) = (system.partners()[index].id, &paths[index]);
        let run = deliver(&system, &sink, partner, paths, EVENTS_TO[index]).await?;
        let to =
            if paths.len() == 1 { "1 endpoint".to_owned() } else { format!("{} endpoints", paths.len()) };
        let goal = Goal::AtLeast(TIMES_THE_PEER * PEER[index]);
        report.add(format!("webhooks delivered to {to}"), run.per_second, "deliveries/s", goal);
        report.add(format!("CPU of the notifier for a delivery to {to}"), run.cpu_us, "us", Goal::None);
        statements = f64::max(statements, run.statements);
    }
    report.add("SQL statements per delivery at the first try", statements, "", Goal::AtMost(0.1));
    let pid = system.pid(Service::Notifier, 0).context("the notifier is gone")?;
    let mib = proc::rss_max_bytes(pid)? / 1_048_576.0;
    report.add("memory of notifier at full speed, at most", mib, "MiB", Goal::AtMost(200.0));
    sink.stop().await;
    system.finish().await
}

fn ten_paths() -> Vec<String> {
    std::iter::once("/webhooks/2".to_owned())
        .chain((1..ENDPOINTS).map(|number| format!("/more/{number}")))
        .collect()
}

struct Run {
    per_second: f64,
    cpu_us: f64,
    statements: f64,
}

/// Has the processor make `count` events of the partner while the notifier is down, then delivers them.
async fn deliver(
    system: &System,
    sink: &Sink,
    partner: PartnerId,
    paths: &[String],
    count: u64,
) -> anyhow::Result<Run> {
    let mut mandates = city::mandates_of(system.pool()).await?;
    mandates.retain(|mandate| mandate.partner == partner);
    system.terminate(Service::Notifier, 0).await?;
    let applied = city::applied(system.pool(), 1).await?;
    let payments = city::payments(&mandates, applied..applied + count);
    City::produce(system.kafka(), payments.into_iter().map(|(_, envelope)| envelope)).await?;
    city::wait_applied(system.pool(), 1, applied + count).await?;
    let before: Vec<u64> = paths.iter().map(|path| sink.counts(path).events).collect();
    let statements = statements_of(system, Role::Notifier).await?;
    system.spawn(Service::Notifier, 0)?;
    let done = |sink: &Sink| {
        paths.iter().zip(&before).all(|(path, before)| sink.counts(path).events >= before + count)
    };
    if !sink.wait_until(PATIENCE, done).await {
        bail!("not all webhooks arrived: {:?}; {:?}", sink.total(), sink.first_problem());
    }
    let deliveries = (count * paths.len() as u64) as f64;
    let pid = system.pid(Service::Notifier, 0).context("the notifier does not run")?;
    let cpu_us = proc::cpu_seconds(pid)? / deliveries * 1e6;
    // What was sent is recorded shortly afterwards.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let statements = (statements_of(system, Role::Notifier).await? - statements) / deliveries;
    let mut times: Vec<i64> = Vec::new();
    for (path, before) in paths.iter().zip(&before) {
        let received = sink.received(path);
        let first_times = received.iter().filter(|it| !it.repeated).skip(*before as usize);
        times.extend(first_times.map(|it| it.received_us));
    }
    times.sort_unstable();
    // Without the beginning and the end, when it is not busy.
    let (from, to) = (times.len() / 10, times.len() * 9 / 10);
    let elapsed_us = (times[to] - times[from]).max(1);
    Ok(Run { per_second: (to - from) as f64 / (elapsed_us as f64 / 1e6), cpu_us, statements })
}

/// A further endpoint of the partner: configuration, as an administrator would add it.
async fn add_endpoint(system: &System, sink: &Sink, partner: PartnerId, path: &str) -> anyhow::Result<()> {
    let kek = std::fs::read_to_string(system.folder().join("webhook-secrets.kek"))?;
    let keys = KeyEncryptionKeys::new(KeyEncryptionKey::from_base64(&kek)?);
    let secret = Secret::text_of(&rand::random());
    let (endpoint, id) =
        (EndpointId::from_uuid(Uuid::new_v4()), EndpointSecretId::from_uuid(Uuid::new_v4()).uuid());
    let place = Place { table: "endpoint_secrets", column: "secret_sealed", row: id.as_bytes() };
    let sealed = keys.seal(secret.as_bytes(), &place, rand::random::<[u8; NONCE_BYTES]>());
    // The secret first: an endpoint must never be seen without one.
    sqlx::query("INSERT INTO endpoint_secrets (id, endpoint_id, secret_sealed, created_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))")
        .bind(id.as_bytes().as_slice())
        .bind(endpoint.uuid().as_bytes().as_slice())
        .bind(sealed)
        .execute(system.pool())
        .await?;
    sqlx::query("INSERT INTO endpoints (id, partner_id, url, api_version, created_at) VALUES (?, ?, ?, ?, UTC_TIMESTAMP(6))")
        .bind(endpoint.uuid().as_bytes().as_slice())
        .bind(partner.uuid().as_bytes().as_slice())
        .bind(sink.url(path))
        .bind(API_VERSION)
        .execute(system.pool())
        .await?;
    sink.endpoint(path, &secret)?;
    Ok(())
}
