//! What must hold after faults have healed: nothing lost, nothing twice, everything told.
//!
//! Two witnesses stand outside the bank: the driver knows what was accepted, the sink knows what was told. The
//! ledger is compared with both, and with itself by the verifier.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use domain::ids::{EventId, PaymentId, event_id, payment_id};
use domain::payment::{PaymentKind, PaymentStatus};
use domain::topic::Source;
use migrations::users::Role;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::store::{self, PaymentRow};
use crate::driver;
use crate::sink::Sink;
use crate::system::System;

/// How long the broker may take to say where a partition ends.
const WATERMARK_TIMEOUT: Duration = Duration::from_secs(10);
/// How often to look whether everything is applied.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// More examples than these help nobody.
const EXAMPLES_MAX: usize = 5;
/// `deliveries.status` of one that has succeeded.
const DELIVERED: u8 = 2;

/// The end of each partition of the command topics, by source code and partition.
pub type Ends = BTreeMap<(u8, u16), u64>;

/// What was accepted, and what the ledger was before.
#[derive(Debug, Default)]
pub struct Expected {
    /// What the driver was answered.
    pub reports: Vec<driver::Report>,
    /// The last sequence of each partner before its endpoint could receive anything.
    pub sequences: Vec<u64>,
    /// Movements of the bank, written to Kafka and acknowledged.
    pub bank: Vec<PaymentId>,
    /// Dead letters that there must be, no more and no fewer.
    pub dead_letters: usize,
}

/// Figures of a whole ledger.
#[derive(Debug, Default, Clone, Copy)]
pub struct Audited {
    /// Payments that the driver knows to be accepted.
    pub accepted: usize,
    /// Requests that were never answered and had been accepted all the same.
    pub unanswered: usize,
    /// Payments that were posted.
    pub posted: u64,
    /// Payments that were rejected.
    pub rejected: u64,
    /// Events that were received.
    pub events: usize,
    /// Deliveries that came more than once.
    pub repeats: u64,
    /// Comparisons of the verifier.
    pub checks: u64,
}

/// Where the event logs of all partners stand now.
pub async fn sequences(system: &System) -> anyhow::Result<Vec<u64>> {
    let mut sequences = Vec::new();
    for partner in system.partners() {
        sequences.push(store::last_sequence(system.pool(), partner.id).await?);
    }
    Ok(sequences)
}

/// Waits until every command is applied and every event announced.
pub async fn applied(system: &System, patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let behind = match behind(system).await {
            Ok(behind) if behind.is_empty() => return Ok(()),
            Ok(behind) => behind.join("; "),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            anyhow::bail!("after {patience:?} not everything is applied and announced: {behind}");
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Where the command topics end now.
pub async fn ends(system: &System) -> anyhow::Result<Ends> {
    let kafka = system.kafka().clone();
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = kafka.client().create()?;
        let mut ends = Ends::new();
        for source in Source::ALL {
            let topic = source.topic();
            for partition in 0..topic.partitions {
                let (_, end) =
                    consumer.fetch_watermarks(&kafka.topic(topic.name), partition, WATERMARK_TIMEOUT)?;
                ends.insert((source.code(), partition as u16), end as u64);
            }
        }
        anyhow::Ok(ends)
    })
    .await?
}

/// The partitions that are not applied up to `ends`.
pub async fn not_applied(system: &System, ends: &Ends) -> anyhow::Result<Vec<String>> {
    let positions = store::positions(system.pool()).await?;
    let next = |key| positions.get(key).map_or(0, |(next, _)| *next);
    let behind = ends.iter().filter(|(key, end)| next(key) < **end);
    Ok(behind.map(|(key, end)| format!("{key:?}: {} of {end}", next(key))).collect())
}

async fn behind(system: &System) -> anyhow::Result<Vec<String>> {
    let mut behind = not_applied(system, &ends(system).await?).await?;
    let positions = store::positions(system.pool()).await?;
    let unannounced = positions.iter().filter(|(_, (next, announced))| announced < next);
    behind.extend(
        unannounced.map(|(key, (next, announced))| format!("{key:?}: {announced} of {next} announced")),
    );
    Ok(behind)
}

/// Waits until the sink has every event of every partner and no delivery is left open.
pub async fn told(
    system: &System,
    sink: &Sink,
    expected: &Expected,
    patience: Duration,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let mut missing = 0;
        for index in 0..system.partners().len() {
            missing += untold(system, sink, expected, index).await?.len();
        }
        let deliveries = store::deliveries(system.pool()).await?;
        let open: i64 =
            deliveries.iter().filter(|(status, _)| **status != DELIVERED).map(|(_, count)| count).sum();
        if missing == 0 && open == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            anyhow::bail!(
                "after {patience:?} {missing} events are not received and {open} deliveries are open"
            );
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The path of a partner's endpoint, as `admin-api seed` makes it.
pub fn webhook_path(partner: usize) -> String {
    if partner == 0 { "/webhooks".to_owned() } else { format!("/webhooks/{}", partner + 1) }
}

async fn untold(
    system: &System,
    sink: &Sink,
    expected: &Expected,
    index: usize,
) -> anyhow::Result<Vec<(u64, u16)>> {
    let partner = &system.partners()[index];
    let after = expected.sequences.get(index).copied().unwrap_or(0);
    let mut events = store::events(system.pool(), partner.id, after).await?;
    let received: HashSet<_> =
        sink.received(&webhook_path(index)).iter().map(|received| received.event).collect();
    events.retain(|(sequence, epoch)| !received.contains(&event_id(partner.id, *epoch, *sequence)));
    Ok(events)
}

/// Compares everything with everything; every difference is in the error.
pub async fn audit(system: &System, sink: Option<&Sink>, expected: &Expected) -> anyhow::Result<Audited> {
    let mut problems = Problems::default();
    let mut audited = Audited::default();
    let verifier = system.mysql_of(Role::Verifier).pool("verifier", 2)?;
    let report = verifier::verify(&verifier, None).await?;
    audited.checks = report.checks.values().sum();
    report.findings.iter().for_each(|finding| problems.add(finding.to_string()));

    let rows = store::payments(system.pool()).await?;
    let dead_letters = store::dead_letters(system.pool()).await?;
    if dead_letters.len() != expected.dead_letters {
        problems.add(format!(
            "{} dead letters instead of {}: {:?}",
            dead_letters.len(),
            expected.dead_letters,
            dead_letters.first()
        ));
    }
    accepted(system, expected, &rows, &mut audited, &mut problems);
    let ids: Vec<PaymentId> = accepted_ids(expected).into_iter().collect();
    let outcomes = verifier::outcomes(&verifier, &ids).await?;
    verifier.close().await;
    if !outcomes.is_complete() {
        problems.add(format!(
            "accepted and without an outcome: {} missing, {} illegal, such as {:?}",
            outcomes.missing, outcomes.illegal, outcomes.examples
        ));
    }
    (audited.posted, audited.rejected) = (outcomes.posted, outcomes.rejected);
    balances(system, &rows, &mut problems).await?;
    if let Some(sink) = sink {
        let versions = rows.iter().map(|row| (row.id, row.version)).collect();
        webhooks(system, sink, expected, &versions, &mut audited, &mut problems).await?;
    }
    problems.none()?;
    Ok(audited)
}

fn accepted_ids(expected: &Expected) -> HashSet<PaymentId> {
    let accepted = expected.reports.iter().flat_map(|report| &report.accepted).map(|accepted| accepted.id);
    accepted.chain(expected.bank.iter().copied()).collect()
}

/// The driver's records against the rows, both ways.
fn accepted(
    system: &System,
    expected: &Expected,
    rows: &[PaymentRow],
    audited: &mut Audited,
    problems: &mut Problems,
) {
    let payment = |row: &&PaymentRow| row.kind == PaymentKind::Payment.code();
    let by_id: HashMap<PaymentId, &PaymentRow> =
        rows.iter().filter(payment).map(|row| (row.id, row)).collect();
    let mut known = HashSet::new();
    for answer in expected.reports.iter().flat_map(|report| &report.accepted) {
        let partner = system.partners()[answer.partner].id;
        if answer.id != payment_id(partner, &answer.idempotency_key) {
            problems.add(format!("key {} was answered with the id {}", answer.idempotency_key, answer.id));
        }
        known.insert(answer.id);
        let Some(row) = by_id.get(&answer.id) else { continue };
        if row.amount_minor != answer.amount_minor || row.mandate != Some(answer.mandate.uuid()) {
            problems.add(format!("{} is not what was asked: {row:?}", answer.id));
        }
        let open = matches!(answer.status, PaymentStatus::Pending | PaymentStatus::Authorized);
        if !open && answer.status.code() != row.status {
            problems.add(format!("{} was answered {} and is {}", answer.id, answer.status, row.status));
        }
    }
    audited.accepted = known.len();
    for unknown in expected.reports.iter().flat_map(|report| &report.unknown) {
        let id = payment_id(system.partners()[unknown.partner].id, &unknown.idempotency_key);
        if known.insert(id) && by_id.contains_key(&id) {
            audited.unanswered += 1;
        }
    }
    let strangers = by_id.keys().filter(|id| !known.contains(id));
    strangers.for_each(|id| problems.add(format!("{id} was never asked for")));
    let mut keys = HashSet::new();
    for row in rows.iter().filter(payment) {
        if !keys.insert((row.partner, row.idempotency_key.as_deref())) {
            problems.add(format!("key {:?} was applied twice", row.idempotency_key));
        }
    }
}

/// What partners have is what payments moved and nobody gave back, to the cent.
async fn balances(system: &System, rows: &[PaymentRow], problems: &mut Problems) -> anyhow::Result<()> {
    let payment = |row: &&PaymentRow| row.kind == PaymentKind::Payment.code();
    for partner in system.partners() {
        let own = rows.iter().filter(payment).filter(|row| row.partner == Some(partner.id));
        let sum: i64 = own.map(|row| row.left_minor).sum();
        let balance = store::balance(system.pool(), partner.id.uuid()).await?;
        if sum != balance {
            problems
                .add(format!("{}: {sum} are left of its payments, and its balance is {balance}", partner.id));
        }
    }
    Ok(())
}

async fn webhooks(
    system: &System,
    sink: &Sink,
    expected: &Expected,
    versions: &HashMap<PaymentId, u32>,
    audited: &mut Audited,
    problems: &mut Problems,
) -> anyhow::Result<()> {
    for (index, partner) in system.partners().iter().enumerate() {
        for (sequence, epoch) in untold(system, sink, expected, index).await? {
            problems.add(format!("event {sequence} (epoch {epoch}) of {} was not received", partner.id));
        }
        let stored: HashSet<_> = store::events(system.pool(), partner.id, 0).await?.into_iter().collect();
        let mut of_payment: HashMap<PaymentId, HashSet<EventId>> = HashMap::new();
        for received in sink.received(&webhook_path(index)) {
            let position = (received.sequence, received.epoch);
            let id = event_id(partner.id, received.epoch, received.sequence);
            if !stored.contains(&position) || received.event != id {
                problems.add(format!("{} was received and is not event {position:?}", received.event));
            }
            if let Some(payment) = received.payment {
                of_payment.entry(payment).or_default().insert(received.event);
            }
        }
        // Each change of a payment is told at most once.
        for (payment, told) in of_payment.iter().filter(|(_, told)| told.len() > 1) {
            if told.len() > versions.get(payment).map_or(0, |version| *version as usize) {
                problems.add(format!("{payment} was told by {} events", told.len()));
            }
        }
        let counts = sink.counts(&webhook_path(index));
        audited.events += counts.events as usize;
        audited.repeats += counts.repeats;
    }
    if sink.total().invalid > 0 {
        problems.add(format!("{} bad webhooks: {:?}", sink.total().invalid, sink.first_problem()));
    }
    let open = store::deliveries(system.pool()).await?;
    open.iter().filter(|(status, _)| **status != DELIVERED).for_each(|(status, count)| {
        problems.add(format!("{count} deliveries stand in status {status}"));
    });
    Ok(())
}

/// What differs: the first few of it in words, all of it in number.
#[derive(Debug, Default)]
struct Problems {
    examples: Vec<String>,
    count: usize,
}

impl Problems {
    fn add(&mut self, problem: String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(problem);
        }
    }

    fn none(self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.count == 0,
            "{} problems, the first of them:\n{}",
            self.count,
            self.examples.join("\n")
        );
        Ok(())
    }
}
